"""What the tests need to know of one family of pipelines."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from nulltta.contracts import GuidedModel
from nulltta.models import load_model


@dataclass(frozen=True)
class FamilyCase:
    """A tiny checkpoint of a family of pipelines, and how its stock pipeline is called.

    Attributes:
        name: what the case is called in test reports.
        save: writes the checkpoint into a folder, in diffusers' format, and returns the folder.
        call: arguments of the stock call beside prompts, latents, the number of steps and the guidance scale, such as
            the size; `load_model` takes them too.
        guidance: the name of the stock call's argument for the scale of classifier-free guidance.
        tolerance: the largest difference of a replayed image from the aligned one. 0 requires every bit to be equal;
            pipelines that guide or decode in another order of operations than the model need more.
        learning_rate: the learning rate of short alignments; None for the default.
    """

    name: str
    save: Callable[[Path], Path]
    call: Mapping[str, Any] = field(default_factory=dict)
    guidance: str = "guidance_scale"
    tolerance: float = 0.0
    learning_rate: float | None = None

    def __str__(self) -> str:
        return self.name

    def load(self, source: Any) -> GuidedModel:
        """Load a model of the checkpoint, or of a live pipeline of it, on the CPU."""
        return load_model(source, device="cpu" if isinstance(source, str | Path) else None, **self.call)

    def arguments(self, latents: Any, steps: int, scale: float) -> dict[str, Any]:
        """Return the keyword arguments of a stock call from given latents, in the pipeline's own layout."""
        own = {"num_inference_steps": steps, self.guidance: scale, "latents": latents, "output_type": "pt"}
        return {**self.call, **own}
