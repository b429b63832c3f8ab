"""Null texts of the first version, whose tensors have names of their own instead of the denoiser's arguments."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from nulltta.algorithm.embeddings import is_free
from nulltta.contracts import Embedding, GuidedModel
from nulltta.errors import DoesNotFit

if TYPE_CHECKING:
    from nulltta.null_text.value import NullText

NAMES = frozenset({"tokens", "pooled", "mask", "length"})


def renamed(null_text: NullText, model: GuidedModel) -> NullText:
    """Return the null text with the model's own names; unchanged unless its names are the first version's.

    Raises:
        DoesNotFit: if one of its tensors has no place, or more than one, in the model's embedding.
    """
    if not set(null_text.null) <= NAMES:
        return null_text
    _, null = model.encode([null_text.prompt or "a"], [""])
    if set(null) <= NAMES:
        return null_text  # a model of the tests, whose names these are
    places = {name: _place(name, null_text.null, null) for name in null_text.null}

    def under_new_names(embedding: Embedding) -> Embedding:
        return {places[name]: tensor for name, tensor in embedding.items()}

    values = [under_new_names(value) for value in null_text.values]
    return replace(null_text, null=under_new_names(null_text.null), values=values)


def _place(name: str, learnt: Embedding, encoded: Embedding) -> str:
    tensor = learnt[name]
    fitting = [
        path
        for path, there in encoded.items()
        if there.dim() - 1 == tensor.dim()
        and is_free(there) == is_free(tensor)
        and (not is_free(tensor) or there.shape[-1] == tensor.shape[-1])
    ]
    if len(fitting) != 1:
        raise DoesNotFit(
            f"the null text's '{name}' of shape {tuple(tensor.shape)} has {len(fitting)} places in this model"
        )
    return fitting[0]
