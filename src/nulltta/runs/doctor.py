"""Describe this machine and estimate the time and memory of a run on it from a few timed evaluations."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from torch import Tensor

from nulltta.algorithm.budget import evaluations, of_inner_step
from nulltta.algorithm.gradients import autograd
from nulltta.algorithm.objective import Objective, predict_branches
from nulltta.alignment import make_problem
from nulltta.config import NullTTAConfig
from nulltta.contracts import CleanLatents, GuidedModel, Reward
from nulltta.display import terminal
from nulltta.runs.loading import load, usable_device
from nulltta.runs.request import RunSettings
from nulltta.scoring import score_latents
from nulltta.versions import version_of


@dataclass(frozen=True)
class Machine:
    """The device that a run would use.

    Attributes:
        device: its name.
        free, total: bytes of memory.
        dtypes: the names of the types that it computes in without emulation.
    """

    device: str
    free: int
    total: int
    dtypes: tuple[str, ...]


@dataclass(frozen=True)
class Estimate:
    """The time and memory that a batch of prompts takes.

    Attributes:
        seconds: the time per prompt, which is the sum of the next three.
        inner, candidates, references: the seconds per prompt of the inner steps, of drawing and scoring candidates,
            and of evaluations at φ and φ' without a gradient.
        weights: the bytes of the parameters of the model and the reward.
        activations: the bytes that one inner step of the whole batch holds in addition.
        free: the bytes that were free with the weights loaded.
    """

    seconds: float
    inner: float
    candidates: float
    references: float
    weights: int
    activations: int
    free: int

    @property
    def fits(self) -> bool:
        """Whether an inner step of the batch fits into the free memory."""
        return self.activations < self.free


PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "peft", "gradio", "fastapi", "ray")
"""The packages whose versions are reported."""


def examine(settings: RunSettings) -> tuple[Machine, dict[str, str | None], Estimate]:
    """Describe the machine and estimate a batch of a run on it, showing on the terminal what it is doing.

    Returns:
        The machine as it is before anything is loaded, the version of each package that may be installed, and the
        estimate for a batch of `settings.batch_size` prompts.

    Raises:
        InvalidValue: if the device cannot be used.
        LoadError: if the model or the reward does not load.
        OutOfMemory: if the model does not fit into memory.
    """
    machine, notes = describe(usable_device(settings.device)), terminal.notes()
    with notes.status("loading model and rewards"):
        loaded = load(settings)
    started = loaded.start is not None
    with notes.status("timing a few evaluations of each kind"):
        found = estimate(loaded.model, loaded.reward, loaded.settings.config, settings.batch_size, started=started)
    return machine, {name: version_of(name) for name in PACKAGES}, found


def describe(device: torch.device) -> Machine:
    """Describe a device as it is now."""
    if device.type == "cuda":
        free, total = torch.cuda.mem_get_info(device)
        half = ("bfloat16",) if torch.cuda.is_bf16_supported(including_emulation=False) else ()
        return Machine(torch.cuda.get_device_name(device), free, total, ("float32", "float16", *half))
    memory = psutil.virtual_memory()
    fast = ("bfloat16",) if torch.ops.mkldnn._is_mkldnn_bf16_supported() else ()
    name = f"{torch.get_num_threads()} CPU threads" if device.type == "cpu" else device.type
    return Machine(name, memory.available, memory.total, ("float32", *fast))


def estimate(
    model: GuidedModel,
    reward: Reward,
    config: NullTTAConfig,
    prompts: int = 1,
    prompt: str = "a cat",
    *,
    started: bool = False,
) -> Estimate:
    """Estimate the time and memory of aligning a batch of prompts from a few evaluations of each kind.

    Args:
        prompts: the number of prompts in the batch.
        prompt: the text of each of them.
        started: whether the run starts from a null text that was learnt before.

    Raises:
        InvalidValue: if the settings ask for the gradient of a reward that has none.
        RewardError: if the reward fails.
        OutOfMemory: if memory runs out while the problem is set up.
    """
    problem = make_problem(model, [prompt] * prompts, reward, config)
    step, x, K = problem.schedule()[0], problem.latents[:, 0], config.num_particles
    eps_null, eps_cond = predict_branches(model, x, step, problem.null, problem.cond)
    differentiated = problem.config.gradient == "autograd"
    objective = Objective(
        model, problem.reward, problem.prompts, problem.config, step, x, eps_cond, eps_null, problem.null, 1.0
    )  # fmt: skip

    def inner() -> None:
        if differentiated:
            autograd(objective, problem.null)
        else:
            objective(problem.null)

    def candidates() -> None:
        for _ in range(K):
            eps = predict_branches(model, x, step, problem.null, problem.cond)[0]
            clean = CleanLatents(model.predict_x0(x, eps, step), step, model.decode)
            score_latents(problem.reward, clean, problem.prompts)

    with torch.no_grad():
        timed = {what.__name__: _seconds(what, x.device) / prompts for what in (inner, candidates)}
        reference = _seconds(lambda: model.predict(x, step, problem.null), x.device) / prompts
    crossed = model.crossed(problem.null)
    inner_steps, without = evaluations(problem.config, started=started, crossed=crossed)
    whole, _ = problem.config.branches(crossed=crossed)
    T = config.num_inference_steps
    per_inner = 1 if differentiated else of_inner_step(problem.config, crossed=crossed)
    parts = (
        inner_steps * per_inner * timed["inner"], T * timed["candidates"], (without - whole * K * T) * reference,
    )  # fmt: skip
    free = describe(x.device).free
    return Estimate(sum(parts), *parts, weights(model, reward), _kept(inner, x.device), free)


def weights(model: Any, reward: Any) -> int:
    """Return the bytes of the parameters of a model's pipeline and of a reward's modules."""
    components = {} if model.pipeline is None else model.pipeline.components
    modules = [part for part in components.values() if isinstance(part, torch.nn.Module)]
    return sum(p.numel() * p.element_size() for module in [*modules, *reward.networks] for p in module.parameters())


def _seconds(function: Callable[[], object], device: torch.device) -> float:
    """Return the time of the fastest of three calls, after one call to warm up."""

    def once() -> float:
        began = time.perf_counter()
        function()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return time.perf_counter() - began

    once()
    return min(once() for _ in range(3))


def _kept(function: Callable[[], object], device: torch.device) -> int:
    """Return the bytes that a call holds.

    On a GPU this is the measured peak, elsewhere the size of what is kept for the backward pass.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        function()
        return int(torch.cuda.max_memory_allocated(device)) - before
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if not isinstance(tensor, torch.nn.Parameter):
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        function()
    return sum(seen.values())
