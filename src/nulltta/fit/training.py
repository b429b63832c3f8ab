"""Fitting a null text φ'_t(c) = φ + Δ_t(c) for all prompts, by the objective of test-time alignment.

Each update draws a denoising step t and latents x_t of many prompts, and moves Δ along the gradient of the same J(φ')
that `null_tta` ascends for one prompt (docs/method.md, step 2b): the reward of the clean estimate, held by the
consistency term and the prior. The gradient stops at x_t. One constant Δ is ReNeg's idea (arXiv 2412.19637).
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Generator, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor

from nulltta.algorithm import randomness, schedules
from nulltta.algorithm.embeddings import free, take
from nulltta.algorithm.gradients import ESTIMATORS, GradientEstimator, finite_rows, in_micro_batches
from nulltta.algorithm.memory import ANY_RUN, MicroBatch
from nulltta.algorithm.objective import Objective
from nulltta.algorithm.problem import require_conventions
from nulltta.algorithm.views import predicted
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel, NoiseStep, Reward
from nulltta.errors import InvalidValue, LoadError, RewardError, out_of_memory_as_error
from nulltta.evaluation.bootstrap import Gain
from nulltta.evaluation.measures import Measure
from nulltta.files import atomic
from nulltta.fit.settings import FitSettings
from nulltta.fit.trajectories import Pool, TrajectorySampler
from nulltta.fit.validation import Validation, gains
from nulltta.fit.workers import ALONE, Workers
from nulltta.models.learnt_tokens import LearntTokens
from nulltta.models.nag import unguided, with_guidance
from nulltta.null_text.capture import about_learnt, about_model
from nulltta.null_text.exact import steps_of
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import FORMS, Form, TokensForm, free_shapes
from nulltta.scoring import as_measure, require_differentiable, require_pictures

FIRST_SEED = 1_000_000
"""The seed of the first trajectory, far from those of a user's runs."""
SAVE_SECONDS = 60
"""How often the state is written, beside at every validation."""
FALLS = 3
"""After how many validations in a row at which a guard fell by more than chance the fit ends."""


@dataclass(frozen=True, slots=True)
class FitStep:
    """What one update did.

    Attributes:
        update: its number, from 1.
        reward: the mean reward of the clean estimates.
        gains: by measure, if the null text was validated after this update; else None.
        best: the null text, if that validation was the best so far; else None.
    """

    update: int
    reward: float
    gains: Mapping[str, Gain] | None = None
    best: FittedNullText | None = None


FitStream: TypeAlias = Generator[FitStep, None, FittedNullText]


@dataclass(frozen=True)
class FitProblem:
    """What a null text is fitted for.

    Attributes:
        model: the frozen model; under the guidance of `config` once the problem is made.
        reward: the reward to raise; differentiable.
        prompts: the training prompts.
        validation: the validation prompts.
        config: steps, guidance, η, and the weights of the objective.
        settings: how it is fitted.
        guards: measures that must not fall, by name.
        measures: measures that are reported only.
        memory: how many rows go through the networks at once.

    Raises:
        InvalidValue: if the reward has no gradient or reads latents, a `kl_target` is set, or there are fewer than two
            validation prompts.
    """

    model: GuidedModel
    reward: Reward
    prompts: Sequence[str]
    validation: Sequence[str]
    config: NullTTAConfig
    settings: FitSettings = field(default_factory=FitSettings)
    guards: Mapping[str, Measure] = field(default_factory=dict)
    measures: Mapping[str, Measure] = field(default_factory=dict)
    memory: MicroBatch = field(default_factory=MicroBatch, compare=False)

    def __post_init__(self) -> None:
        require_differentiable(self.reward, "fit a null text for a reward that has one")
        require_pictures(self.reward, "the validation of a fit")
        if self.config.kl_target is not None:
            raise InvalidValue(
                "is for test-time alignment: leave it out, or raise the weight of the consistency term (kl_weight)",
                "kl_target",
            )
        object.__setattr__(self, "model", with_guidance(self.model, self.config))
        if len(self.validation) < 2:
            raise InvalidValue("needs 2 prompts or more, to compare plain and fitted pictures", "validation")

    @cached_property
    def steps(self) -> list[NoiseStep]:
        """The denoising steps at the configuration's T and η."""
        steps = steps_of(self.model, self.config)
        require_conventions(self.config, steps)
        return steps

    @cached_property
    def span(self) -> tuple[int, int]:
        """(first, end), the denoising steps at which the null text is fitted."""
        return self.settings.span(len(self.steps))

    def null_text(self, form: Form, **about: Any) -> FittedNullText:
        """Return a form as a null text that says how it was made."""
        timesteps = [step.timestep for step in self.steps]
        return FittedNullText(timesteps, form, self.span, {**self.about, **about}, self.held_null)

    @cached_property
    def held_null(self) -> Embedding:
        """φ without a batch dimension, where the pipeline's calls have zeros in its place by default; else empty."""
        if not self.about.get("where", {}).get("zeros"):
            return {}
        _, null = self.model.encode([""], [""])
        return {name: rows[0].cpu() for name, rows in free(null).items()}

    @cached_property
    def about(self) -> dict[str, Any]:
        """How the null text is made, in JSON's types."""
        listed = "\n".join(self.prompts).encode()
        of_model = about_model(self.model, self.config.num_inference_steps)
        return about_learnt(self.reward, self.config, of_model) | {
            "form": self.settings.form,
            "fit": asdict(self.settings),
            "prompts": {"number": len(self.prompts), "blake2b": hashlib.blake2b(listed, digest_size=12).hexdigest()},
        }


