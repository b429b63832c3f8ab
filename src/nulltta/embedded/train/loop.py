"""The training loop of all stages: a wall-clock budget, a checkpoint to resume from, a log and an average of weights.

Every draw of step n comes from a generator seeded with the stage and n, so that a run that was stopped and resumed sees
the batches that an uninterrupted run would have seen.
"""

from __future__ import annotations

import json
import math
import random
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import count, repeat
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Generator, Tensor, nn
from torch.utils.data import DataLoader, Dataset

LOG_STEPS = 50
EMA_STEPS = 4  # the average of weights is updated every so many steps

Module = TypeVar("Module", bound=nn.Module)


@dataclass(frozen=True)
class Draws:
    """The random streams of one step.

    Attributes:
        python: draws scenes and captions.
        torch: draws tensors.
        data: what the recipe's `draw` has drawn for the step; None without one.
    """

    python: random.Random
    torch: Generator
    data: Any = None


@dataclass(frozen=True)
class Budget:
    """How long a stage trains and where it writes.

    Attributes:
        folder: checkpoints and logs of all stages.
        minutes: wall-clock training time of this stage, over all its runs.
        steps: the greatest number of steps; None for no limit.
        device: where to train.
        autocast: whether to compute in bfloat16.
        workers: how many processes draw data ahead of the training process; 0 draws it there.
    """

    folder: Path
    minutes: float
    steps: int | None = None
    device: str = "cpu"
    autocast: bool = False
    workers: int = 0


@dataclass(frozen=True)
class Recipe:
    """What a stage trains, and how.

    Attributes:
        name: the stage's name, which names the checkpoint and seeds the draws.
        module: everything that learns.
        loss: maps the random streams of a step to a scalar loss and figures to log.
        batch: images per step, for the log.
        draw: draws what a step learns from with the step's own stream; it may run in another process, which sends
            tensors and plain values back.
        lr: the peak learning rate.
        betas: Adam's decay rates.
        weight_decay: AdamW's.
        warmup: steps of linear warm-up.
        steps: the length of the stage; None if the budget's minutes set it. The learning rate follows it too.
        hold: the share of the stage after which the learning rate falls along half a cosine.
        ema: the decay per step of the averaged weights; None for no average.
        checkpoint_seconds: how often a checkpoint is written.
        on_checkpoint: called after each checkpoint with the module, which then holds the averaged weights, and the
            seconds spent.
    """

    name: str
    module: nn.Module
    loss: Callable[[Draws], tuple[Tensor, Mapping[str, float]]]
    batch: int
    draw: Callable[[random.Random], Any] | None = None
    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.97)
    weight_decay: float = 0.01
    warmup: int = 100
    steps: int | None = None
    hold: float = 0.0
    ema: float | None = None
    checkpoint_seconds: float = 120.0
    on_checkpoint: Callable[[nn.Module, float], None] | None = None


@dataclass
class State:
    """How far a run has come.

    Attributes:
        step: steps taken.
        spent: seconds of training, over all runs.
        average: the averaged weights by name; empty without an average.
    """

    step: int = 0
    spent: float = 0.0
    average: dict[str, Tensor] = field(default_factory=dict)


def draws(name: str, step: int) -> Draws:
    """Return the random streams of a step of a stage."""
    seed = zlib.crc32(name.encode()) * 1_000_003 + step
    return Draws(random.Random(seed), Generator().manual_seed(seed))


class _Drawn(Dataset[Any]):
    """What the steps of a stage learn from; item n is drawn with the stream of step n."""

    def __init__(self, name: str, draw: Callable[[random.Random], Any]) -> None:
        self.name, self.draw = name, draw

    def __getitem__(self, step: int) -> Any:
        return self.draw(draws(self.name, step).python)


def drawn_ahead(name: str, draw: Callable[[random.Random], Any], steps: Iterable[int], workers: int) -> Iterator[Any]:
    """Yield what `draw` makes of the streams of a stage's steps, in their order.

    Nothing is drawn, and no process starts, before the first is asked for.

    Args:
        name: the stage's name, which seeds the streams.
        draw: draws with one step's stream.
        steps: the numbers of the steps.
        workers: how many processes draw ahead; the result does not depend on it.
    """
    yield from DataLoader(
        _Drawn(name, draw),
        batch_size=None,
        sampler=steps,
        num_workers=workers,
        prefetch_factor=4 if workers else None,
        generator=Generator(),
    )


def learning_rate(recipe: Recipe, step: int, progress: float) -> float:
    """Return the learning rate: a linear warm-up, a plateau, then half a cosine down to 1% of the peak."""
    fall = max(0.0, progress - recipe.hold) / max(1e-9, 1 - recipe.hold)
    shape = 0.5 * (1 + math.cos(math.pi * min(1.0, fall)))
    return recipe.lr * min(1.0, (step + 1) / recipe.warmup) * max(0.01, shape)


def has_bfloat16(device: str) -> bool:
    """Return whether a device is fast in bfloat16; a CPU without AVX-512 would be ten times slower than in float32."""
    return device != "cpu" or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def checkpoint_path(folder: Path, name: str) -> Path:
    """Return the path of a stage's checkpoint."""
    return folder / f"{name}.pt"


