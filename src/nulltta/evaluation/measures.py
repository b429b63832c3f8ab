"""Measures of images besides the reward that was optimised."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from nulltta import rewards
from nulltta.contracts import GuidedModel
from nulltta.errors import NullTTAError

if TYPE_CHECKING:
    from nulltta.embedded.grammar import Size

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
    return {name: known.load(device) for name, known in MEASURES.items() if known.model in (None, model)}


def held_out_measures(model: GuidedModel, device: torch.device | str | None = None) -> dict[str, Measure]:
    """Return the measures that every run of a model reports beside its reward, by name.

    For the embedded model these are the second scorer, "clip-b", and the judge's "facts"; other models have none.

    Raises:
        LoadError: if one does not load.
    """
    known = {name: known for name, known in MEASURES.items() if known.in_runs and known.model in (None, model.name)}
    return {name: each.load(device) for name, each in known.items()}


def facts() -> Measure:
    """Return the embedded judge as a measure.

    The measure is the share of a prompt's facts that an image shows, and NaN for a prompt outside the grammar.
    """
    from nulltta.embedded.judge import load_judge

    judge = load_judge()

    def measure(images: Tensor, prompts: Sequence[str]) -> Tensor:
        shares = torch.full((len(prompts),), math.nan)
        for b, prompt in enumerate(prompts):
            if _states_facts(prompt, judge.size):
                shares[b] = judge.facts(images[b : b + 1], [prompt])[0]
        return shares

    return measure


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
    "clip-b": KnownMeasure(load=lambda device: rewards.load("clip-b", device=device), model="embedded", in_runs=True),
    "facts": KnownMeasure(load=lambda _: facts(), model="embedded", in_runs=True),
    "high-frequency": KnownMeasure(load=lambda _: high_frequency),
}
"""The measures that are reported without being asked for, by name."""


def pack(vector: np.ndarray) -> str:
    """Write a vector as text: float16 in base64."""
    return base64.b64encode(vector.astype("<f2").tobytes()).decode()


def unpack(text: str) -> np.ndarray:
    """Read a vector that `pack` wrote."""
    return np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64)


def diversity(packed: Mapping[int, str]) -> float:
    """Return the mean pairwise distance 1 − cos of one prompt's images; NaN for fewer than two.

    Args:
        packed: packed features by seed.
    """
    if len(packed) < 2:
        return float("nan")
    rows = np.stack([unpack(text) for text in packed.values()])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines = rows @ rows.T
    return float(1 - cosines[np.triu_indices(len(rows), 1)].mean())


def vendi_score(features: np.ndarray) -> float:
    """Return the effective number of different images, exp(−Σ λ·log λ), between 1 and n (Friedman and Dieng,
    arXiv 2210.02410).

    Args:
        features: (n, F), unit vectors; λ are the eigenvalues of the matrix of their cosines divided by n.
    """
    eigenvalues = np.linalg.eigvalsh(features @ features.T / len(features))
    shares = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(shares * np.log(shares)).sum()))


def _states_facts(prompt: str, size: Size) -> bool:
    """Return whether a prompt is within the grammar."""
    from nulltta.embedded.grammar import parse

    try:
        parse(prompt, size)
    except NullTTAError:
        return False
    return True
