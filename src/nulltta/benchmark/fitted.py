"""Plain sampling under a fitted null text, which costs what plain sampling costs."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import denoise
from nulltta.algorithm.views import both_predicted, look
from nulltta.contracts import Outcome, Step, Stream
from nulltta.null_text.fitted import FittedNullText


@dataclass(frozen=True, kw_only=True)
class FittedSampling:
    """Sample under classifier-free guidance with the null text of a file in place of the encoded one.

    Cost per prompt: 2T denoiser branches without gradient, 1 image decoded and scored.

    Attributes:
        file: what `nulltta fit` wrote.
    """

    file: str = ""

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, B, steps = problem, len(problem.prompts), problem.schedule()
        fitted = FittedNullText.load(self.file, p.model)
        x = p.latents[:, 0]

        def branches(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            null = fitted.embedding(steps[i].timestep, p.null, p.cond)
            return both_predicted(replace(p, null=null), x, steps[i])

        def noise(i: int, x: Tensor) -> Tensor:
            return p.noise(i, steps[i], x, particles=1)[:, 0]

        for i, (_, _, x_next) in enumerate(denoise(p.model, x, steps, branches, noise, p.config.guidance_scale)):
            yield Step.unscored(i, steps[i].timestep, B)
            x = x_next
        view, first = look(p, x[:, None], None), torch.zeros(B, dtype=torch.long)
        return Outcome(view.images, view.rewards, first, p.latents[:, 0], latents=x[:, None])
