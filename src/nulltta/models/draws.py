"""What a stock call draws while it is watched: the same noise in every recording, or zeros with a gradient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode


def fixed_noise(place: int, shape: Sequence[int]) -> Tensor:
    """One row of the noise that is drawn at a place in every recorded call."""
    generator = torch.Generator().manual_seed(place)
    return torch.empty(tuple(shape), dtype=torch.float32).normal_(generator=generator)


class Draws(TorchFunctionMode):
    """Overrules this thread's draws of noise.

    Draws for whole latents are replaced by zeros with a gradient, if their number of elements is given: all of that
    size (or of any larger one), or the one at a place. Every other draw, such as that of a picture's encoding, is
    replaced by what is given for its place among the call's draws, or by `fixed_noise`, so that recordings of one
    prompt and of two see the same.
    """

    def __init__(
        self,
        given: Mapping[int, Tensor],
        count: int | None,
        draws: dict[int, Tensor],
        only: int | None = None,
        larger: bool = False,
    ) -> None:
        super().__init__()
        self.given, self.count, self.draws, self.only, self.place = given, count, draws, only, 0
        self.larger = larger

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if function is not torch.randn or not result.dim():
            return result
        self.place += 1
        if self.place in self.given:
            return self.given[self.place].to(result).reshape(result.shape)
        if not self._is_whole(result.numel()) or self.only not in (None, self.place):
            return fixed_noise(self.place, result.shape[1:]).to(result).expand(result.shape).clone()
        torch.set_grad_enabled(True)  # until the pipeline's own no_grad ends
        probe = torch.zeros_like(result, dtype=torch.float32, requires_grad=True)
        self.draws[self.place] = probe
        return probe.to(result.dtype, copy=True)  # pipelines may write into what they drew

    def _is_whole(self, count: int) -> bool:
        """Return whether so many elements are the noise of whole latents."""
        return self.count is not None and (count == self.count or (self.larger and count > self.count))


def fixed_draws(given: Mapping[int, Tensor]) -> TorchFunctionMode:
    """Return a context in which a stock call draws what it draws in recordings, or the noise given for a place.

    The places count from 1.
    """
    return Draws(given, None, {})
