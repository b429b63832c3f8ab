"""Prompts whose embeddings the caller made: by compel, or by a text encoder that is freed by now."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from nulltta import EncodedPrompt, NullTTAConfig, NullTTAError, align, load_model
from nulltta.null_text.replay import replay

from ..tiny import stable_diffusion
from ..tiny_families import FAMILIES

pytestmark = pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' DPM solver
SHORT = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=1, guidance_scale=3.0)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    assert all(isinstance(prompt, str) for prompt in prompts)
    return images.flatten(1).mean(1)


def _encoded(pipeline: Any, text: str) -> EncodedPrompt:
    return EncodedPrompt(text, prompt_embeds=pipeline.encode_prompt(text, "cpu", 1, False)[0])


def test_embeddings_give_what_their_texts_give_and_need_no_text_encoder(checkpoint: Path) -> None:
    pipeline = stable_diffusion(checkpoint)
    expected = align(pipeline, ["a cat", "a dog"], brightness, config=SHORT, negative_prompt=["ugly", ""])
    prompts, negatives = ([_encoded(pipeline, text) for text in texts] for texts in (["a cat", "a dog"], ["ugly", ""]))
    with_encoder = align(pipeline, prompts, brightness, config=SHORT, negative_prompt=negatives)
    torch.testing.assert_close(with_encoder.images, expected.images, rtol=0, atol=1e-6)
    pipeline.text_encoder = pipeline.tokenizer = None
    freed = align(pipeline, prompts, brightness, config=SHORT, negative_prompt=negatives)
    torch.testing.assert_close(freed.images, expected.images, rtol=0, atol=1e-6)
    again = replay(pipeline, freed.null_text[0], prompt=prompts[0])
    torch.testing.assert_close(again, replay(stable_diffusion(checkpoint), expected.null_text[0]), rtol=0, atol=1e-6)


def _sdxl(pipeline: Any, text: str) -> EncodedPrompt:
    tokens, _, pooled, _ = pipeline.encode_prompt(text, do_classifier_free_guidance=False)
    return EncodedPrompt(text, prompt_embeds=tokens, pooled_prompt_embeds=pooled)


def _pixart(pipeline: Any, text: str) -> EncodedPrompt:
    tokens, mask, *_ = pipeline.encode_prompt(text, do_classifier_free_guidance=False, clean_caption=False)
    return EncodedPrompt(text, prompt_embeds=tokens, prompt_attention_mask=mask)


def _flux(pipeline: Any, text: str) -> EncodedPrompt:
    tokens, pooled, _ = pipeline.encode_prompt(text, None)
    return EncodedPrompt(text, prompt_embeds=tokens, pooled_prompt_embeds=pooled)


def _qwen(pipeline: Any, text: str) -> EncodedPrompt:
    tokens, mask = pipeline.encode_prompt(text, max_sequence_length=512)
    mask = torch.ones(tokens.shape[:2], dtype=torch.long) if mask is None else mask
    return EncodedPrompt(text, prompt_embeds=tokens, prompt_embeds_mask=mask)


@pytest.mark.parametrize(("name", "encoded"), [("sdxl", _sdxl), ("pixart", _pixart), ("flux", _flux), ("qwen", _qwen)])
def test_other_families_take_theirs_under_the_names_of_their_own_call(name: str, encoded: Any, tmp_path: Path) -> None:
    case = FAMILIES[name]
    model: Any = case.load(case.save(tmp_path / "model"))
    expected = model.encode(["a cat"], ["ugly"])
    with torch.no_grad():
        given = [[encoded(model.pipeline, text)] for text in ("a cat", "ugly")]
    ours = model.encode(*given)
    for part in model.pipeline.components:
        if part.startswith(("text_encoder", "tokenizer")):
            setattr(model.pipeline, part, None)
    freed = load_model(model.pipeline, **case.call).encode(*given)
    for side in (0, 1):
        free = {key for key, tensor in expected[side].items() if tensor.is_floating_point()}
        assert free <= ours[side].keys() & freed[side].keys()
        for key in free:
            torch.testing.assert_close(ours[side][key], expected[side][key])
            torch.testing.assert_close(freed[side][key], expected[side][key])


def test_a_mask_that_some_texts_are_given_only_is_refused(tmp_path: Path) -> None:
    """QwenImage's call leaves out a mask of ones, which the denoiser then has no place for."""
    case = FAMILIES["qwen"]
    model: Any = case.load(case.save(tmp_path / "model"))
    with torch.no_grad():
        whole = _qwen(model.pipeline, "two red dogs on a hill")
    mask = whole.embeds["prompt_embeds_mask"].clone()
    mask[:, -3:] = 0
    masked = EncodedPrompt("masked", prompt_embeds=whole.embeds["prompt_embeds"], prompt_embeds_mask=mask)
    model.pipeline.text_encoder = model.pipeline.tokenizer = None
    model = load_model(model.pipeline, **case.call)
    model.encode([masked], [masked])
    with pytest.raises(NullTTAError, match="'encoder_hidden_states_mask' for some texts only"):
        model.encode([whole], [whole])


