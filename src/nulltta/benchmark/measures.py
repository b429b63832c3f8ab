"""The measures of every image: the target, and measures that nobody optimised."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from nulltta import rewards
from nulltta.contracts import Reward
from nulltta.embedded.scorers import Scorer
from nulltta.evaluation.measures import Measure, known_measures, pack
from nulltta.rewards.compose import parts
from nulltta.scoring import require_pictures, score

HELD_OUT = "clip-b"
"""The second scorer of the embedded model, which is trained apart and never a target here."""
FACTS, HIGH_FREQUENCY = "facts", "high-frequency"
Features = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) -> unit vectors (B, F), whose distances say how different images are."""


class Measures:
    """The measures of a benchmark, loaded once.

    Args:
        model: the name of the model; the embedded one has a held-out scorer, a judge and features.
        targets: rewards by expression; the parts of a sum are measured too.
        others: further rewards to measure.
        device: where scorers run.

    Attributes:
        targets: the reward of each target.
        all: every measure by name.
        features: the features that diversity is measured in; None where the model has none.
    """

    def __init__(self, model: str, targets: Sequence[str], others: Sequence[str], device: torch.device) -> None:
        self.targets = {target: rewards.load(target, device=device) for target in targets}
        wanted: dict[str, Measure] = {}
        for target, reward in self.targets.items():
            wanted |= {name: _scored(part) for name, part in parts(reward).items()}
            wanted[target] = wanted.get(reward.name) or _scored(reward)
        for other in others:
            reward = rewards.load(other, device=device)
            wanted.setdefault(reward.name, _scored(reward))
        known = known_measures(model, device)
        scorer = known.get(HELD_OUT)
        self.features: Features | None = scorer.image_features if isinstance(scorer, Scorer) else None
        self.all = wanted | {name: _on_cpu(measure) for name, measure in known.items()}

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> dict[str, list[float]]:
        """Measure images: by name, one value per image; NaN where a measure does not apply to a prompt."""
        found = {measure: measure(images, prompts).tolist() for measure in dict.fromkeys(self.all.values())}
        return {name: found[measure] for name, measure in self.all.items()}

    @torch.no_grad()
    def packed_features(self, images: Tensor) -> list[str | None]:
        """Return the features of each image as text; None where the model has none."""
        if self.features is None:
            return [None] * len(images)
        return [pack(row) for row in self.features(images).cpu().numpy()]


def _scored(reward: Reward) -> Measure:
    """Return the reward as a measure whose values are on the CPU; one that reads latents is refused."""
    require_pictures(reward, "the benchmark")
    return lambda images, prompts: score(reward, images, prompts).cpu()


def _on_cpu(measure: Measure) -> Measure:
    """Return the measure with its values on the CPU."""
    return lambda images, prompts: measure(images, prompts).cpu()
