"""Measures of images besides the reward that was optimised."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from nulltta import rewards
from nulltta.contracts import GuidedModel
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import InvalidValue

Measure = Callable[[Tensor, Sequence[str]], Tensor]
"""(images (B, 3, H, W) in [0, 1], prompts) -> (B,), NaN for a prompt that the measure does not apply to."""


@dataclass(frozen=True, kw_only=True)
class KnownMeasure:
    """A measure that is reported without being asked for.

    Attributes:
        load: makes the measure for a device (None for the default one).
        model: the name of the only model that it is for; None for every model.
        in_runs: whether `nulltta align` reports it too; the benchmark always does.
    """

    load: Callable[[torch.device | str | None], Measure]
    model: str | None = None
    in_runs: bool = False


def known_measures(model: str, device: torch.device | str | None = None) -> dict[str, Measure]:
    """Return the measures that the benchmark reports for the model of this name.

    Raises:
        LoadError: if one does not load.
    """
    return _loaded(model, device, MEASURES)


def held_out_measures(model: GuidedModel, device: torch.device | str | None = None) -> dict[str, Measure]:
    """Return the measures that every run of a model reports beside its reward, by name.

    For an embedded model these are the scorers that are never a target, such as "clip-b", and the judge's "facts", each
    NaN for a prompt that it does not know; other models have none.

    Raises:
        LoadError: if one does not load.
    """
    in_runs = {name: known for name, known in MEASURES.items() if known.in_runs}
    return {name: _where_it_applies(measure) for name, measure in _loaded(model.name, device, in_runs).items()}


def _loaded(model: str, device: torch.device | str | None, known: Mapping[str, KnownMeasure]) -> dict[str, Measure]:
    """Load those measures that are for a model, after the held-out scorers and the judge of an embedded one."""
    found: dict[str, Measure] = {}
    if (world := WORLDS.get(model)) is not None:
        found |= {name: rewards.load(name, device=device) for name in world.held_out}
        found["facts"] = facts(model)
    return found | {name: each.load(device) for name, each in known.items() if each.model in (None, model)}


def facts(model: str = "embedded") -> Measure:
    """Return the judge of an embedded model as a measure.

    The measure is the share of a prompt's facts that an image shows, and NaN for a prompt outside the grammar.
    """
    return _where_it_applies(WORLDS[model].load_judge().facts)


def _where_it_applies(measure: Measure) -> Measure:
    """Return a measure that is NaN for each prompt that it refuses, such as one outside a world's grammar."""

    def measured(images: Tensor, prompts: Sequence[str]) -> Tensor:
        with suppress(InvalidValue):
            return measure(images, prompts)
        if len(prompts) == 1:
            return torch.full((1,), math.nan)
        return torch.cat([measured(images[b : b + 1], [prompt]).cpu() for b, prompt in enumerate(prompts)])

    return measured


def high_frequency(images: Tensor, prompts: Sequence[str] = ()) -> Tensor:
    """Measure how much of the luminance varies faster than half the Nyquist frequency; adversarial texture shows here.

    Args:
        images: (B, 3, H, W) in [0, 1].

    Returns:
        (B,), the root mean square of that part of the spectrum, in units of the pixel range.
    """
    weights = torch.tensor([0.299, 0.587, 0.114]).to(images)  # ITU-R BT.601
    spectrum = torch.fft.fft2(torch.einsum("bchw,c->bhw", images.float(), weights), norm="forward")
    y, x = (torch.fft.fftfreq(n, device=images.device).abs() for n in images.shape[-2:])
    fine = torch.maximum(y[:, None], x[None]) > 0.25  # cycles per pixel; the Nyquist frequency is 0.5
    energy: Tensor = (spectrum.abs().square() * fine).sum((1, 2))  # Parseval: the mean square over pixels
    return energy.sqrt()


MEASURES: Mapping[str, KnownMeasure] = {
    "high-frequency": KnownMeasure(load=lambda _: high_frequency),
}
"""The measures that are reported without being asked for, by name, beside those of an embedded model's own world."""


def pack(vector: np.ndarray) -> str:
    """Write a vector as text: float16 in base64."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """Read a vector that `pack` wrote."""
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64)


def vendi_score(features: np.ndarray) -> float:
    """Return the effective number of different images, exp(−Σ λ·log λ), between 1 and n (Friedman and Dieng,
    arXiv 2210.02410).

    Args:
        features: (n, F), unit vectors; λ are the eigenvalues of the matrix of their cosines divided by n.
    """
    eigenvalues = np.linalg.eigvalsh(features @ features.T / len(features))
    shares = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))
