"""The measures of every image: the target, and measures that nobody optimised."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import suppress

import torch
from torch import Tensor
from torch.nn import functional

from nulltta import rewards
from nulltta.contracts import Reward
from nulltta.embedded.scorers import Scorer
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import InvalidValue
from nulltta.evaluation.measures import Measure, known_measures, pack
from nulltta.rewards.compose import parts
from nulltta.scoring import require_pictures, score

FACTS, ALL_RIGHT, NEAREST_RENDER, HIGH_FREQUENCY = "facts", "all right", "nearest render", "high-frequency"
RENDERS = 40
"""How many true pictures of a prompt an image is compared with."""
Features = Callable[[Tensor], Tensor]
"""Images (B, 3, H, W) -> unit vectors (B, F), whose distances say how different images are."""


class Measures:
    """The measures of a benchmark, loaded once.

    Args:
        model: the name of the model; one of our worlds has held-out scorers, a judge, renders and features.
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
        scorers = [measure for measure in known.values() if isinstance(measure, Scorer)]
        self.features: Features | None = scorers[0].image_features if scorers else None
        if (world := WORLDS.get(model)) is not None:
            known[NEAREST_RENDER] = NearestRender(world.renders)
        self.all = wanted | {name: _on_cpu(measure) for name, measure in known.items()}

    @torch.no_grad()
    def __call__(self, images: Tensor, prompts: Sequence[str]) -> dict[str, list[float]]:
        """Measure images: by name, one value per image; NaN where a measure does not apply to a prompt."""
        found = {measure: measure(images, prompts) for measure in dict.fromkeys(self.all.values())}
        scores = {name: found[measure] for name, measure in self.all.items()}
        if FACTS in scores:
            scores[ALL_RIGHT] = all_right(scores[FACTS])
        return {name: values.tolist() for name, values in scores.items()}

    @torch.no_grad()
    def packed_features(self, images: Tensor) -> list[str | None]:
        """Return the features of each image as text; None where the model has none."""
        if self.features is None:
            return [None] * len(images)
        return [pack(row) for row in self.features(images).cpu().numpy()]


def all_right(facts: Tensor) -> Tensor:
    """Return 1 where all of a prompt's facts are shown, else 0, for shares of facts (B,); NaN stays NaN."""
    return (facts == 1).to(facts).masked_fill(facts.isnan(), math.nan)


class NearestRender:
    """How near an image is to a true picture of its prompt: the highest PSNR in dB against `RENDERS` pictures that are
    drawn, without any network, from what the prompt states. What it leaves open, such as places, differs among them.

    Args:
        renders: (prompt, n) -> n pictures (n, 3, H, W) in [0, 1].
    """

    def __init__(self, renders: Callable[[str, int], Tensor]) -> None:
        self._draw = renders
        self._drawn: dict[str, Tensor | None] = {}

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (B,) in dB; NaN for a prompt outside the world's grammar."""
        return torch.stack([self._nearest(image, prompt) for image, prompt in zip(images, prompts, strict=True)])

    def _nearest(self, image: Tensor, prompt: str) -> Tensor:
        if prompt not in self._drawn:
            self._drawn[prompt] = None
            with suppress(InvalidValue):
                self._drawn[prompt] = self._draw(prompt, RENDERS)
        if (drawn := self._drawn[prompt]) is None:
            return torch.tensor(math.nan)
        if drawn.shape[1:] != image.shape:
            image = functional.interpolate(image[None], drawn.shape[-2:], mode="area")[0]
        errors = (drawn.to(image) - image).square().flatten(1).mean(1)
        nearest: Tensor = -10 * errors.min().clamp(min=1e-10).log10().cpu()
        return nearest


def _scored(reward: Reward) -> Measure:
    """Return the reward as a measure whose values are on the CPU; one that reads latents is refused."""
    require_pictures(reward, "the benchmark")
    return lambda images, prompts: score(reward, images, prompts).cpu()


def _on_cpu(measure: Measure) -> Measure:
    """Return the measure with its values on the CPU."""
    return lambda images, prompts: measure(images, prompts).cpu()