def test_longer_embeddings_than_the_text_encoder_makes(checkpoint: Path) -> None:
    pipeline = stable_diffusion(checkpoint)
    cat, none = (_encoded(pipeline, text).embeds["prompt_embeds"] for text in ("a cat", ""))
    long = EncodedPrompt("a cat and more", prompt_embeds=torch.cat([cat, cat], 1))
    null = EncodedPrompt("", prompt_embeds=torch.cat([none, none], 1))
    result = align(pipeline, long, brightness, config=SHORT, negative_prompt=null)
    assert result.null_text[0].values[0]["encoder_hidden_states"].shape == (154, 32)
    with pytest.raises(NullTTAError, match="own call failed"):
        align(pipeline, long, brightness, config=SHORT)
    with pytest.raises(NullTTAError, match=r"have different shapes .*: align these prompts one at a time"):
        align(pipeline, [long, "a cat"], brightness, config=SHORT, negative_prompt=[null, ""])


def test_a_batch_may_mix_texts_and_embeddings(checkpoint: Path) -> None:
    pipeline = stable_diffusion(checkpoint)
    prompts = ["a dog", _encoded(pipeline, "a cat")]
    mixed = align(pipeline, prompts, brightness, config=SHORT)
    plain = align(pipeline, ["a dog", "a cat"], brightness, config=SHORT)
    torch.testing.assert_close(mixed.images, plain.images, rtol=0, atol=1e-6)


def test_embeddings_of_the_call_stand_for_every_prompt(checkpoint: Path) -> None:
    pipeline = stable_diffusion(checkpoint)
    embeds = {
        "prompt_embeds": _encoded(pipeline, "a cat").embeds["prompt_embeds"],
        "negative_prompt_embeds": _encoded(pipeline, "ugly").embeds["prompt_embeds"],
    }
    expected = align(pipeline, "a cat", brightness, config=SHORT, negative_prompt="ugly")
    pipeline.text_encoder = None
    model = load_model(pipeline, **embeds)
    found = align(model, ["some words for the reward"] * 2, brightness, config=SHORT)
    torch.testing.assert_close(found.images, expected.images.expand(2, -1, -1, -1), rtol=0, atol=1e-6)
    two = {name: torch.cat([value, value]) for name, value in embeds.items()}
    with pytest.raises(NullTTAError, match=r"prompt_embeds has 2 rows for 3 prompts"):
        align(load_model(pipeline, **two), ["a", "b", "c"], brightness, config=SHORT)


def test_texts_that_nothing_can_encode_are_refused(checkpoint: Path) -> None:
    pipeline = stable_diffusion(checkpoint)
    cat = _encoded(pipeline, "a cat")
    pipeline.text_encoder = None
    align(pipeline, cat, brightness, config=SHORT, negative_prompt=cat)
    for prompt, negative in ((cat, ""), ("a cat", cat)):
        with pytest.raises(NullTTAError, match="has no text encoder"):
            align(pipeline, prompt, brightness, config=SHORT, negative_prompt=negative)
    model = load_model(pipeline)
    align(model, cat, brightness, config=SHORT, negative_prompt=cat)
    with pytest.raises(NullTTAError, match="has no text encoder"):  # not the other prompt's embeddings
        align(model, "a cat", brightness, config=SHORT, negative_prompt=cat)


def test_what_is_no_embedding_is_refused(checkpoint: Path) -> None:
    with pytest.raises(NullTTAError, match="an EncodedPrompt needs embeddings"):
        EncodedPrompt("a cat")
    with pytest.raises(NullTTAError, match="negative_prompt_embeds belongs to the negative prompt"):
        EncodedPrompt("a cat", negative_prompt_embeds=torch.zeros(1, 77, 32))
    with pytest.raises(NullTTAError, match="prompt_embeds must have one row"):
        EncodedPrompt("a cat", prompt_embeds=torch.zeros(2, 77, 32))
    strange = EncodedPrompt("a cat", colours=torch.zeros(1, 3))
    with pytest.raises(NullTTAError, match="colours is not an argument of StableDiffusionPipeline's call"):
        align(stable_diffusion(checkpoint), strange, brightness, config=SHORT)


def test_it_travels_as_its_text_and_embeddings() -> None:
    prompt = EncodedPrompt("a cat", prompt_embeds=torch.ones(1, 2, 3))
    copy = pickle.loads(pickle.dumps(prompt))
    assert copy == "a cat"
    assert torch.equal(copy.embeds["prompt_embeds"], prompt.embeds["prompt_embeds"])


@pytest.mark.parametrize("name", ["qwen", "cogview4"])
def test_negative_prompts_of_other_lengths_give_what_each_gives_alone(name: str, tmp_path: Path) -> None:
    case = FAMILIES[name]
    model = case.load(case.save(tmp_path / "model"))
    prompts, negatives = ["a cat", "two red dogs"], ["", "a very long and blurred photo of an ugly house in the fog"]
    both = align(model, prompts, brightness, config=SHORT, negative_prompt=negatives)
    for i in (0, 1):
        alone = align(model, prompts[i], brightness, config=SHORT, negative_prompt=negatives[i])
        torch.testing.assert_close(both.images[i], alone.images[0], rtol=0, atol=1e-4)
