"""A negative prompt whose tokens are vectors to be learnt, encoded by the pipeline itself, with gradient.

The pipeline's own call is recorded with a negative prompt of N equal words. Where a text encoder looks these up, the
learnt vectors take their place, so that everything else (special tokens, padding, positions, which hidden states count,
pooling, joining two encoders) is the pipeline's. This is how a textual inversion (arXiv 2208.01618) is used.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import Embedding
from nulltta.errors import InvalidValue
from nulltta.models.frozen import Frozen
from nulltta.models.observed import ObservedModel
from nulltta.models.restoring import overruled

WORD, PROMPT = "a", "dog"
"""The word that stands in the negative prompt for each learnt token, and the prompt beside it."""


class LearntTokens:
    """N learnt input tokens per text encoder as a model's null embedding.

    Args:
        model: a model of a pipeline whose text encoders read a word as one token, as CLIP's do.
        count: N, the number of tokens; 1 or more.

    Raises:
        InvalidValue: if the model has no such text encoder, or N tokens do not fit into its longest prompt.
    """

    def __init__(self, model: Any, count: int) -> None:
        pipeline = model.pipeline if isinstance(model, ObservedModel) else None
        names = [name for name in getattr(pipeline, "components", ()) if name.startswith("text_encoder")]
        self.encoders = {name: part for name in names if (part := getattr(pipeline, name)) is not None}
        if not self.encoders:
            raise InvalidValue("'tokens' needs a pipeline with text encoders: choose another form", "form")
        self.model, self.count = model, count
        self.tokenizers = {name: getattr(pipeline, name.replace("text_encoder", "tokenizer")) for name in names}
        self.words = {name: self._word(name) for name in self.encoders}
        longest = min(self.tokenizers[name].model_max_length for name in self.encoders) - 2
        if count > longest:
            raise InvalidValue(
                f"must be at most {longest}, which is what the text encoder reads, not {count}", "tokens"
            )

    def initial(self) -> dict[str, Tensor]:
        """Return the vectors (N, D) of the empty prompt's first N tokens, by the text encoder's name.

        The learnt negative prompt then differs from the empty one by where it ends, at most.
        """
        found = {}
        for name, encoder in self.encoders.items():
            ids = self.tokenizers[name]("", padding="max_length", return_tensors="pt").input_ids[0, 1 : 1 + self.count]
            table = encoder.get_input_embeddings()
            with torch.no_grad():
                found[name] = table(ids.to(table.weight.device)).float().clone()
        return found

    def __call__(self, tokens: Mapping[str, Tensor]) -> Embedding:
        """Encode the learnt tokens (N, D) of each text encoder: φ' in one row, with gradient.

        Raises:
            InvalidValue: if a text encoder was not given the tokens in one piece.
        """
        found: set[str] = set()

        def looked_up(name: str, lookup: Any, ids: Tensor) -> Tensor:
            vectors: Tensor = lookup(ids)
            starts = (ids == self.words[name]).unfold(1, self.count, 1).all(2)  # (B, L − N + 1)
            if not bool(starts.any()):
                return vectors
            found.add(name)
            torch.set_grad_enabled(True)  # the pipeline's call had switched it off, and does so again when it ends
            rows = []
            for row, start in zip(vectors, starts, strict=True):
                first = int(start.int().argmax())
                parts = (row[:first], tokens[name].to(row), row[first + self.count :])
                rows.append(torch.cat(parts) if bool(start.any()) else row)
            return torch.stack(rows)

        with ExitStack() as undo:
            for name, encoder in self.encoders.items():
                with torch.enable_grad():
                    undo.enter_context(Frozen(encoder))
                table = encoder.get_input_embeddings()
                lookup = table.forward
                undo.enter_context(overruled(table, "forward", lambda ids, n=name, of=lookup: looked_up(n, of, ids)))
            null: Embedding = self.model.encode_null(PROMPT, " ".join([WORD] * self.count))
        if missing := self.encoders.keys() - found:
            raise InvalidValue(
                f"'tokens' does not suit this pipeline: its {min(missing)} was given other tokens", "form"
            )
        return null

    def _word(self, name: str) -> int:
        """Return the id of the word that stands for learnt tokens."""
        ids = self.tokenizers[name](WORD, add_special_tokens=False).input_ids
        if len(ids) != 1:
            kind = type(self.encoders[name]).__name__
            raise InvalidValue(
                f"'tokens' needs text encoders that read a word as one token, as CLIP's do, not {kind}: choose another",
                "form",
            )
        return int(ids[0])
