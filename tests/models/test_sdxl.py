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
    torch.testing.assert_close(ours["encoder_hidden_states"], theirs[1], rtol=0, atol=0)
    torch.testing.assert_close(ours["added_cond_kwargs.text_embeds"], theirs[3], rtol=0, atol=0)
    assert bool((ours["added_cond_kwargs.text_embeds"] == 0).all()) == (null == "zeros")


def test_zeros_are_for_the_empty_negative_prompt_only(folder: Path) -> None:
    model = nulltta.load_model(folder, device="cpu", null="zeros")
    _, null = model.encode(["a cat", "a dog"], ["", "ugly"])
    assert bool((null["encoder_hidden_states"][0] == 0).all())
    assert bool((null["added_cond_kwargs.text_embeds"][1] != 0).any())


def test_an_unknown_null_is_refused_with_those_there_are(folder: Path) -> None:
    with pytest.raises(NullTTAError, match="no null 'empty': choose one of text, masked, zeros, open"):
        nulltta.load_model(folder, device="cpu", null="empty")


def test_both_null_embeddings_move_and_both_are_held_by_their_prior(folder: Path) -> None:
    model = nulltta.load_model(folder, device="cpu")
    config = NullTTAConfig(num_inference_steps=2, inner_steps=(2, 2), num_particles=1, guidance_scale=4.0)
    result = align(model, "a cat", lambda images, prompts: images.flatten(1).mean(1), config=config)
    learnt, null = result.null_text[0].values[0], result.problem.null
    for name in ("encoder_hidden_states", "added_cond_kwargs.text_embeds"):
        assert bool((learnt[name] != null[name][0]).any())
    parts = sum(float((learnt[name] - null[name][0]).square().sum()) for name in null)
    assert float(distance({name: t[None] for name, t in learnt.items()}, null)) == pytest.approx(parts, rel=1e-5)


def test_a_half_precision_vae_is_decoded_in_float32_and_left_as_it_was(folder: Path) -> None:
    model: Any = nulltta.load_model(folder, device="cpu", dtype=torch.float16)
    images = model.decode(torch.full((1, 4, 8, 8), 0.1))
    assert images.dtype == torch.float32
    assert bool(images.isfinite().all())
    assert model.pipeline.vae.dtype == torch.float16
    assert all(parameter.dtype == torch.float16 for parameter in model.pipeline.vae.parameters())
    whole = nulltta.load_model(folder, device="cpu")
    torch.testing.assert_close(images, whole.decode(torch.full((1, 4, 8, 8), 0.1)), rtol=0, atol=2e-3)
