from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.embeddings import distance

from ..tiny_families import save_sdxl


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_sdxl(tmp_path_factory.mktemp("sdxl") / "model")


@pytest.mark.parametrize(("null", "given"), [("zeros", None), ("text", "")])
def test_each_null_is_the_pipelines_own_for_no_and_for_an_empty_negative_prompt(
    folder: Path, null: str, given: str | None
) -> None:
    model: Any = nulltta.load_model(folder, device="cpu", null=null)
    _, ours = model.encode(["a cat"], [""])
    theirs = model.pipeline.encode_prompt("a cat", device="cpu", negative_prompt=given)
    torch.testing.assert_close(ours["tokens"], theirs[1], rtol=0, atol=0)
    torch.testing.assert_close(ours["pooled"], theirs[3], rtol=0, atol=0)
    assert bool((ours["pooled"] == 0).all()) == (null == "zeros")


def test_zeros_are_for_the_empty_negative_prompt_only(folder: Path) -> None:
    model = nulltta.load_model(folder, device="cpu", null="zeros")
    _, null = model.encode(["a cat", "a dog"], ["", "ugly"])
    assert bool((null["tokens"][0] == 0).all())
    assert bool((null["pooled"][1] != 0).any())


def test_an_unknown_null_is_refused_with_those_there_are(folder: Path) -> None:
    with pytest.raises(NullTTAError, match="no null 'empty': choose one of text, zeros"):
        nulltta.load_model(folder, device="cpu", null="empty")


def test_both_null_embeddings_move_and_both_are_held_by_their_prior(folder: Path) -> None:
    model = nulltta.load_model(folder, device="cpu")
    config = NullTTAConfig(num_inference_steps=2, inner_steps=(2, 2), num_particles=1, guidance_scale=4.0)
    result = align(model, "a cat", lambda images, prompts: images.flatten(1).mean(1), config=config)
    learnt, null = result.null_text[0].values[0], result.problem.null
    for name in ("tokens", "pooled"):
        assert bool((learnt[name] != null[name][0]).any())
    parts = sum(float((learnt[name] - null[name][0]).square().sum()) for name in null)
    assert float(distance({name: t[None] for name, t in learnt.items()}, null)) == pytest.approx(parts, rel=1e-5)


def test_a_half_precision_vae_is_decoded_in_float32_and_left_as_it_was(folder: Path) -> None:
    model: Any = nulltta.load_model(folder, device="cpu", dtype=torch.float16)
    assert model.vae.dtype == torch.float32
    assert model.pipeline.vae.dtype == torch.float16
    images = model.decode(torch.zeros((1, 4, 8, 8)))
    assert bool(images.isfinite().all())
