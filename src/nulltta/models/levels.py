"""Noise levels, asked of the caller's own scheduler.

At each step the scheduler says how it would noise an image of ones with no noise, and an image of zeros with noise of
one: x = α·x0 + σ·ε. Whatever sets its levels (Karras, a shift, zero terminal SNR, EDM) is in the answer.
"""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from nulltta.errors import InvalidValue
from nulltta.models.recording import StepRecord
from nulltta.models.steps import FLOWS, KINDS, ObservedStep, predict_x0, share
from nulltta.models.weights import Ladder, weighed

TOLERANCE = 1e-3  # relative, of the scheduler's own step against ours
STRIDE = 4e-3  # in α and σ: more than one step of a training schedule of 1000


def schedule(records: Sequence[StepRecord]) -> list[ObservedStep]:
    """The steps between the recorded levels, without `inputs` and `gains`; those that lead to no lower level are left
    out of it by a component of "".

    Raises:
        InvalidValue: if the levels do not fall, or the scheduler's own step is not one between them.
    """
    records = [replace(record, scheduler=_on_cpu(record.scheduler)) for record in records]
    levels = [_asked(record.scheduler, record.timestep) for record in records]
    levels.append(_terminal(records[-1]))
    if _inverted(records[0].scheduler):
        levels = [(noise, signal) for signal, noise in levels]
    levels[-1] = _flows_end(records[-1], levels[-2], levels[-1])
    shares = [share(*level) for level in levels]
    if any(then < now - 1e-9 for now, then in pairwise(shares)):
        raise InvalidValue(
            f"scheduler {type(records[0].scheduler).__name__}'s noise levels do not fall from step to step: it is not "
            "supported"
        )
    exploding = all(abs(signal - 1) < 1e-6 for signal, _ in levels)
    units = [math.hypot(*level) if exploding else 1.0 for level in levels]
    kind = _kind(records, levels)
    reached = [_reached(*each, kind) for each in zip(records, levels, levels[1:], strict=False)]
    draws = _own_eta(records[0], levels[0], levels[1], kind) > 0
    trained = int(records[0].scheduler.config.num_train_timesteps)
    ladder = Ladder(records[0].scheduler, trained)
    made = []
    for i, record in enumerate(records):
        (signal, noise), (signal_next, noise_next) = levels[i], reached[i]
        alpha_bar, following = shares[i], share(*reached[i])
        skip, out = _preconditioning(record.scheduler, noise) if kind == "preconditioned" else (0.0, 0.0)
        step = ObservedStep(
            timestep=torch.as_tensor(record.timestep).flatten()[0].item(),
            alpha_bar=alpha_bar,
            alpha_bar_previous=following,
            consistency=0.0,
            own_eta=_own_eta(record, levels[i], levels[i + 1], kind) if draws else 0.0,
            signal=signal / units[i],
            noise=noise / units[i],
            signal_next=signal_next / units[i + 1],
            noise_next=noise_next / units[i + 1],
            unit=units[i],
            unit_next=units[i + 1],
            kind=kind,
            skip=skip * units[i],
            out=out,
            component="" if following - alpha_bar < 1e-9 else record.calls[0].component,
        )
        made.append(weighed(step, ladder))
    return made


def _on_cpu(scheduler: Any) -> Any:
    """Return a copy of a scheduler with its tensors on the CPU: some keep their levels on the pipeline's device."""
    own = copy.copy(scheduler)
    for name, value in vars(scheduler).items():
        if isinstance(value, Tensor):
            setattr(own, name, value.cpu())
        elif isinstance(value, list):
            setattr(own, name, [each.cpu() if isinstance(each, Tensor) else each for each in value])
    return own


def _inverted(scheduler: Any) -> bool:
    """Whether a scheduler of flows counts from noise at 0 to data at 1, which its way of adding noise leaves out."""
    return bool(scheduler.config.get("invert_sigmas"))


