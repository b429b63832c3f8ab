"""`NullText`: what a run learnt for one prompt, a null embedding for each denoising step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nulltta.types import Embedding


@dataclass(frozen=True, slots=True)
class NullText:
    """The learnt null text of one prompt.

    Attributes:
        timesteps: the T denoising steps', noisiest first.
        values: φ' at each of them, without a batch dimension. Stable Diffusion: {"tokens": (77, 768)}.
        prompt: the prompt it was learnt for.
    """

    timesteps: Sequence[int]
    values: Sequence[Embedding]
    prompt: str
