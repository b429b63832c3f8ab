"""The work of `nulltta fit`."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from dataclasses import replace

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from nulltta.algorithm.memory import MicroBatch
from nulltta.contracts import Reward
from nulltta.display import terminal
from nulltta.display.formatting import number, signed
from nulltta.display.progress import print_line, progress_bar
from nulltta.errors import InvalidValue, blaming
from nulltta.evaluation.bootstrap import Gain
from nulltta.evaluation.measures import held_out_measures
from nulltta.files import as_error
from nulltta.fit.training import FitProblem, FitStep, fit
from nulltta.fit.workers import Workers, joined
from nulltta.null_text.fitted import FittedNullText
from nulltta.quiet import quiet_libraries
from nulltta.rewards.expression import with_source
from nulltta.runs.fit_request import FitRequest
from nulltta.runs.loading import load_model, load_reward, refuse_toy_scorers, resolved
from nulltta.runs.request import ModelSettings
from nulltta.scoring import as_measure


def run(request: FitRequest) -> None:
    """Fit a null text and write its file, showing the progress and every validation.

    The file is written at each validation that is the best so far. The state is kept beside it, so that a fit that was
    stopped goes on when it is asked for again; it is deleted at the end. Where `accelerate launch` has started several
    processes, they share the work, and the first of them writes and shows.

    Raises:
        InvalidValue: if the device cannot be used, or a file cannot be written.
        LoadError: if the model or a reward does not load, or the state is another fit's.
        RewardError: if the reward fails, or its gradient is not finite.
        OutOfMemory: if memory runs out.
        KeyboardInterrupt: after Ctrl-C; the state is kept.
    """
    with joined() as workers:
        null_text = _run(request, workers)
        if not workers.first:
            return
    found = {name: Gain(**gain) for name, gain in null_text.about["validation"]["gains"].items()}
    Console().print(_table(found))
    print_line(Console(), f"{request.out} is written: use it with nulltta replay {request.out} --prompt ...")


def _run(request: FitRequest, workers: Workers) -> FittedNullText:
    """Fit a null text; the first process writes its file and deletes the state."""
    notes = terminal.notes() if workers.first else Console(quiet=True)
    with as_error(request.out):
        request.out.parent.mkdir(parents=True, exist_ok=True)
    with notes.status("loading the model and the rewards"):
        problem = _problem(request, workers)
    if request.checkpoint.exists():
        print_line(notes, f"going on from {request.checkpoint}")
    null_text = _fitted(problem, request, notes, workers)
    if workers.first:
        null_text.save(request.out)
        request.checkpoint.unlink(missing_ok=True)
    return null_text


def _problem(request: FitRequest, workers: Workers) -> FitProblem:
    if workers.count > 1 and (request.model.device or "").startswith("cuda:"):
        raise InvalidValue(
            f"must not name one GPU for {workers.count} processes, as '{request.model.device}' does: give cuda, by "
            "which each takes its own",
            "device",
        )
    settings = resolved(request.model)
    if workers.count > 1 and settings.device == "cuda":
        settings = replace(settings, device=f"cuda:{workers.local}")
    if request.reward_source is None:
        refuse_toy_scorers(request.reward, settings.model)
    with blaming("reward" if request.reward_source is None else "reward_source"):
        reward = load_reward(with_source(request.reward, request.reward_source), settings.device)
    guards = {guard.name: as_measure(guard) for guard in _guards(request.guards, settings)}
    model = load_model(settings)
    with quiet_libraries():
        held_out = held_out_measures(model, settings.device)
    measures = {name: measure for name, measure in held_out.items() if name not in {reward.name, *guards}}
    return FitProblem(
        model, reward, request.training_prompts, request.validation_prompts, request.config, request.settings, guards,
        measures, MicroBatch(request.micro_batch),
    )  # fmt: skip


def _guards(expressions: Sequence[str], settings: ModelSettings) -> list[Reward]:
    for expression in expressions:
        refuse_toy_scorers(expression, settings.model, "guard")
    with blaming("guard"):
        return [load_reward(expression, settings.device) for expression in expressions]


def _fitted(problem: FitProblem, request: FitRequest, notes: Console, workers: Workers) -> FittedNullText:
    """Drain the fit's stream, showing each step."""
    found: list[FittedNullText] = []

    def stream() -> Generator[FitStep, None, None]:
        found.append((yield from fit(problem, request.checkpoint, workers)))

    smooth = None
    with progress_bar(notes, "fitting", "updates", transient=True) as bar:
        task = bar.add_task("", total=request.settings.updates)
        for step in stream():
            smooth = step.reward if smooth is None else 0.95 * smooth + 0.05 * step.reward
            bar.update(task, completed=step.update, description=f"{problem.reward.name} {number(smooth)}")
            if step.gains is not None:
                print_line(bar.console, _line(step, step.gains))
            if step.best is not None and workers.first:
                step.best.save(request.out)
    return found[0]


def _line(step: FitStep, gains: Mapping[str, Gain]) -> str:
    parts = (f"{name} {signed(gain.mean)} ({signed(gain.low)} to {signed(gain.high)})" for name, gain in gains.items())
    return f"update {step.update}: {', '.join(parts)}"


def _table(gains: Mapping[str, Gain]) -> Table:
    """Return a table of the validation prompts' gains."""
    prompts = max(gain.n for gain in gains.values())
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=f"{prompts} validation prompts, at the cost of plain sampling")
    for heading in ("measure", "plain", "fitted", "gain", "95% interval"):
        table.add_column(heading, justify="left" if heading == "measure" else "right")
    for name, gain in gains.items():
        interval = f"{signed(gain.low)} to {signed(gain.high)}"
        table.add_row(name, number(gain.plain), number(gain.aligned), signed(gain.mean), interval)
    return table
