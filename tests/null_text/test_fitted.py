"""Null texts for all prompts: their file, replay, and use in stock pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import nulltta
from nulltta import DoesNotFit, EncodedPrompt, InvalidValue, LoadError, NullText, NullTTAConfig, rewards
from nulltta.fit.settings import FitSettings
from nulltta.fit.training import FitProblem
from nulltta.null_text import loading
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import FORMS, free_shapes
from nulltta.null_text.identity import identity
from nulltta.null_text.replay import replay

from ..tiny import save_stable_diffusion
from ..tiny_families import save_sdxl

CONFIG = NullTTAConfig(num_inference_steps=4, guidance_scale=4.0, eta=0.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return nulltta.load_model(save_stable_diffusion(tmp_path_factory.mktemp("sd") / "sd"), device="cpu")


def made(model: Any, form: Any = "prompt") -> FittedNullText:
    """Return a null text with random weights."""
    _, null = model.encode(["a"], [""])
    shift = FORMS[form](free_shapes(null), 4)
    source = torch.Generator().manual_seed(0)
    for parameter in shift.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=source)
    timesteps = [step.timestep for step in model.schedule(4)]
    about = {"model": identity(model), "form": form, "where": model.placement(4),
             "config": {"num_inference_steps": 4, "guidance_scale": 4.0, "eta": 0.0}}  # fmt: skip
    return FittedNullText(timesteps, shift.requires_grad_(False), (1, 4), about)


def metadata_of(path: Path) -> dict[str, str]:
    with safe_open(path, framework="pt") as file:
        return dict(file.metadata())


@pytest.mark.parametrize("form", ["constant", "steps", "prompt"])
def test_a_file_holds_it_whole(model: Any, tmp_path: Path, form: Any) -> None:
    null_text = made(model, form)
    null_text.save(tmp_path / "n.safetensors")
    loaded = loading.load(tmp_path / "n.safetensors", model)
    assert isinstance(loaded, FittedNullText)
    assert loaded.between == (1, 4)
    assert loaded.about["form"] == form
    cond, null = model.encode(["a cat", "a dog"], ["", ""])
    for step in model.schedule(4):
        ours, theirs = (n.embedding(step.timestep, null, cond) for n in (null_text, loaded))
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_what_the_forms_depend_on(model: Any) -> None:
    cond, null = model.encode(["a cat", "a dog"], ["", ""])
    (name,) = null
    shift = {
        form: [made(model, form).at(i, null, cond)[name] - null[name] for i in range(4)]
        for form in ("constant", "steps", "prompt")
    }
    assert not any(bool(steps[0].any()) for steps in shift.values())  # outside `between`
    assert torch.equal(shift["constant"][1], shift["constant"][2])
    assert not torch.allclose(shift["steps"][1], shift["steps"][2])
    assert torch.equal(shift["steps"][1][0], shift["steps"][1][1])
    assert not torch.allclose(shift["prompt"][1][0], shift["prompt"][1][1])


def test_the_zeros_that_pad_a_text_change_nothing() -> None:
    form = FORMS["prompt"]({"text": (4, 3)}, 1)
    for parameter in form.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    null, cond = torch.zeros(1, 4, 3), torch.ones(1, 2, 3)
    alone, padded = (form(0, {"text": null}, {"text": each})["text"] for each in (cond, torch.cat([cond, 0 * cond], 1)))
    torch.testing.assert_close(padded, alone)


@pytest.mark.parametrize("form", ["constant", "steps", "prompt"])
def test_in_a_stock_pipeline_each_prompt_of_a_batch_gets_its_own(model: Any, form: Any) -> None:
    from diffusers import StableDiffusionPipeline

    stock = StableDiffusionPipeline(**model.pipeline.components, requires_safety_checker=False)
    stock.set_progress_bar_config(disable=True)
    null_text, prompts = made(model, form), ["a cat", "a dog"]
    latents = torch.cat([nulltta.algorithm.randomness.initial_latents(model, [seed], 1, 3)[:, 0] for seed in (8, 9)])
    call = {"num_inference_steps": 4, "guidance_scale": 4.0, "latents": latents, "output_type": "pt"}
    with null_text.apply(stock):
        theirs = stock(prompts, **call).images
    for row, prompt in enumerate(prompts):
        ours = replay(model, null_text, prompt=prompt, seeds=[8 + row])[0]
        torch.testing.assert_close(ours, theirs[row], rtol=0, atol=1e-5)
    assert float((theirs - stock(prompts, **call).images).abs().max()) > 1e-3


@pytest.fixture(scope="module")
def sdxl(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from diffusers import DDIMScheduler

    loaded = nulltta.load_model(save_sdxl(tmp_path_factory.mktemp("sdxl") / "sdxl"), device="cpu")
    loaded.pipeline.scheduler = DDIMScheduler(clip_sample=False)
    return loaded


@pytest.mark.parametrize("guidance", ["cfg", "nag"])
def test_sdxl_without_a_negative_prompt_counts_from_the_null_embedding_of_the_fit(
    sdxl: Any, tmp_path: Path, guidance: Any
) -> None:
    config = NullTTAConfig(num_inference_steps=2, guidance_scale=4.0, guidance=guidance, conventions="exact")
    problem = FitProblem(
        sdxl, rewards.load("brightness"), ["a cat"], ["a", "b"], config, FitSettings(form="constant", between=(0, 1))
    )
    _, null = problem.model.encode([""], [""])
    shift = FORMS["constant"](free_shapes(null), 2).requires_grad_(False)
    for parameter in shift.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    problem.null_text(shift).save(tmp_path / "n.safetensors")
    pipeline, scale = sdxl.pipeline, 4.0 if guidance == "cfg" else 0.0
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def sampled(**call: Any) -> torch.Tensor:
        return pipeline(["a cat", "a dog"], num_inference_steps=2, guidance_scale=scale, latents=latents,
                        output_type="latent", **call).images  # fmt: skip

    plain = sampled(negative_prompt=["", ""])
    with FittedNullText.load(tmp_path / "n.safetensors", sdxl).apply(pipeline):
        without, empty = sampled(), sampled(negative_prompt=["", ""])
        torch.testing.assert_close(without, empty, rtol=0, atol=1e-3)
        assert float((empty - plain).abs().max()) > 0.01
        if guidance == "cfg":
            assert float((sampled(negative_prompt=["red"] * 2) - empty).abs().max()) > 1e-4
    alone = load_file(tmp_path / "n.safetensors")  # as files were before φ was held in them
    save_file({name: tensor for name, tensor in alone.items() if not name.startswith("null.")},
              tmp_path / "old.safetensors", metadata_of(tmp_path / "n.safetensors"))  # fmt: skip
    assert FittedNullText.load(tmp_path / "old.safetensors", sdxl).null == {}


def test_replay_needs_a_prompt_and_has_no_noise(model: Any) -> None:
    with pytest.raises(InvalidValue, match="fitted"):
        replay(model, made(model))
    with pytest.raises(DoesNotFit, match="no noise"):
        replay(model, made(model), prompt="a cat", exact=True)


def test_plain_replay_is_plain_sampling(model: Any) -> None:
    plain = replay(model, made(model), prompt="a cat", seeds=[3], plain=True)
    aligned = nulltta.align(model, "a cat", lambda images, _: images.flatten(1).mean(1), method="plain",
                            config=NullTTAConfig(num_inference_steps=4, guidance_scale=4.0, eta=0.0, num_particles=1),
                            seed=3)  # fmt: skip
    torch.testing.assert_close(plain, aligned.images)


def test_an_encoded_prompt_is_replayed_like_its_text(model: Any) -> None:
    embeds = model.pipeline.encode_prompt("a cat", "cpu", 1, False)[0]
    encoded = replay(model, made(model), prompt=EncodedPrompt("a cat", prompt_embeds=embeds), seeds=[3])
    torch.testing.assert_close(encoded, replay(model, made(model), prompt="a cat", seeds=[3]), rtol=0, atol=1e-5)


def test_a_file_of_one_kind_is_not_read_as_the_other(model: Any, tmp_path: Path) -> None:
    made(model).save(tmp_path / "fitted.safetensors")
    with pytest.raises(LoadError, match="is a null text for all prompts"):
        NullText.load(tmp_path / "fitted.safetensors")


@pytest.mark.parametrize(
    "lie",
    [{"shapes": {}}, {"shapes": {"encoder_hidden_states": [0, 32]}}, {"shapes": {"encoder_hidden_states": [10**9, 32]}},
     {"form": "words"}, {"timesteps": []}, {"timesteps": "x"}, {"between": [1]}],
)  # fmt: skip
def test_a_file_that_lies_is_refused_in_one_line(model: Any, tmp_path: Path, lie: dict[str, Any]) -> None:
    path = tmp_path / "n.safetensors"
    made(model).save(path)
    metadata, tensors = metadata_of(path), load_file(path)
    metadata["about"] = json.dumps({**json.loads(metadata["about"]), **lie})
    save_file(tensors, path, metadata)
    with pytest.raises(LoadError) as refused:
        FittedNullText.load(path)
    assert "\n" not in str(refused.value)


def test_a_weight_that_is_not_finite_is_not_saved(model: Any, tmp_path: Path) -> None:
    null_text = made(model, "constant")
    next(null_text.form.parameters()).data.fill_(float("nan"))
    with pytest.raises(InvalidValue, match="not finite"):
        null_text.save(tmp_path / "n.safetensors")
    assert not list(tmp_path.iterdir())
