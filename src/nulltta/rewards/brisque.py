"""BRISQUE (Mittal, Moorthy and Bovik, IEEE TIP 2012): distortion measured by the statistics of the luminance.

The score of the Python package `brisque`, computed in differentiable torch from that package's model files.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor
from torch.nn import functional

from nulltta.contracts import Reward
from nulltta.errors import LoadError, first_line
from nulltta.rewards import checkpoint_files
from nulltta.rewards.request import RewardRequest

PACKAGE, SVM, SCALING = "brisque", "models/svm.txt", "models/normalize.pickle"
FEATURES = 36
_GREY = (0.2125, 0.7154, 0.0721)  # ITU-R BT.709 luminance, as scikit-image rounds it
_TINY = 1e-12
_ROUNDING = 1e-9
"""Normalised luminance and its products below this are the rounding of an exactly flat area. They count as zero here;
in the package their sign is that of the rounding error, so that scores of images with large flat areas differ."""


class Brisque(Reward):
    """Minus the BRISQUE score, (B,): about −100 for strong distortion to 0 for none; the prompt is ignored.

    A support vector regression on 36 parameters of generalised Gaussian distributions, which are fitted to the locally
    normalised luminance and to the products of its neighbours, at the image's own size and at half of it. Everything
    is computed in float64, since the regression subtracts large numbers. Images of 16×16 or larger.

    Args:
        vectors: the support vectors, (S, 36).
        weights: their weights, (S,).
        offset: what is subtracted from the weighted sum.
        gamma: of the kernel exp(−γ‖x − v‖²).
        low: the features' smallest values in training, (36,).
        high: their largest, (36,).
        name: the reward's name.
    """

    def __init__(
        self,
        vectors: Tensor,
        weights: Tensor,
        offset: float,
        gamma: float,
        low: Tensor,
        high: Tensor,
        name: str = "brisque",
    ) -> None:
        self.name = name
        self.vectors, self.weights, self.low, self.high = (v.double() for v in (vectors, weights, low, high))
        self.offset, self.gamma = offset, gamma

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - ignores prompts
        device = self.vectors.device
        grey = torch.einsum("bchw,c->bhw", images.to(device).double(), images.new_tensor(_GREY).double().to(device))
        found = torch.cat([features(grey), features(half(grey))], dim=1)  # (B, 36)
        scaled = -1 + 2 * (found - self.low) / (self.high - self.low)
        distances = (scaled[:, None] - self.vectors).square().sum(-1)  # (B, S)
        scores = -((-self.gamma * distances).exp() @ self.weights - self.offset)
        return (scores if images.dtype == torch.float64 else scores.float()).to(images.device)


def features(grey: Tensor) -> Tensor:
    """Return the 18 features of one scale, (B, 18), of luminance (B, H, W) in [0, 1]."""
    x = normalised(grey)
    pairs = (
        x[:, :, :-1] * x[:, :, 1:], x[:, :-1] * x[:, 1:], x[:, :-1, :-1] * x[:, 1:, 1:], x[:, 1:, :-1] * x[:, :-1, 1:],
    )  # fmt: skip
    alpha, left, right = fit(x)
    columns = [alpha, (left + right) / 2]
    for pair in pairs:
        alpha, left, right = fit(pair)
        ratio = (0.5 * (torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha))).exp()
        ratio = ratio * (torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha)).exp()
        columns += [alpha, (right.sqrt() - left.sqrt()) * ratio, left, right]
    return torch.stack(columns, dim=1)


def normalised(grey: Tensor) -> Tensor:
    """Subtract the local mean and divide by the local deviation (7×7 Gaussian window, zeros outside the image)."""
    place = torch.arange(7, device=grey.device, dtype=grey.dtype) - 3
    line = (-(place**2) / (2 * (7 / 6) ** 2)).exp()
    window = (line[:, None] * line / line.sum() ** 2)[None, None]
    mean = functional.conv2d(grey[:, None], window, padding=3)[:, 0]
    square = functional.conv2d(grey[:, None].square(), window, padding=3)[:, 0]
    deviation = (mean.square() - square).abs().clamp(min=_TINY).sqrt()
    return (grey - mean) / (deviation + 1 / 255)


def fit(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Fit an asymmetric generalised Gaussian to values (B, H, W) by matching moments (Lasmar et al., ICIP 2009).

    Returns:
        The shape α, and the mean squares of the negative values and of the others, (B,) each.
    """
    x = x.flatten(1)
    below = (x < -_ROUNDING).to(x.dtype)
    left = ((x.square() * below).sum(1) / below.sum(1).clamp(min=1)).clamp(min=_TINY)
    right = ((x.square() * (1 - below)).sum(1) / (1 - below).sum(1).clamp(min=1)).clamp(min=_TINY)
    gamma = (left / right).sqrt()
    ratio = x.abs().mean(1).square() / x.square().mean(1).clamp(min=_TINY)
    ratio = ratio * (gamma**3 + 1) * (gamma + 1) / (gamma**2 + 1).square()
    return _shape(ratio), left, right


