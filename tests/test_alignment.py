"""`align`: its result, its arguments, and what it refuses."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, NullTTAError, OutOfMemory, Step, align
from nulltta.display.formatting import number
from nulltta.testing import Gaussian, nearness

CONFIG = NullTTAConfig(num_inference_steps=4, inner_steps=(1, 2), num_particles=3, guidance_scale=3.0)


def test_the_shapes_of_a_result(model: Any, config: NullTTAConfig) -> None:
    result = align(model, ["a cat", "a dog", "a hen"], "brightness", config=config)
    assert result.images.shape == result.baseline.shape == (3, 3, 16, 16)
    assert result.candidates.shape == (3, 2, 3, 16, 16)
    assert result.rewards.shape == result.baseline_rewards.shape == (3,)
    assert result.initial_rewards is not None
    assert result.initial_rewards.shape == (3, 2)
    assert result.images.min() >= 0
    assert result.images.max() <= 1
    for i, step in enumerate(result.trace):
        assert step.index == i
        assert step.inner_rewards.shape == (2 if i == 2 else 1, 3)
        assert step.candidate_rewards.shape == (3, 2)
        assert step.selected.shape == step.kl.shape == (3,)
        assert step.preview is None
    assert [step.timestep for step in result.trace] == sorted((s.timestep for s in result.trace), reverse=True)
    assert len(result.null_text) == 3
    assert len(result.null_text[1].values) == len(result.null_text[1].timesteps) == 3
    assert result.null_text[1].values[0]["encoder_hidden_states"].shape == (77, 32)
    assert result.null_text[1].prompt == "a dog"


def test_each_step_is_reported_with_its_preview() -> None:
    seen: list[Step] = []
    align(Gaussian(), ["red", "green"], nearness, config=CONFIG, on_step=seen.append)
    assert [step.index for step in seen] == [0, 1, 2, 3]
    assert all(step.preview is not None and step.preview.shape == (2, 3, 1, 1) for step in seen)


def test_plain_is_a_method_and_the_baseline_of_all_others() -> None:
    plain = align(Gaussian(), "red", nearness, config=CONFIG, method="plain", seed=3)
    assert plain.candidates.shape == (1, 1, 3, 1, 1)
    assert plain.null_text == []
    assert torch.equal(plain.images, plain.baseline)
    first = CONFIG.__class__(num_inference_steps=4, inner_steps=(0, 0), num_particles=1, guidance_scale=3.0)
    assert torch.equal(align(Gaussian(), "red", nearness, config=first, seed=3).images, plain.images)


def test_given_latents_are_used_for_one_prompt_and_for_a_batch() -> None:
    latents = torch.randn((2, 3, 3, 1, 1), generator=torch.Generator().manual_seed(0))
    both = align(Gaussian(), ["red", "green"], nearness, config=CONFIG, latents=latents)
    one = align(Gaussian(), "green", nearness, config=CONFIG, latents=latents[1])
    torch.testing.assert_close(both.images[1], one.images[0])
    assert bool((latents[1] == both.problem.latents[1]).flatten(1).all(1).any())


def test_several_seeds_draw_one_prompt_several_times() -> None:
    several = align(Gaussian(), "red", nearness, config=CONFIG, seed=[4, 2])
    assert several.problem.prompts == ["red", "red"]
    torch.testing.assert_close(several.images[1], align(Gaussian(), "red", nearness, config=CONFIG, seed=2).images[0])


def test_a_negative_prompt_is_where_the_null_text_starts() -> None:
    result = align(Gaussian(), "red", nearness, config=CONFIG, negative_prompt="green")
    assert result.problem.null["mean"].tolist() == [[0.0, 1.0, 0.0]]


def test_models_pipelines_and_directories_are_accepted_alike(
    checkpoint: Path, model: Any, config: NullTTAConfig
) -> None:
    images = [
        align(given, "a cat", "brightness", config=config).images for given in (model, model.pipeline, str(checkpoint))
    ]
    assert torch.equal(images[0], images[1])
    assert torch.equal(images[0], images[2])


def _interrupt(step: Step) -> None:
    if step.index == 1:
        raise KeyboardInterrupt


def test_ctrl_c_in_an_interactive_console_keeps_the_best_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    with pytest.warns(UserWarning, match="stopped after step 2: the pictures are the best so far"):
        result = align(Gaussian(), ["red", "green"], nearness, config=CONFIG, on_step=_interrupt)
    assert len(result.trace) == 2
    assert result.images.shape == result.baseline.shape
    torch.testing.assert_close(result.rewards, result.trace[-1].selected_rewards)
    torch.testing.assert_close(nearness(result.images, ["red", "green"]), result.rewards)
    assert len(result.null_text) == 0


def test_ctrl_c_ends_a_script() -> None:
    with pytest.raises(KeyboardInterrupt):
        align(Gaussian(), "red", nearness, config=CONFIG, on_step=_interrupt)


@pytest.mark.parametrize("shown", [None, False, True])
def test_a_progress_bar_is_shown_where_someone_watches(shown: bool | None, capsys: pytest.CaptureFixture[str]) -> None:
    align(Gaussian(), "red", nearness, config=CONFIG, progress=shown)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert (f"{CONFIG.num_inference_steps}/{CONFIG.num_inference_steps} steps" in printed.err) is (shown is True)


def test_a_result_shows_itself_in_a_notebook() -> None:
    result = align(Gaussian(), ["red", "green"], nearness, config=CONFIG)
    html = result._repr_html_()
    assert html.count("data:image/png;base64,") == 4
    assert html.index("<b>red</b>") < html.index("<b>green</b>")
    assert f"aligned: nearness {number(float(result.rewards[1]))}" in html
    assert repr(result).startswith("Result of 2 pictures of 1×1 pixels, nearness: ")
    shown = replace(result.null_text[1], prompt="<script>")._repr_html_()
    assert "<th>prompt</th><td>&lt;script&gt;</td>" in shown
    assert "<script>" not in shown
    assert "data:image/png;base64," in shown
    assert "nearness" in shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"prompts": ""}, "prompt is empty"),
        ({"prompts": ["red", "  "]}, "prompt is empty"),
        ({"prompts": []}, "no prompt"),
        ({"reward": "clop"}, "did you mean 'clip'"),
        ({"reward": 3}, "int is not a reward"),
        ({"method": "magic"}, "null-tta, plain"),
        ({"guard": "clip"}, "kl_target"),
        ({"seed": -1}, "seed"),
        ({"prompts": ["red", "green"], "seed": [1, 2, 3]}, "3 seeds for 2 prompts"),
        ({"seed": []}, "0 seeds for 1 prompts"),
        ({"negative_prompt": ["", ""]}, "2 negative prompts"),
        ({"latents": torch.zeros(3, 3, 2, 2)}, r"latents must have shape \(1, 3, 3, 1, 1\)"),
        ({"model": "nowhere"}, "unknown model 'nowhere'"),
        ({"model": 7}, "int is not a model"),
    ],
)
def test_bad_arguments_are_refused_in_one_line(arguments: dict[str, Any], says: str) -> None:
    good = {"model": Gaussian(), "prompts": "red", "reward": nearness, "config": CONFIG}
    with pytest.raises(NullTTAError, match=says) as caught:
        align(**{**good, **arguments})
    assert "\n" not in str(caught.value)


def test_out_of_memory_says_what_to_change() -> None:
    def greedy_for_memory(images: Tensor, prompts: Sequence[str]) -> Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(OutOfMemory, match="fewer prompts"), pytest.warns(UserWarning, match="going on with 1"):
        align(Gaussian(), "red", greedy_for_memory, config=CONFIG)


def test_a_baseline_that_does_not_fit_is_out_of_memory_too() -> None:
    class Full(Gaussian):
        full = False

        def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
            if self.full:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return super().decode(x0, detail)

    model = Full()
    result = align(model, "red", nearness, config=CONFIG)
    model.full = True
    with pytest.raises(OutOfMemory, match="fewer prompts at a time"):
        _ = result.baseline
    model.full = False
    assert result.baseline.shape == (1, 3, 1, 1)


def test_the_public_names_are_fixed_and_importing_them_does_not_import_torch() -> None:
    import subprocess
    import sys

    assert nulltta.__all__ == [
        "CleanLatents", "Diagnosis", "DoesNotFit", "EncodedPrompt", "GuidedModel", "InvalidValue", "LatentReward",
        "LoadError", "MissingExtra", "NullTTAConfig", "NullTTAError", "NullText", "OutOfMemory", "Outcome", "Problem",
        "Result", "Reward", "RewardError", "Step", "Stream", "align", "budget", "diagnose", "load_model", "replay",
        "rewards",
    ]  # fmt: skip
    assert all(getattr(nulltta, name) is not None for name in nulltta.__all__)
    code = "import sys, nulltta; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
    with pytest.raises(AttributeError, match="nothing"):
        _ = nulltta.nothing