def fit(problem: FitProblem, checkpoint: Path | None = None, workers: Workers = ALONE) -> FitStream:
    """Fit a null text, yielding one `FitStep` per update.

    Args:
        problem: what it is fitted for.
        checkpoint: a file from which a fit goes on that was stopped, and to which its state is written at every
            validation and once per minute. The outcome is the same as without the stop.
        workers: the processes among which the rows are shared; each must be given the same problem. The first writes
            the state.

    Returns:
        The null text of the validation at which the target gained most: among those at which no guard fell, or if there
        are none, among those at which none fell by more than chance, if there are any.

    Raises:
        LoadError: if the checkpoint is another fit's.
        RewardError: if the reward fails, or its gradient is not finite.
        OutOfMemory: if memory runs out.
    """
    with out_of_memory_as_error(*ANY_RUN):
        training = _Training(problem, workers)
        if checkpoint is not None and checkpoint.exists():
            training.resume(checkpoint)
        if not workers.agree(training.update):
            raise LoadError(f"not all processes see the state '{checkpoint}': write to a folder that they share (out)")
        return (yield from training.run(checkpoint if workers.first else None))


class _Training:
    """The state of a fit: Δ, its moving average, the optimiser, the trajectories and the validations so far."""

    def __init__(self, problem: FitProblem, workers: Workers = ALONE) -> None:
        p, settings, self.workers = problem, problem.settings, workers
        _, null = p.model.encode(p.prompts[:1], p.config.negatives(p.prompts[:1], [""]))
        torch_seed = int(torch.randint(2**62, (1,), generator=randomness.generator(settings.seed, "fit", "form")))
        with torch.random.fork_rng(devices=[]):  # layers draw their first weights from the ambient generator
            torch.manual_seed(torch_seed)
            self.form, self.average = (_new_form(p, null) for _ in range(2))
        self.average.load_state_dict(self.form.state_dict())
        device = next(iter(null.values())).device
        self.form.to(device), self.average.to(device).requires_grad_(False)
        self.problem, self.update = problem, 0
        self.optimiser = torch.optim.Adam(self.form.parameters(), settings.peak)
        self.estimator = _estimator(problem)
        gamma = schedules.annealing_coefficient(p.config.annealing, len(p.steps))
        self.anneal = [schedules.regularisation(i, gamma) for i in range(len(p.steps))]
        self.history: list[dict[str, Gain]] = []
        self.best: dict[str, Any] | None = None
        self.sampled = 0  # trajectories
        self.pool: Pool | None = None
        target = {p.reward.name: as_measure(p.reward)}
        self.sampler = TrajectorySampler(p.model, p.steps, p.config, p.memory)
        measures = {**target, **p.guards, **p.measures}
        self.validation = Validation(self.sampler, p.validation, measures, settings.fresh, workers)

    def run(self, checkpoint: Path | None) -> FitStream:
        """Update until the end, validating on the way."""
        p, settings = self.problem, self.problem.settings
        plain, saved = self.validation.scores(), time.monotonic()
        while self.update < settings.updates and not self._guard_fell_repeatedly():
            self._refresh()
            reward = self._update()
            self.update += 1
            found, best = None, None
            if self.update % settings.validate_every == 0 or self.update == settings.updates:
                found = gains(plain, self.validation.scores(p.null_text(self.average)))
                best = self._kept() if self._keep(found) else None
            if checkpoint is not None and (found or time.monotonic() - saved > SAVE_SECONDS):
                self.save(checkpoint)
                saved = time.monotonic()
            yield FitStep(self.update, reward, found, best)
        return self._kept()

    def _refresh(self) -> None:
        """Fill the pool with plain trajectories; then replace some, half by plain ones, half by the null text's own."""
        settings = self.problem.settings
        if self.pool is None:
            parts = [self._sampled(None) for _ in range(math.ceil(settings.pool / settings.fresh))]
            prompts, latents = (torch.cat(part)[: settings.pool] for part in zip(*parts, strict=True))
            self.pool = Pool(prompts, latents)
        elif self.update % settings.refresh_every == 0:
            own = self.update // settings.refresh_every % 2 == 1
            self.pool.replace(*self._sampled(self.problem.null_text(self.average) if own else None))

    def _sampled(self, null_text: FittedNullText | None) -> tuple[Tensor, Tensor]:
        """Sample trajectories of the next prompts, in an order that is drawn anew for each round of them."""
        p, fresh = self.problem, self.problem.settings.fresh
        numbers = list(range(self.sampled, self.sampled + fresh))
        self.sampled += fresh
        chosen = [self._order(number // len(p.prompts))[number % len(p.prompts)] for number in numbers]
        seeds = [FIRST_SEED + number for number in numbers]

        def paths(mine: Tensor) -> Tensor:
            prompts = [p.prompts[chosen[row]] for row in mine.tolist()]
            return self.sampler(prompts, [seeds[row] for row in mine.tolist()], null_text)[:, :-1].half().cpu()

        return torch.tensor(chosen), torch.cat(self.workers.map(paths, fresh))

    def _order(self, round_: int) -> list[int]:
        source = randomness.generator(self.problem.settings.seed, "fit", "order", round_)
        return torch.randperm(len(self.problem.prompts), generator=source).tolist()

    def _update(self) -> float:
        """Take one step along ∇J at one noise level and return the mean reward of the clean estimates."""
        p, settings, pool = self.problem, self.problem.settings, self.pool
        assert pool is not None
        source = randomness.generator(settings.seed, "fit", "update", self.update)
        i = int(torch.randint(*p.span, (1,), generator=source))
        rows = torch.randperm(len(pool.prompts), generator=source)[: settings.rows]
        prompts = [p.prompts[index] for index in pool.prompts[rows].tolist()]
        cond, null = p.model.encode(prompts, p.config.negatives(prompts, [""] * len(prompts)))
        x = pool.latents[rows, i].float().to(next(iter(null.values())).device)
        for group in self.optimiser.param_groups:
            group["lr"] = _learning_rate(settings, self.update)
        phi = self.form(i, null, cond)  # φ'_t(c)
        detached = {name: tensor.detach() for name, tensor in phi.items()}

        def slopes(mine: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
            """Return the rewards of some rows, and ∇J with respect to their φ'."""
            theirs = [prompts[row] for row in mine.tolist()]
            objective = self._objective(i, x[mine], theirs, take(cond, mine), take(null, mine))
            draws = [randomness.generator(settings.seed, "fit", "row", self.update, row) for row in mine.tolist()]
            terms, gradient = self.estimator(objective, take(detached, mine), draws)
            return terms.reward.cpu(), {name: rows.cpu() for name, rows in gradient.items()}

        rewards, gradients = zip(*self.workers.map(slopes, len(rows)), strict=True)
        gradient = {name: torch.cat([part[name] for part in gradients]).to(x.device) for name in gradients[0]}
        if not bool(finite_rows(gradient).all()):
            raise RewardError(f"the gradient of reward '{p.reward.name}' is not finite: run the model in float32")
        self.optimiser.zero_grad()
        torch.autograd.backward([phi[name] for name in gradient], [-g / len(rows) for g in gradient.values()])
        self.optimiser.step()
        decay = min(settings.average, (1 + self.update) / (10 + self.update))
        for average, weight in zip(self.average.parameters(), self.form.parameters(), strict=True):
            average.lerp_(weight.detach(), 1 - decay)
        return float(torch.cat(rewards).mean())

    def _objective(self, i: int, x: Tensor, prompts: Sequence[str], cond: Embedding, null: Embedding) -> Objective:
        """Return J at the i-th denoising step as a function of φ'."""
        p, step = self.problem, self.problem.steps[i]
        with torch.no_grad():
            eps_cond, eps_null = (predicted(p.model, p.memory, x, step, branch) for branch in (cond, null))
        return Objective(p.model, p.reward, prompts, p.config, step, x, eps_cond, eps_null, null, self.anneal[i])

    def _keep(self, found: dict[str, Gain]) -> bool:
        """Keep the average if it is the best so far."""
        self.history.append(found)
        rank = _rank(found, self.problem.reward.name, self.problem.guards)
        if better := self.best is None or rank > tuple(self.best["rank"]):
            weights = {name: tensor.clone() for name, tensor in self.average.state_dict().items()}
            self.best = {
                "form": weights, "rank": list(rank), "update": self.update,
                "gains": {name: asdict(gain) for name, gain in found.items()},
            }  # fmt: skip
        return better

    def _kept(self) -> FittedNullText:
        """Return the best null text so far."""
        assert self.best is not None
        kind = FORMS[self.problem.settings.form]
        form = kind.of_weights(self.form.shapes, len(self.problem.steps), self.best["form"]).eval()
        validation = {
            "prompts": len(self.problem.validation), "update": self.best["update"], "gains": self.best["gains"],
        }  # fmt: skip
        return self.problem.null_text(form.requires_grad_(False), validation=validation)

    def _guard_fell_repeatedly(self) -> bool:
        guards, last = self.problem.guards, self.history[-FALLS:]
        return len(last) == FALLS and all(_fell_surely(found, guards) for found in last)

    def _fingerprint(self) -> str:
        """Return what must agree for a fit to go on: everything but the number of validations."""
        p = self.problem
        same = {**p.about, "validation": list(p.validation), "guards": list(p.guards), "dtype": str(p.model.dtype)}
        return hashlib.blake2b(json.dumps(same, sort_keys=True, default=str).encode(), digest_size=12).hexdigest()

    def save(self, path: Path) -> None:
        """Write the state completely or not at all."""
        assert self.pool is not None
        state = {
            "fingerprint": self._fingerprint(), "update": self.update, "sampled": self.sampled, "best": self.best,
            "form": self.form.state_dict(), "average": self.average.state_dict(),
            "optimiser": self.optimiser.state_dict(), "pool": vars(self.pool),
            "history": [{name: asdict(gain) for name, gain in found.items()} for found in self.history],
        }  # fmt: skip
        with atomic(path) as temporary:
            torch.save(state, temporary)

    def resume(self, path: Path) -> None:
        """Go on from a file that `save` wrote.

        Raises:
            LoadError: if it is damaged or another fit's.
        """
        try:
            state = torch.load(path, weights_only=True, map_location="cpu")
        except Exception as error:  # whatever a damaged file leads the unpickler to
            raise LoadError(f"'{path}' is damaged: delete it to begin anew") from error
        if state.get("fingerprint") != self._fingerprint():
            raise LoadError(f"'{path}' is the state of another fit: delete it, or write to another file (out)")
        self.form.load_state_dict(state["form"])
        self.average.load_state_dict(state["average"])
        self.optimiser.load_state_dict(state["optimiser"])
        self.update, self.sampled, self.best = state["update"], state["sampled"], state["best"]
        self.pool = Pool(**state["pool"])
        self.history = [{name: Gain(**gain) for name, gain in found.items()} for found in state["history"]]


def _new_form(problem: FitProblem, null: Embedding) -> Form:
    """Return a form before training, for a null embedding with a batch dimension."""
    settings, shapes = problem.settings, free_shapes(null)
    if settings.form == "tokens":
        encoder = LearntTokens(unguided(problem.model), settings.tokens)
        return TokensForm(shapes, encoder.initial(), encoder)
    return FORMS[settings.form](shapes, len(problem.steps))


def _estimator(problem: FitProblem) -> GradientEstimator:
    """Return the estimator of ∇J, in as many rows at once as fit into memory."""
    config = problem.config.resolved(differentiable=True)
    memory = MicroBatch(problem.memory.rows, problem.model.enable_checkpointing)
    return in_micro_batches(ESTIMATORS[config.gradient](config, problem.model), memory)


def _rank(found: Mapping[str, Gain], target: str, guards: Iterable[str]) -> tuple[bool, bool, float]:
    """Return by what validations are compared, the greater the better.

    The target's gain counts among those at which no guard fell. Where there are none, those at which no guard fell by
    more than chance are the next best.
    """
    guards = [name for name in guards if name in found]
    return not _fell_surely(found, guards), all(found[name].mean >= 0 for name in guards), found[target].mean


def _fell_surely(found: Mapping[str, Gain], guards: Iterable[str]) -> bool:
    """Return whether the whole interval of a guard's gain lies below 0."""
    return any(found[name].high < 0 for name in guards if name in found)


def _learning_rate(settings: FitSettings, update: int) -> float:
    """Return the learning rate: a linear warm-up times half a cosine."""
    warm = min(1.0, (update + 1) / settings.warmup) if settings.warmup else 1.0
    return settings.peak * warm * 0.5 * (1 + math.cos(math.pi * update / settings.updates))
