"""The embedded model distilled to four steps: how it is trained, and the LoRA that ships."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta.embedded import PIPELINE, WEIGHTS
from nulltta.embedded.train import turbo
from nulltta.embedded.train.loop import Budget

PROMPT = "a pizza on a pink background, noto style"


@pytest.fixture(scope="module")
def pipe() -> Any:
    return turbo.load_teacher()


def test_a_trajectory_ends_where_stock_sampling_ends(pipe: Any) -> None:
    """Eight deterministic steps at the student's levels are DDIM's own, trailing."""
    ids = pipe.tokenizer([PROMPT], padding="max_length", return_tensors="pt").input_ids
    found = turbo.trajectories(pipe, ids, torch.Generator().manual_seed(0))
    assert found["level"].tolist() == [level for top in turbo.STARTS for level in range(top, 0, -1)]
    stock = pipe(PROMPT, num_inference_steps=8, guidance_scale=turbo.GUIDANCE, eta=0.0, latents=found["x"][:1],
                 output_type="latent").images  # fmt: skip
    torch.testing.assert_close(found["end"][:1], stock, rtol=0, atol=1e-3)


def test_training_resumes_and_exports_a_lora_that_stock_diffusers_loads(tmp_path: Path, pipe: Any) -> None:
    import diffusers

    data = turbo.simulate(tmp_path, pipe, captions=1, chunk=1)
    budget = Budget(tmp_path, minutes=10.0, steps=1)
    turbo.run(turbo.load_teacher(), budget, data, batch=8)
    student = turbo.load_teacher()
    adapters = turbo.run(student, Budget(tmp_path, minutes=10.0, steps=2), data, batch=8)
    assert len((tmp_path / "turbo.jsonl").read_text().splitlines()) == 0  # no line before the fiftieth step
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


def test_the_shipped_lora_is_small_and_loads_by_name() -> None:
    assert sum(file.stat().st_size for file in (WEIGHTS / "turbo").rglob("*")) < 4_000_000
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
