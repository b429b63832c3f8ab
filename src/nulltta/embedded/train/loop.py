"""The one training loop of all stages: a wall-clock budget, a resumable checkpoint, a log, an average of weights.

Every draw of step n comes from a generator seeded with (stage, n), so a run that was stopped and resumed sees the
batches that an uninterrupted run would have seen.
"""

from __future__ import annotations

import json
import math
import random
import time
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn

LOG_STEPS = 50
EMA_STEPS = 4  # the average is updated every so many steps: a tenth of the cost, the same average


@dataclass(frozen=True)
class Draws:
    """The random streams of one step."""

    python: random.Random
    torch: Generator


@dataclass(frozen=True)
class Budget:
    """How long a stage trains and where it writes.

    Attributes:
        folder: checkpoints and logs of all stages.
        minutes: wall-clock training time of this stage, all resumed runs together.
        steps: an upper bound on steps, for tests.
        device: where to train.
        autocast: whether to compute in bfloat16.
    """

    folder: Path
    minutes: float
    steps: int | None = None
    device: str = "cpu"
    autocast: bool = False


@dataclass(frozen=True)
class Recipe:
    """What a stage hands to the loop.

    Attributes:
        name: of the stage: names the checkpoint and seeds the draws.
        module: everything that learns.
        loss: draws -> (scalar loss, figures to log).
        batch: images a step, for the log.
        lr: the peak learning rate.
        hold: the share of the budget before the learning rate falls along half a cosine.
        ema: the decay of the averaged weights, a step; None: no average.
        checkpoint_seconds: how often a checkpoint is written.
        on_checkpoint: called with (module holding the averaged weights, seconds spent) after each checkpoint.
    """

    name: str
    module: nn.Module
    loss: Callable[[Draws], tuple[Tensor, Mapping[str, float]]]
    batch: int
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.97)
    weight_decay: float = 0.01
    warmup: int = 100
    hold: float = 0.0
    ema: float | None = None
    checkpoint_seconds: float = 120.0
    on_checkpoint: Callable[[nn.Module, float], None] | None = None


@dataclass
class State:
    """How far a run has come."""

    step: int = 0
    spent: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)


def draws(name: str, step: int) -> Draws:
    """The random streams of a stage's step."""
    seed = zlib.crc32(name.encode()) * 1_000_003 + step
    return Draws(random.Random(seed), Generator().manual_seed(seed))


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """Warm-up, a plateau of `hold`, then half a cosine down to 1% of the peak."""
    fall = max(0.0, progress - recipe.hold) / max(1e-9, 1 - recipe.hold)
    shape = 0.5 * (1 + math.cos(math.pi * min(1.0, fall)))
    return recipe.lr * min(1.0, (step + 1) / recipe.warmup) * max(0.01, shape)


def checkpoint_path(folder: Path, name: str) -> Path:
    return folder / f"{name}.pt"


def load_trained(module: nn.Module, folder: Path, name: str) -> nn.Module:
    """Load a stage's result (the averaged weights where there is an average) into `module`, in eval mode."""
    found = torch.load(checkpoint_path(folder, name), weights_only=True, map_location="cpu")
    module.load_state_dict(found["average"] or found["module"])
    return module.eval()


def train(recipe: Recipe, budget: Budget) -> State:
    """Train until the budget is spent, from the checkpoint if there is one. Returns how far it came."""
    budget.folder.mkdir(parents=True, exist_ok=True)
    recipe.module.to(budget.device).train()
    optimiser = torch.optim.AdamW(
        recipe.module.parameters(), recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    state = _resume(recipe, optimiser, budget)
    limit, saved, figures = budget.minutes * 60, state.spent, dict[str, float]()
    began, first = time.monotonic() - state.spent, state.step
    with (budget.folder / f"{recipe.name}.jsonl").open("a") as log:
        while state.spent < limit and state.step != budget.steps:
            rate = learning_rate(recipe, state.step, state.spent / limit)
            for group in optimiser.param_groups:
                group["lr"] = rate
            now = _step(recipe, budget, optimiser, state)
            figures = {key: 0.98 * figures.get(key, value) + 0.02 * value for key, value in now.items()}
            state.step += 1
            before, state.spent = state.spent, time.monotonic() - began
            if state.step % LOG_STEPS == 0:
                speed = recipe.batch / (state.spent - before)
                _write(log, state, {**figures, "lr": rate, "images_a_second": speed})
            if state.spent - saved > recipe.checkpoint_seconds:
                saved = state.spent
                _save(recipe, optimiser, state, budget)
        if state.step > first:
            _save(recipe, optimiser, state, budget)
    return state


def _step(recipe: Recipe, budget: Budget, optimiser: torch.optim.Optimizer, state: State) -> dict[str, float]:
    with torch.autocast(torch.device(budget.device).type, torch.bfloat16, enabled=budget.autocast):
        loss, figures = recipe.loss(draws(recipe.name, state.step))
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(recipe.module.parameters(), 1.0)
    optimiser.step()
    if recipe.ema is not None and (state.step + 1) % EMA_STEPS == 0:
        _average(recipe, state)
    return {"loss": loss.item(), "gradient": norm.item(), **figures}


@torch.no_grad()
def _average(recipe: Recipe, state: State) -> None:
    """Exponential average of the weights; its memory grows with the run, so early weights do not linger."""
    current = recipe.module.state_dict()
    if not state.average:
        state.average = {key: value.clone() for key, value in current.items()}
    decay = min(recipe.ema or 0.0, (1 + state.step) / (10 + state.step)) ** EMA_STEPS
    keys = [key for key, value in current.items() if value.is_floating_point()]
    torch._foreach_lerp_([state.average[key] for key in keys], [current[key] for key in keys], 1 - decay)


def _resume(recipe: Recipe, optimiser: torch.optim.Optimizer, budget: Budget) -> State:
    path = checkpoint_path(budget.folder, recipe.name)
    if not path.exists():
        return State()
    found = torch.load(path, weights_only=True, map_location=budget.device)
    recipe.module.load_state_dict(found["module"])
    optimiser.load_state_dict(found["optimiser"])
    return State(found["step"], found["spent"], found["average"])


def _save(recipe: Recipe, optimiser: torch.optim.Optimizer, state: State, budget: Budget) -> None:
    path = checkpoint_path(budget.folder, recipe.name)
    module = recipe.module.state_dict()
    content = {"module": module, "optimiser": optimiser.state_dict(), "average": state.average,
               "step": state.step, "spent": state.spent}  # fmt: skip
    torch.save(content, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)  # a run stopped while writing leaves the last checkpoint whole
    if recipe.on_checkpoint is None:
        return
    kept = {key: value.clone() for key, value in module.items()}
    recipe.module.load_state_dict(state.average or module)
    recipe.on_checkpoint(recipe.module.eval(), state.spent)
    recipe.module.load_state_dict(kept)
    recipe.module.train()


def _write(log: Any, state: State, figures: Mapping[str, float]) -> None:
    line = {"step": state.step, "minutes": state.spent / 60, **figures}
    log.write(json.dumps({key: float(f"{value:.4g}") for key, value in line.items()}) + "\n")
    log.flush()