def _asked(scheduler: Any, timestep: Any, ahead: int = 0) -> tuple[float, float]:
    """(α, σ) at a step, or at one `ahead` of it, by the scheduler's own way of adding noise."""
    own = copy.copy(scheduler)
    t = torch.as_tensor(timestep).flatten()[:1].cpu()
    if hasattr(own, "_step_index"):
        if own._step_index is None:
            own._init_step_index(t[0])
        own._begin_index, own._step_index = 0, own._step_index + ahead
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    if hasattr(own, "scale_noise"):
        pair = own.scale_noise(one, t, zero), own.scale_noise(zero, t, one)
    elif hasattr(own, "add_noise"):
        pair = own.add_noise(one, zero, t), own.add_noise(zero, one, t)
    else:
        raise InvalidValue(f"scheduler {type(scheduler).__name__} is not supported: it does not say its noise levels")
    return float(pair[0]), float(pair[1])


def _terminal(record: StepRecord) -> tuple[float, float]:
    """(α, σ) after the last step."""
    scheduler = record.scheduler
    if hasattr(scheduler, "_step_index") and isinstance(getattr(scheduler, "sigmas", None), Tensor):
        return _asked(scheduler, record.timestep, ahead=1)
    final = getattr(scheduler, "final_alpha_cumprod", None)
    if final is None:
        return 1.0, 0.0
    final = torch.as_tensor(final, dtype=torch.float64)
    return float(final**0.5), float((1 - final) ** 0.5)


def _flows_end(record: StepRecord, now: tuple[float, float], said: tuple[float, float]) -> tuple[float, float]:
    """Return (α, σ) after a flow's last step, where its scheduler's way of adding noise knows no level but the present.

    Such a scheduler says again at the end where its last step begins.
    """
    landing = _landing(record, now, said, "flow") if said == now else None
    return said if landing is None else (landing.signal, landing.direction)


def _kind(records: Sequence[StepRecord], levels: Sequence[tuple[float, float]]) -> str:
    """Return what is predicted: the kind under which the scheduler's own steps lead from level to level.

    The kind that the scheduler's configuration names is taken if its first step fits, because near pure noise, and in
    many small steps, other kinds come close; without a name the kind that fits best is taken.
    """
    scheduler = records[0].scheduler
    config = scheduler.config
    errors = _errors(records[0], levels[0], levels[1], KINDS)
    named = {"flow_prediction": "flow"}.get(config.get("prediction_type"), config.get("prediction_type"))
    if errors.get(named, 1.0) < STRIDE:
        return str(named)
    if sum(error < STRIDE for error in errors.values()) > 1:  # of pure noise, several kinds say the same
        middle = len(records) // 2
        later = _errors(records[middle], levels[middle], levels[middle + 1], errors)
        errors = {kind: errors[kind] + later[kind] for kind in later} or errors
    best = min(errors, key=lambda kind: errors[kind], default=None)
    if best is not None and errors[best] < STRIDE:
        return best
    name = type(scheduler).__name__
    cause = next((f": its {key} changes the clean estimate, set it to False" for key in ("thresholding", "clip_sample")
                  if config.get(key)), ": it is not supported")  # fmt: skip
    if levels[0][0] == 0 and config.get("prediction_type") == "epsilon":
        raise InvalidValue(
            "a model that predicts noise has no clean estimate at zero terminal SNR (rescale_betas_zero_snr)"
        )
    raise InvalidValue(f"scheduler {name}'s own step does not lead from one of its noise levels to the next{cause}")


def _errors(
    record: StepRecord, now: tuple[float, float], then: tuple[float, float], kinds: Iterable[str]
) -> dict[str, float]:  # fmt: skip
    """How far the scheduler's own step lands from the next level, for each kind under which it is a step at all."""
    landings = {kind: _landing(record, now, then, kind) for kind in kinds}
    return {kind: landing.error for kind, landing in landings.items() if landing is not None}


def _reached(
    record: StepRecord, now: tuple[float, float], then: tuple[float, float], kind: str
) -> tuple[float, float]:  # fmt: skip
    """Return (α', σ') that the step really leads to: beside the next level where DDIM's even stride leads there."""
    if abs(math.hypot(*then) - 1) > 1e-6 or kind in FLOWS:
        return then
    landing = _landing(record, now, then, kind)
    if landing is None or not 1e-6 < abs(landing.signal - then[0]) <= landing.error < STRIDE:
        return then
    return landing.signal, math.sqrt(1 - landing.signal**2)