def load_trained(module: Module, folder: Path, name: str) -> Module:
    """Load a stage's result into `module`, the averaged weights if there are any, and return it in eval mode."""
    found = torch.load(checkpoint_path(folder, name), weights_only=True, map_location="cpu")
    module.load_state_dict(found["average"] or found["module"])
    return module.eval()


def train(recipe: Recipe, budget: Budget) -> State:
    """Train until the budget is spent, from the stage's checkpoint if there is one, and return how far it came."""
    budget.folder.mkdir(parents=True, exist_ok=True)
    recipe.module.to(budget.device).train()
    optimiser = torch.optim.AdamW(
        recipe.module.parameters(), recipe.lr, betas=recipe.betas, weight_decay=recipe.weight_decay, fused=True
    )
    state = _resume(recipe, optimiser, budget)
    limit, saved, figures = budget.minutes * 60, state.spent, dict[str, float]()
    began, first = time.monotonic() - state.spent, state.step
    data = drawn_ahead(recipe.name, recipe.draw, count(first), budget.workers) if recipe.draw else repeat(None)
    with (budget.folder / f"{recipe.name}.jsonl").open("a") as log:
        while state.spent < limit and state.step not in (budget.steps, recipe.steps):
            progress = state.step / recipe.steps if recipe.steps else state.spent / limit
            rate = learning_rate(recipe, state.step, progress)
            for group in optimiser.param_groups:
                group["lr"] = rate
            now = _step(recipe, budget, optimiser, state, next(data))
            figures = {key: 0.98 * figures.get(key, value) + 0.02 * value for key, value in now.items()}
            state.step += 1
            before, state.spent = state.spent, time.monotonic() - began
            if state.step % LOG_STEPS == 0:
                speed = recipe.batch / (state.spent - before)
                _write(log, state, {**figures, "lr": rate, "images_per_second": speed})
            if state.spent - saved > recipe.checkpoint_seconds:
                saved = state.spent
                _save(recipe, optimiser, state, budget)
        if state.step > first:
            _save(recipe, optimiser, state, budget)
    return state


def _step(
    recipe: Recipe, budget: Budget, optimiser: torch.optim.Optimizer, state: State, data: Any
) -> dict[str, float]:
    """Take one optimisation step and return its figures."""
    with torch.autocast(torch.device(budget.device).type, torch.bfloat16, enabled=budget.autocast):
        loss, figures = recipe.loss(replace(draws(recipe.name, state.step), data=data))
    optimiser.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    norm = nn.utils.clip_grad_norm_(recipe.module.parameters(), 1.0)
    optimiser.step()
    if recipe.ema is not None and (state.step + 1) % EMA_STEPS == 0:
        _average(recipe, state)
    return {"loss": loss.item(), "gradient": norm.item(), **figures}


@torch.no_grad()
def _average(recipe: Recipe, state: State) -> None:
    """Update the exponential average of the weights; its decay grows over the first steps, to forget the earliest."""
    current = recipe.module.state_dict()
    if not state.average:
        state.average = {key: value.clone() for key, value in current.items()}
    decay = min(recipe.ema or 0.0, (1 + state.step) / (10 + state.step)) ** EMA_STEPS
    keys = [key for key, value in current.items() if value.is_floating_point()]
    torch._foreach_lerp_([state.average[key] for key in keys], [current[key] for key in keys], 1 - decay)


def _resume(recipe: Recipe, optimiser: torch.optim.Optimizer, budget: Budget) -> State:
    """Load the stage's checkpoint, if there is one."""
    path = checkpoint_path(budget.folder, recipe.name)
    if not path.exists():
        return State()
    found = torch.load(path, weights_only=True, map_location=budget.device)
    recipe.module.load_state_dict(found["module"])
    optimiser.load_state_dict(found["optimiser"])
    return State(found["step"], found["spent"], found["average"])


def _save(recipe: Recipe, optimiser: torch.optim.Optimizer, state: State, budget: Budget) -> None:
    """Write the stage's checkpoint and call `on_checkpoint` with the averaged weights."""
    path = checkpoint_path(budget.folder, recipe.name)
    module = recipe.module.state_dict()
    content = {"module": module, "optimiser": optimiser.state_dict(), "average": state.average,
               "step": state.step, "spent": state.spent}  # fmt: skip
    torch.save(content, path.with_suffix(".part"))
    path.with_suffix(".part").replace(path)  # so that a run stopped while writing leaves the last checkpoint whole
    if recipe.on_checkpoint is None:
        return
    kept = {key: value.clone() for key, value in module.items()}
    recipe.module.load_state_dict(state.average or module)
    recipe.on_checkpoint(recipe.module.eval(), state.spent)
    recipe.module.load_state_dict(kept)
    recipe.module.train()


def _write(log: Any, state: State, figures: Mapping[str, float]) -> None:
    """Write a line of the log, with four digits per figure."""
    line = {"step": state.step, "minutes": state.spent / 60, **figures}
    log.write(json.dumps({key: float(f"{value:.4g}") for key, value in line.items()}) + "\n")
    log.flush()
