"""The guider of modular pipelines, alone: what the null branch is given, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from nulltta import DoesNotFit, NullText
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import PromptForm
from nulltta.null_text.guider import NullTextGuidance


@pytest.fixture(autouse=True)
def _verbosity() -> Iterator[None]:
    """Restore diffusers' log level, at which it warns that guiders are an experiment."""
    from diffusers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    yield
    logging.set_verbosity(before)


def inputs(tokens: int = 3) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    return {
        "prompt_embeds": (
            torch.randn(2, tokens, 4, generator=torch.Generator().manual_seed(0)),
            torch.zeros(2, tokens, 4),
        )
    }


def test_each_prompt_of_a_batch_gets_the_null_text_of_its_own_at_the_nearest_step() -> None:
    form = PromptForm({"encoder_hidden_states": (3, 4)}, 2)
    for parameter in form.parameters():
        parameter.data = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    null_text = FittedNullText([900.0, 100.0], form.requires_grad_(False), (0, 2), {})
    guider = NullTextGuidance(null_text, guidance_scale=3.0)
    guider.set_state(step=0, num_inference_steps=2, timestep=torch.tensor(250))
    cond, null = guider.prepare_inputs(inputs())
    embeds = [{"encoder_hidden_states": each} for each in reversed(inputs()["prompt_embeds"])]
    expected = null_text.at(1, *embeds)["encoder_hidden_states"]
    assert torch.equal(null.prompt_embeds, expected)
    assert not torch.allclose(expected[0], expected[1])
    assert torch.equal(cond.prompt_embeds, inputs()["prompt_embeds"][0])


def test_what_does_not_fit_is_refused() -> None:
    row = {"encoder_hidden_states": torch.zeros(3, 4)}
    guider = NullTextGuidance(NullText([1.0], [row], "a", row))
    guider.set_state(step=0, num_inference_steps=1, timestep=1)
    with pytest.raises(DoesNotFit, match="another model"):
        guider.prepare_inputs(inputs(tokens=5))
    other = {"words": torch.zeros(3, 4)}
    with pytest.raises(DoesNotFit, match="'words': give places"):
        NullTextGuidance(NullText([1.0], [other], "a", other))
    with pytest.raises(DoesNotFit, match="normalized attention guidance"):
        NullTextGuidance(NullText([1.0], [row], "a", row, {"config": {"guidance": "nag"}}))
    assert NullTextGuidance(NullText([1.0], [other], "a", other), places={"words": "prompt_embeds"}).places


def test_without_guidance_there_is_no_null_branch() -> None:
    row = {"encoder_hidden_states": torch.zeros(3, 4)}
    guider = NullTextGuidance(NullText([1.0], [row], "a", row), guidance_scale=1.0)
    guider.set_state(step=0, num_inference_steps=1, timestep=1)
    assert len(guider.prepare_inputs(inputs())) == 1