def _own_eta(record: StepRecord, now: tuple[float, float], then: tuple[float, float], kind: str) -> float:
    """Return the deviation that the scheduler's own step draws, √(σ'² − c²), as a share of the posterior's.

    It is 0 where that cannot be told, because the scheduler looks back at earlier steps, and after which no noise is
    left.
    """
    landing = _landing(record, now, then, kind)
    (signal, noise), (signal_next, noise_next) = now, then
    if landing is None or noise_next == 0:
        return 0.0
    fresh = noise_next**2 - min(max(landing.direction, 0.0), noise_next) ** 2
    ratio = signal * noise_next / (noise * signal_next)
    posterior = noise_next**2 * (1 - ratio**2)
    return math.sqrt(fresh / posterior) if fresh > TOLERANCE * noise_next**2 else 0.0


@dataclass(frozen=True, slots=True)
class _Landing:
    """Where a scheduler's own step leads: α'·x̂0 + c·ε̂ plus noise.

    Attributes:
        signal: α'.
        direction: c.
        error: how far α' is from the next recorded level's, or c from the range of 0 to σ' that every step from one
            level to the next has, deterministic or ancestral. DDIM steps by an even stride, which with some spacings
            leads one training step beside the next timestep: an error below `STRIDE`.
    """

    signal: float
    direction: float
    error: float


def _landing(
    record: StepRecord, now: tuple[float, float], then: tuple[float, float], kind: str
) -> _Landing | None:  # fmt: skip
    """Ask a copy of the scheduler to step at random latents and predictions, with its noise set to zero.

    Returns None if the step is not a combination of x̂0 and ε̂ alone: the scheduler looks back at earlier steps, or
    the kind does not exist at this level.
    """
    (signal, noise), (signal_next, noise_next) = now, then
    skip, out = _preconditioning(record.scheduler, noise)
    if (kind == "preconditioned") != bool(out) or (kind == "epsilon" and signal == 0) or noise == 0:
        return None
    scheduler, generator = copy.deepcopy(record.scheduler), torch.Generator().manual_seed(0)
    x, v = (torch.randn((1, *record.sample.shape[1:]), generator=generator, dtype=torch.float64) for _ in range(2))
    scale = math.hypot(signal, noise)
    x = x * scale
    t = record.timestep.cpu() if isinstance(record.timestep, Tensor) else record.timestep
    given = {"model_output": v, "timestep": t, "sample": x, "return_dict": False}
    with warnings.catch_warnings(), torch.no_grad(), _NoNoise():
        warnings.simplefilter("ignore")  # of a step that is taken out of its turn
        stepped = scheduler.step(**{**given, **_further(scheduler)})[0].double()
    if stepped.shape != x.shape:  # mixed with earlier steps of the recorded batch
        return None
    unit = scale if kind == "v_prediction" else 1.0  # v is defined in variance-preserving units
    at = ObservedStep(
        0.0, share(signal, noise), 0.0, 0.0, signal=signal / unit, noise=noise / unit, kind=kind, skip=skip, out=out
    )
    clean = predict_x0(x / unit, v, at)
    basis = torch.stack([clean.flatten(), ((x - signal * clean) / noise).flatten()], 1)
    solution = torch.linalg.lstsq(basis, stepped.flatten()[:, None]).solution.flatten()
    if float((basis @ solution - stepped.flatten()).abs().max() / stepped.abs().max()) > TOLERANCE:
        return None
    reached, c = solution.tolist()
    beyond = max(0.0, c - noise_next, -c) / max(1.0, noise_next)
    return _Landing(reached, c, max(abs(reached - signal_next), beyond))


def _further(scheduler: Any) -> dict[str, Any]:
    """Arguments that some schedulers' steps need beside the usual ones."""
    names = inspect.signature(scheduler.step).parameters
    return {name: None for name in ("old_pred_original_sample", "timestep_back") if name in names}


class _NoNoise(TorchFunctionMode):
    """Replaces this thread's draws of normal noise by zeros."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        return torch.zeros_like(result) if function in (torch.randn, torch.randn_like) else result


def _preconditioning(scheduler: Any, noise: float) -> tuple[float, float]:
    """EDM's c_skip and c_out at a level; zeros for schedulers that have none."""
    if not hasattr(scheduler, "precondition_outputs"):
        return 0.0, 0.0
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    sigma = torch.tensor(noise, dtype=torch.float64)
    return (
        float(scheduler.precondition_outputs(one, zero, sigma)),
        float(scheduler.precondition_outputs(zero, one, sigma)),
    )
