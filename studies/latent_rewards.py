"""What does a reward that reads latents save? The time of one inner step and of one candidate, in one process.

    python studies/latent_rewards.py [--repeats 20]

Three rewards are measured in turn: a formula of the latents, a formula of the decoded image, and a learned reward of
the image. The first needs no decoder; a learned reward of latents costs its own network in addition. The medians of the
processor's time are printed, so that a busy machine matters little. The model is the embedded one with its full
decoder; studies/flops.py counts what the decoder takes at real sizes.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

import torch
import typer
from torch import Tensor

from nulltta import CleanLatents, LatentReward, rewards
from nulltta.algorithm.gradients import autograd
from nulltta.algorithm.objective import Objective, predict_branches
from nulltta.alignment import make_problem
from nulltta.benchmark.costs.stand_ins import MeasuredModel, measured_model
from nulltta.contracts import Reward
from nulltta.scoring import score_latents


class Mean(LatentReward):
    """The mean of all latents."""

    name = "the latents' mean"

    def of_latents(self, clean: CleanLatents, prompts: Sequence[str]) -> Tensor:  # noqa: ARG002 - ignores prompts
        return clean.x0.flatten(1).mean(1)


def main(repeats: int = 20, threads: int = 1) -> None:
    """Measure an inner step and a candidate under each reward."""
    torch.set_num_threads(threads)
    thing = measured_model("embedded")
    measured: dict[str, Reward] = {
        "a formula of latents": Mean(), "a formula of the image": rewards.load("brightness"),
        f"a learned one of the image ({thing.reward.name})": thing.reward,
    }  # fmt: skip
    calls = {name: _calls(thing, reward) for name, reward in measured.items()}
    seconds: dict[str, tuple[list[float], list[float]]] = {name: ([], []) for name in calls}
    for _ in range(repeats + 1):
        for name, both in calls.items():
            for call, kept in zip(both, seconds[name], strict=True):
                kept.append(_seconds(call))
    medians = {name: [statistics.median(kept[1:]) * 1e3 for kept in both] for name, both in seconds.items()}
    first = next(iter(medians.values()))
    print("| reward | inner step, ms | of the first | candidate, ms | of the first |", "|---" * 5 + "|", sep="\n")
    for name, (inner, candidate) in medians.items():
        print(f"| {name} | {inner:.1f} | {inner / first[0]:.2f} | {candidate:.1f} | {candidate / first[1]:.2f} |")


def _calls(thing: MeasuredModel, reward: Reward) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return an inner step and the drawing and scoring of a candidate, at a middle step of one prompt."""
    problem = make_problem(thing.model, "a cat", reward, thing.config)
    steps, x = problem.schedule(), problem.latents[:, 0]
    step = steps[len(steps) // 2]
    with torch.no_grad():
        eps_null, eps_cond = predict_branches(thing.model, x, step, problem.null, problem.cond)
    objective = Objective(
        thing.model, reward, problem.prompts, problem.config, step, x, eps_cond, eps_null, problem.null, 1.0
    )  # fmt: skip

    @torch.no_grad()
    def candidate() -> None:
        eps, _ = predict_branches(thing.model, x, step, problem.null, problem.cond)
        clean = CleanLatents(thing.model.predict_x0(x, eps, step), step, thing.model.decode)
        score_latents(reward, clean, problem.prompts)

    return lambda: autograd(objective, problem.null), candidate


def _seconds(call: Callable[[], object]) -> float:
    began = time.process_time()
    call()
    return time.process_time() - began


if __name__ == "__main__":
    typer.run(main)
