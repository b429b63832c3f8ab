"""A null text in diffusers' modular pipelines, which take guidance as an object."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from diffusers.guiders import ClassifierFreeGuidance

from nulltta.errors import DoesNotFit

if TYPE_CHECKING:
    from nulltta.null_text.fitted import FittedNullText
    from nulltta.null_text.value import NullText

PLACES: Mapping[str, str] = {
    "encoder_hidden_states": "prompt_embeds",
    "added_cond_kwargs.text_embeds": "text_embeds",
    "pooled_projections": "pooled_prompt_embeds",
}
"""By the denoiser's argument, what diffusers' modular pipelines call it in their guiders' inputs."""


class NullTextGuidance(ClassifierFreeGuidance):  # type: ignore[misc]  # diffusers has no types
    """Classifier-free guidance whose null branch is given φ'_t at each step.

    `pipe.update_components(guider=NullTextGuidance(null_text, guidance_scale=7.5))`. Each prompt of a batch gets its
    own φ'_t(c) where the null text depends on the prompt. The pictures are those of `null_text.apply(pipe)` in the
    stock pipeline of the same model. It cannot see the model: `NullText.load(path, model)` says whether the null text
    fits.

    Args:
        null_text: the null text, of either kind.
        guidance_scale: s, above 1.
        places: for a pipeline whose guider inputs have other names than those of SDXL and SD3, these names, by the
            denoiser's arguments (`null_text.paths`). They are the keys of `guider_inputs` in its `denoise.py`.
        options: further arguments of diffusers' `ClassifierFreeGuidance`.

    Raises:
        DoesNotFit: if there is no name for one of the null text's tensors, or it was learnt under normalized
            attention guidance.
    """

    def __init__(
        self,
        null_text: NullText | FittedNullText,
        guidance_scale: float = 7.5,
        places: Mapping[str, str] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(guidance_scale=guidance_scale, **options)
        if null_text.about.get("config", {}).get("guidance", "cfg") != "cfg":
            raise DoesNotFit("the null text was learnt under normalized attention guidance: use apply or replay")
        self.null_text = null_text
        known = {**PLACES, **(places or {})}
        if missing := set(null_text.paths) - known.keys():
            raise DoesNotFit(f"the guider's inputs have no known name for '{min(missing)}': give places")
        self.places = {path: known[path] for path in null_text.paths}

    def prepare_inputs(self, data: dict[str, Any]) -> list[Any]:
        """Return the inputs of each branch, the null branch's with φ'."""
        return self._with_null(super().prepare_inputs(data))

    def prepare_inputs_from_block_state(self, data: Any, input_fields: dict[str, Any]) -> list[Any]:
        """Return the inputs of each branch, the null branch's with φ'."""
        return self._with_null(super().prepare_inputs_from_block_state(data, input_fields))

    def _with_null(self, branches: list[Any]) -> list[Any]:
        """Put φ' into the null branch; without one, when guidance is off at this step, there is nothing to do."""
        if len(branches) < 2:
            return branches
        cond, null = branches
        given = [{path: getattr(each, place) for path, place in self.places.items()} for each in (null, cond)]
        index = self.null_text.nearest(float(self._timestep))
        for path, rows in self.null_text.rows(index, *given).items():
            there, learnt = given[0][path], torch.stack(list(rows))
            if learnt.shape != there.shape:
                shapes = f"{tuple(there.shape[1:])}, the null text's is {tuple(learnt.shape[1:])}"
                raise DoesNotFit(f"'{self.places[path]}' has shape {shapes}: it was made for another model")
            setattr(null, self.places[path], learnt.to(there))
        return branches
