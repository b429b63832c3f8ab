"""The embedded models distilled to four steps: how they are trained, and the LoRAs that ship."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta.embedded import PIPELINE
from nulltta.embedded.scenes.train.turbo import SCENES
from nulltta.embedded.train import turbo
from nulltta.embedded.train.loop import Budget
from nulltta.embedded.train.turbo import EMOJI
from nulltta.embedded.worlds import WORLDS

PROMPT = "a pizza on a pink background, noto style"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return EMOJI.load()


def test_a_trajectory_ends_where_stock_sampling_ends(pipe: Any) -> None:
    """Eight deterministic steps at the student's levels are DDIM's own, trailing."""
    ids = pipe.tokenizer([PROMPT], padding="max_length", return_tensors="pt").input_ids
    found = turbo.trajectories(EMOJI, pipe, ids, torch.Generator().manual_seed(0))
    assert found["level"].tolist() == [level for top in turbo.STARTS for level in range(top, 0, -1)]
    stock = pipe(PROMPT, num_inference_steps=8, guidance_scale=turbo.GUIDANCE, eta=0.0, latents=found["x"][:1],
                 output_type="latent").images  # fmt: skip
    torch.testing.assert_close(found["end"][:1], stock, rtol=0, atol=1e-3)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' scheduler
def test_a_trajectory_of_second_order_ends_where_dpm_solver_ends() -> None:
    from diffusers import DPMSolverMultistepScheduler

    pipe, prompt = SCENES.load(), SCENES.shown[0]
    ids = pipe.tokenizer([prompt], padding="max_length", return_tensors="pt").input_ids
    found = turbo.trajectories(SCENES, pipe, ids, torch.Generator().manual_seed(0))
    pipe.scheduler = DPMSolverMultistepScheduler.from_config(
        pipe.scheduler.config, algorithm_type="dpmsolver++", solver_order=2, final_sigmas_type="zero"
    )
    stock = pipe(prompt, num_inference_steps=8, guidance_scale=turbo.GUIDANCE, latents=found["x"][:1],
                 output_type="latent").images  # fmt: skip
    torch.testing.assert_close(found["end"][:1], stock, rtol=0, atol=1e-3)


def test_training_resumes_and_exports_a_lora_that_stock_diffusers_loads(tmp_path: Path, pipe: Any) -> None:
    import diffusers

    data = turbo.simulate(tmp_path, EMOJI, pipe, [0], size=1)
    budget = Budget(tmp_path, minutes=10.0, steps=1)
    turbo.run(EMOJI, EMOJI.load(), budget, data, data, batch=8)
    student = EMOJI.load()
    adapters = turbo.run(EMOJI, student, Budget(tmp_path, minutes=10.0, steps=2), data, data, batch=8)
    assert len((tmp_path / "turbo.jsonl").read_text().splitlines()) == 0  # no line before the fiftieth step
    told = json.loads((tmp_path / "held-out.jsonl").read_text().splitlines()[-1])
    assert 0 < told["level 2"] < told["level 8"]  # the noisier, the less is known
    turbo.export(student, adapters, budget, tmp_path / "lora")

    stock = diffusers.StableDiffusionPipeline.from_pretrained(PIPELINE, safety_checker=None)
    stock.load_lora_weights(tmp_path / "lora")
    stock.scheduler = diffusers.LCMScheduler.from_pretrained(tmp_path / "lora", subfolder="scheduler")
    assert stock.scheduler.config.original_inference_steps == turbo.LEVELS
    context = torch.ones(1, 24, student.unet.config.cross_attention_dim)
    x = data["x"][:1].float()
    with torch.no_grad():
        ours, theirs = (each(x, 499, context).sample for each in (student.unet, stock.unet))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-3)


def test_a_share_of_a_batch_is_kept_for_the_noisiest_level() -> None:
    assert turbo.levels_of(12, 1 / 3).tolist() == [8, 8, 8, 8, 1, 2, 3, 4, 5, 6, 7, 8]
    assert turbo.levels_of(8, 0.0).tolist() == [1, 2, 3, 4, 5, 6, 7, 8]


@pytest.mark.parametrize("name", ["embedded-turbo", "scenes-turbo"])
def test_the_shipped_lora_is_small(name: str) -> None:
    folder = WORLDS[name].distilled
    assert folder is not None
    assert 0 < sum(file.stat().st_size for file in folder.rglob("*")) < 4_000_000


def test_a_distilled_model_of_scenes_loads_by_name() -> None:
    model = nulltta.load_model("scenes-turbo")
    config = nulltta.NullTTAConfig.preset("scenes-turbo", inner_steps=(1, 1), num_particles=1)
    result = nulltta.align(model, SCENES.shown[0], "scenes-clip", config=config, progress=False)
    assert result.images.shape == (1, 3, 64, 64)
    assert float(result.rewards) > float(result.baseline_rewards)


def test_the_shipped_lora_loads_by_name() -> None:
    model = nulltta.load_model("embedded-turbo")
    config = nulltta.NullTTAConfig.preset("embedded-turbo", inner_steps=(1, 1), num_particles=1)
    result = nulltta.align(model, PROMPT, "clip", config=config, progress=False)
    assert result.images.shape == (1, 3, 64, 64)
    assert float(result.baseline_rewards) > 0.8  # a picture of its prompt, in four evaluations
    own = nulltta.align(model, PROMPT, "clip", config=config.without_null_text(), method="plain", progress=False).images
    torch.testing.assert_close(result.baseline, own, rtol=0, atol=1e-5)  # φ is the prompt, which guides nothing
    negative = nulltta.align(model, PROMPT, "clip", config=config, method="plain", negative_prompt="a fox").images
    assert float((negative - own).abs().max()) > 0.01

    learnt, teacher = result.null_text[0], nulltta.load_model("embedded")
    assert torch.equal(nulltta.replay(model, learnt, exact=True), result.images)
    learnt.require_fit(teacher)  # a LoRA of the denoiser is accepted, but does not make the same picture
    with pytest.raises(nulltta.InvalidValue, match="made with embedded-turbo and replays exactly only there"):
        nulltta.replay(teacher, learnt, exact=True)
