"""What a diagnosis is drawn from: the scores of each pair of pictures, also after small changes, and its features."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from nulltta.contracts import Reward
from nulltta.embedded.worlds import draws_emoji
from nulltta.evaluation.comparison import Comparison, Score
from nulltta.evaluation.measures import high_frequency
from nulltta.evaluation.perturbations import PERTURBATIONS
from nulltta.scoring import score

Features = Callable[[Tensor], Tensor]
"""Images (N, 3, H, W) in [0, 1] -> vectors (N, F), whose cosines say how alike images are."""
PIXELS = 8
"""The height and width to which pictures are reduced where no network gives features."""


@dataclass(frozen=True)
class Picture:
    """The evidence of one prompt and seed: an aligned and a plain picture.

    Attributes:
        prompt: the prompt.
        scores: the scores by measure.
        target_after: the target's scores after each perturbation, by its name; empty if they are not known.
        texture: the high frequencies.
        features: unit vectors (F,) of the plain and of the aligned picture.
    """

    prompt: str
    scores: Mapping[str, Score]
    target_after: Mapping[str, Score]
    texture: Score
    features: tuple[np.ndarray, np.ndarray]


def features_of(model: str, device: torch.device | str | None = None) -> Features:
    """Return the features of a model by its name: the second scorer's for the embedded model, else reduced pixels."""
    if not draws_emoji(model):
        return pixel_features
    from nulltta.embedded.scorers import load_scorer

    return load_scorer("clip-b", device=device or "cpu").image_features


def pixel_features(images: Tensor) -> Tensor:
    """Reduce images (N, 3, H, W) to `PIXELS` × `PIXELS`, less mid-grey: (N, F)."""
    return (functional.adaptive_avg_pool2d(images.float(), PIXELS) - 0.5).flatten(1)


def examine(comparisons: Sequence[Comparison], reward: Reward | None, features: Features) -> list[Picture]:
    """Examine the two images of each comparison.

    Args:
        comparisons: the images and their scores.
        reward: the target; None where it cannot be evaluated. One that reads latents cannot be, after a perturbation.
        features: the features for the diversity.

    Raises:
        RewardError: if the reward fails.
    """
    groups: dict[torch.Size, list[int]] = {}
    for place, comparison in enumerate(comparisons):
        groups.setdefault(comparison.plain.shape, []).append(place)
    found: dict[int, Picture] = {}
    for places in groups.values():
        found |= zip(places, _examine([comparisons[place] for place in places], reward, features), strict=True)
    return [found[place] for place in range(len(comparisons))]


@torch.no_grad()
def _examine(comparisons: Sequence[Comparison], reward: Reward | None, features: Features) -> list[Picture]:
    """Examine images of one size."""
    prompts, count = [comparison.prompt for comparison in comparisons], len(comparisons)
    images = torch.stack([c.plain for c in comparisons] + [c.aligned for c in comparisons])  # (2N, [F,] 3, H, W)
    frames = images.flatten(0, -4)  # (2N·F, 3, H, W); F is 1 but for videos

    def scores(values: Tensor) -> list[Score]:
        plain, aligned = values.view(2, count, -1).mean(-1).tolist()
        return [Score(*pair, "target") for pair in zip(plain, aligned, strict=True)]

    after = {} if reward is None or reward.reads_latents else {
        name: scores(score(reward, change(frames).view_as(images), prompts * 2).cpu())
        for name, change in PERTURBATIONS.items()
    }  # fmt: skip
    textures = scores(high_frequency(frames).cpu())
    seen = features(frames).float().cpu().view(2, count, -1)
    plain, aligned = functional.normalize(seen, dim=-1).double().numpy()
    return [
        Picture(
            comparison.prompt, comparison.scores, {name: values[b] for name, values in after.items()},
            textures[b], (plain[b], aligned[b]),
        )
        for b, comparison in enumerate(comparisons)
    ]  # fmt: skip