def _shape(ratio: Tensor) -> Tensor:
    """Solve Γ(2/α)² / (Γ(1/α)Γ(3/α)) = ratio for α in [0.05, 50], with gradient.

    The root is found by bisection without gradient. One Newton step from it then changes nothing but gives the
    derivative of the implicit function.
    """

    def moments(alpha: Tensor) -> Tensor:
        return (2 * torch.lgamma(2 / alpha) - torch.lgamma(1 / alpha) - torch.lgamma(3 / alpha)).exp()

    with torch.no_grad():
        low, high = torch.full_like(ratio, 0.05), torch.full_like(ratio, 50.0)
        for _ in range(60):
            middle = (low + high) / 2
            above = moments(middle) > ratio
            low, high = torch.where(above, low, middle), torch.where(above, middle, high)
        root = (low + high) / 2
        slope = moments(root) * (
            -4 * torch.digamma(2 / root) + torch.digamma(1 / root) + 3 * torch.digamma(3 / root)
        ) / root**2  # fmt: skip
    return root + (ratio - moments(root).detach()) / slope


def half(grey: Tensor) -> Tensor:
    """Halve luminance (B, H, W) as OpenCV's bicubic filter does, without antialiasing; odd halves round to even."""
    height, width = (round(side / 2) for side in grey.shape[1:])
    line = grey.new_tensor([-0.09375, 0.59375, 0.59375, -0.09375])  # Keys' filter with a = −0.75, half-way
    padded = functional.pad(grey[:, None], (1, 3, 1, 3), mode="replicate")
    halved = functional.conv2d(padded, (line[:, None] * line)[None, None], stride=2)
    return halved[:, 0, :height, :width]


class _PlainUnpickler(pickle.Unpickler):
    """An unpickler of numbers and built-in containers only, so that a file runs no code."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it contains {module}.{name}")


def load(request: RewardRequest) -> Brisque:
    """Load the model files of the Python package `brisque`: from the source, a directory with svm.txt and
    normalize.pickle, if one is given, otherwise from the installed package.

    Raises:
        LoadError: if a file is missing, damaged, or of another model.
    """
    svm = checkpoint_files.find_packaged(request.source, PACKAGE, SVM, reward=request.name, sha256=request.sha256)
    source = None if request.source is None else checkpoint_files.folder(request.source)
    scaling = checkpoint_files.find_packaged(source, PACKAGE, SCALING, reward=request.name)
    low, high = _read_scaling(scaling)
    settings, weights, vectors = _read_svm(svm)

    def tensor(values: Sequence[Any]) -> Tensor:
        return torch.tensor(values, dtype=torch.float64, device=request.device)

    return Brisque(
        tensor(vectors), tensor(weights), settings["rho"], settings["gamma"], tensor(low), tensor(high), request.name
    )


def _read_scaling(path: Path) -> tuple[list[float], list[float]]:
    """Read the smallest and the largest values of the features."""
    try:
        with path.open("rb") as file:
            found: dict[str, Any] = _PlainUnpickler(file).load()
        low, high = ([float(value) for value in found[name]] for name in ("min_", "max_"))
    except (pickle.UnpicklingError, OSError, EOFError, ValueError, LookupError, TypeError) as error:
        raise LoadError(f"'{path}' does not hold BRISQUE's scaling: {first_line(error)}") from error
    if not len(low) == len(high) == FEATURES:
        raise LoadError(f"'{path}' does not hold BRISQUE's scaling: it has {len(low)} features, not {FEATURES}")
    return low, high


def _read_svm(path: Path) -> tuple[dict[str, float], list[float], list[list[float]]]:
    """Read a support vector regression in LIBSVM's format: γ and ρ, weights (S,), and vectors (S, 36)."""
    try:
        head, _, body = path.read_text(encoding="ascii").partition("\nSV\n")
        words = dict(line.split(None, 1) for line in head.splitlines())
        if (words["svm_type"], words["kernel_type"]) != ("epsilon_svr", "rbf"):
            raise ValueError(f"it is of type {words['svm_type']}, {words['kernel_type']}")
        weights, vectors = [], []
        for line in body.splitlines():
            weight, *entries = line.split()
            row = [0.0] * FEATURES
            for entry in entries:
                place, _, value = entry.partition(":")
                row[int(place) - 1] = float(value)
            weights.append(float(weight))
            vectors.append(row)
        if len(vectors) != int(words["total_sv"]):
            raise ValueError(f"it holds {len(vectors)} of {words['total_sv']} support vectors")
        return {name: float(words[name]) for name in ("gamma", "rho")}, weights, vectors
    except (OSError, ValueError, LookupError) as error:
        raise LoadError(f"'{path}' is not BRISQUE's model, or is truncated: {first_line(error)}") from error
