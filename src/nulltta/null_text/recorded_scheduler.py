"""A scheduler for a stock pipeline that takes a model's own steps with recorded noise."""

from __future__ import annotations

from collections.abc import Sequence
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import GuidedModel, NoiseStep
from nulltta.errors import InvalidValue


def recorded_scheduler(scheduler: Any, model: GuidedModel, steps: Sequence[NoiseStep], noise: Sequence[Tensor]) -> Any:
    """Return a stand-in for `scheduler` whose i-th step is `model`'s at `steps[i]`, with `noise[i]` (C, h, w)."""
    base: Any = type(scheduler)
    gains = [next((g for g in getattr(step, "gains", {}).values() if isinstance(g, float)), 1.0) for step in steps]

    class Recorded(base):  # type: ignore[misc]  # of the pipeline's own class, so that it asks nothing else of it
        init_noise_sigma = 1.0
        timesteps: Any
        _taken = 0

        @wraps(base.set_timesteps)  # pipelines look at its arguments
        def set_timesteps(self, *args: Any, **kwargs: Any) -> None:
            super().set_timesteps(*args, **kwargs)
            if len(self.timesteps) != len(steps):
                raise InvalidValue(
                    f"exact replay takes the recorded {len(steps)} steps, not {len(self.timesteps)}: "
                    f"give num_inference_steps={len(steps)}"
                )
            if [float(t) for t in self.timesteps] != [step.timestep for step in steps]:
                self.timesteps = torch.tensor([step.timestep for step in steps]).to(self.timesteps.device)
            self._taken = 0

        def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
            del timestep
            return sample * gains[self._taken]

        def step(self, model_output: Tensor, timestep: Any, sample: Tensor, return_dict: bool = True) -> tuple[Tensor]:
            del timestep, return_dict
            index, self._taken = self._taken, self._taken + 1
            x = model.from_pipeline(sample)
            mean, std = model.step_distribution(x, model.from_pipeline(model_output), steps[index])
            return (model.to_pipeline(mean + std * noise[index][None].to(mean)),)

    return Recorded.from_config(scheduler.config)
