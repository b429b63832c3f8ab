"""Plain sampling under a fitted null text, which costs what plain sampling costs."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from nulltta.algorithm.objective import Objective
from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import denoise
from nulltta.algorithm.views import both_predicted, look, predicted
from nulltta.contracts import Outcome, Step, Stream
from nulltta.null_text.fitted import FittedNullText

OnBranches = Callable[[int, Tensor, Tensor, Tensor], None]
"""Called with (i, x_t, ε(x_t, φ'), ε(x_t, c)) at the i-th denoising step."""


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
        x = p.latents[:, 0]
        for i, x_next in enumerate(self._path(p)):
            yield Step.unscored(i, steps[i].timestep, B, kl=math.nan)
            x = x_next
        view, first = look(p, x[:, None], None), torch.zeros(B, dtype=torch.long)
        return Outcome(view.images, view.rewards, first, p.latents[:, 0], latents=x[:, None])

    @torch.no_grad()
    def nats(self, problem: Problem) -> Tensor:
        """Sample once more, and return how far the null text moved the distribution, summed over the steps: (B,).

        It takes 3T denoiser branches per prompt, which sampling itself can do without.
        """
        p, steps, total = problem, problem.schedule(), torch.zeros(len(problem.prompts))

        def add(i: int, x: Tensor, eps: Tensor, eps_cond: Tensor) -> None:
            held = predicted(p.model, p.memory, x, steps[i], p.null)
            objective = Objective(p.model, p.reward, p.prompts, p.config, steps[i], x, eps_cond, held, p.null, 0.0)
            total.add_(objective.kl(eps).cpu())

        for _ in self._path(p, add):
            pass
        return total

    def _path(self, p: Problem, on_branches: OnBranches = lambda *_: None) -> Iterator[Tensor]:
        """Yield x_{t−1} at each denoising step."""
        fitted, steps = FittedNullText.load(self.file, p.model), p.schedule()

        def branches(i: int, x: Tensor) -> tuple[Tensor, Tensor]:
            null = fitted.embedding(steps[i].timestep, p.null, p.cond)
            eps, eps_cond = both_predicted(replace(p, null=null), x, steps[i])
            on_branches(i, x, eps, eps_cond)
            return eps, eps_cond

        def noise(i: int, x: Tensor) -> Tensor:
            return p.noise(i, steps[i], x, particles=1)[:, 0]

        for _, _, x in denoise(p.model, p.latents[:, 0], steps, branches, noise, p.config.guidance_scale):
            yield x
