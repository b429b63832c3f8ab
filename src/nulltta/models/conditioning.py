"""What a pipeline's call is told to show: texts, or embeddings that the caller made in their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models.recording import accepts
from nulltta.prompts import EncodedPrompt


class ProbeText(str):
    """A text of recordings, which is nobody's prompt."""

    __slots__ = ()


PROMPTS = (ProbeText("a cat"), ProbeText("two red dogs on a green hill"))
NEGATIVES = (ProbeText("ugly"), ProbeText("a blurred photo of a house"))
"""The texts of recordings, which are compared with each other to see what depends on them."""
Embeds = Mapping[str, Any]
"""A prompt's embeddings by the names of the call's arguments, each with one row."""


@dataclass(frozen=True, slots=True)
class Conditioning:
    """Embeddings that stand for texts.

    Attributes:
        prompt, negative: embeddings in the place of every prompt and every negative prompt that is text, one row for
            all of them or one each; None to let the pipeline encode.
        probes: they stand for the texts of recordings only, because the pipeline has no text encoder.
    """

    prompt: Embeds | None = None
    negative: Embeds | None = None
    probes: bool = False

    def arguments(
        self, pipeline: Any, prompts: Sequence[str], negatives: Sequence[str], none_for_empty: bool = False
    ) -> dict[str, Any]:
        """Return the arguments of the pipeline's call that say what to show.

        Raises:
            InvalidValue: if a text cannot be encoded, or the call does not take embeddings under these names.
        """
        unsaid = none_for_empty and not any(negatives) and self.negative is None
        no_negatives: dict[str, Any] = {"negative_prompt": None}
        return {
            **_arguments(pipeline, "", self._rows(prompts, self.prompt), prompts),
            **(
                no_negatives
                if unsaid
                else _arguments(pipeline, "negative_", self._rows(negatives, self.negative), negatives)
            ),
        }

    def _rows(self, texts: Sequence[str], given: Embeds | None) -> list[Embeds | None]:
        return [self._row(text, i, len(texts), given) for i, text in enumerate(texts)]

    def _row(self, text: str, index: int, count: int, given: Embeds | None) -> Embeds | None:
        if isinstance(text, EncodedPrompt):
            return text.embeds
        if given is None:
            return None
        if isinstance(text, ProbeText):
            return _varied(_row_of(given, 0), (*PROMPTS, *NEGATIVES).index(text))
        if self.probes:
            return None
        rows = len(next(iter(given.values())))
        if rows not in (1, count):
            raise InvalidValue(
                f"has {rows} rows for {count} prompts: give one, or one per prompt", field=next(iter(given))
            )
        return _row_of(given, index if rows == count else 0)


def split(call: Mapping[str, Any]) -> tuple[dict[str, Any], Conditioning]:
    """Take a call's embeddings of prompts apart from its other arguments."""
    embeds = {name: value for name, value in call.items() if "prompt_" in name and _is_rows(value)}
    negative = {name.removeprefix("negative_"): v for name, v in embeds.items() if name.startswith("negative_")}
    prompt = {name: value for name, value in embeds.items() if not name.startswith("negative_")}
    options = {name: value for name, value in call.items() if name not in embeds}
    return options, Conditioning(prompt or None, negative or None)


def lacks_text_encoder(pipeline: Any) -> bool:
    """Return whether the pipeline has places for text encoders, and all of them are empty."""
    encoders = [name for name in pipeline.components if name.startswith("text_encoder")]
    return bool(encoders) and all(getattr(pipeline, name, None) is None for name in encoders)


def alike(texts: Sequence[str]) -> bool:
    """Return whether prompts can be given in one call: all of them texts, or embeddings of the same shapes."""
    kinds = {_shapes(text.embeds) if isinstance(text, EncodedPrompt) else None for text in texts}
    return len(kinds) <= 1


def _arguments(
    pipeline: Any, prefix: str, rows: Sequence[Embeds | None], texts: Sequence[str]
) -> dict[str, Any]:  # fmt: skip
    known = [row for row in rows if row is not None]
    if not known:
        if lacks_text_encoder(pipeline):
            raise InvalidValue(
                f"{type(pipeline).__name__} has no text encoder: load it, or give the prompt and the negative prompt "
                "as nulltta.EncodedPrompt"
            )
        return {f"{prefix}prompt": list(texts)}
    if len(known) < len(rows):
        raise InvalidValue("a batch holds texts and embeddings: give one or the other")
    joined: dict[str, Any] = {f"{prefix}prompt": None}
    for name in known[0]:
        if not accepts(pipeline, prefix + name):
            raise InvalidValue(f"is not an argument of {type(pipeline).__name__}'s call", field=prefix + name)
        values = [row[name] for row in known]
        joined[prefix + name] = torch.cat(values) if isinstance(values[0], Tensor) else [v[0] for v in values]
    return joined


def _row_of(given: Embeds, index: int) -> dict[str, Any]:
    return {name: value[index : index + 1] for name, value in given.items()}


def _varied(row: Embeds, number: int) -> dict[str, Any]:
    """Embeddings as another text would have: other values, and another length in a mask."""

    def changed(value: Any) -> Any:
        if not isinstance(value, Tensor):
            return [changed(each) for each in value]
        if value.is_floating_point():
            noise = torch.randn(value.shape, generator=torch.Generator().manual_seed(number))
            return value + noise.to(value)
        mask = value.clone()
        if not bool(value.all()):  # a mask without zeros may be left out by the pipeline
            mask[..., -1 - number] = 1 - mask[..., -1 - number].to(torch.int64)
        return mask

    return {name: changed(value) for name, value in row.items()}


def _shapes(embeds: Embeds) -> tuple[Any, ...]:
    def shape(value: Any) -> Any:
        return tuple(value.shape) if isinstance(value, Tensor) else tuple(map(shape, value))

    return tuple((name, shape(value)) for name, value in sorted(embeds.items()))


def _is_rows(value: Any) -> bool:
    return isinstance(value, Tensor) or (isinstance(value, list) and all(isinstance(each, Tensor) for each in value))
