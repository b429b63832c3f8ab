"""`nulltta bench`: Null-TTA compared with other methods at equal cost (docs/benchmark.md)."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nulltta.cli import INTERRUPTED
from nulltta.cli.flags import BatchSize, Device, Dtype, Guidance, Model, Steps, config_flags
from nulltta.cli.messages import quiet, say
from nulltta.display import terminal
from nulltta.errors import InvalidValue, blaming
from nulltta.runs.prompt_file import read_prompts

if TYPE_CHECKING:
    from nulltta.benchmark.plan import Plan
    from nulltta.benchmark.run import OnRows, WorkerMachine
    from nulltta.benchmark.store import BenchmarkFolder
    from nulltta.benchmark.tuned import TunedSettings
    from nulltta.embedded.worlds import World

app = typer.Typer(help="Compare methods at equal cost, with measures that nobody optimised.", no_args_is_help=True)

Out = Annotated[
    Path, typer.Option(metavar="FOLDER", help="The folder for plan, rows and pictures; given again, it is resumed.")
]
Targets = Annotated[list[str] | None, typer.Option("--target", help="A reward to raise; may be repeated (the world's)")]
Budgets = Annotated[
    list[str] | None,
    typer.Option("--budget", help="Denoiser evaluations per image, or seconds as in 5s; may be repeated (300)"),
]
Contenders = Annotated[
    list[str] | None,
    typer.Option(
        "--contender", help="rivals, ablations, sweeps, or a contender's name; may be repeated (rivals, ablations)"
    ),
]
PromptCount = Annotated[
    int, typer.Option(metavar="N", help="Number of an embedded world's prompts, from the beginning of a fixed list.")
]
PromptsFile = Annotated[Path | None, typer.Option(metavar="FILE", help="The prompts for another model, one per line.")]
TuningFile = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Other prompts, to tune settings and to measure scales on.")
]
Measures = Annotated[
    list[str] | None, typer.Option("--measure", help="Another reward to measure; may be repeated (colourfulness)")
]
Settings = Annotated[
    Path | None, typer.Option(metavar="FILE", help="The settings of the contenders, as `bench tune` wrote them.")
]
Workers = Annotated[int, typer.Option(help="Number of processes that sample in parallel.")]
Threads = Annotated[int, typer.Option(help="Threads per worker; 0 divides the cores among the workers.")]


@app.command()
def run(
    target: Targets = None,
    trade_off: Annotated[
        tuple[str, str] | None, typer.Option(help="Two rewards whose standardised sums are targets too.")
    ] = None,
    weight: Annotated[
        list[float] | None,
        typer.Option("--weight", help="The weight of the first of the two; may be repeated (0, .25, .5, .75, 1)"),
    ] = None,
    budget: Budgets = None,
    contender: Contenders = None,
    prompts: PromptCount = 120,
    prompts_file: PromptsFile = None,
    tuning_file: TuningFile = None,
    seeds: Annotated[
        int,
        typer.Option(metavar="N", help="Draws of noise; contenders share it, and each prompt has its own."),
    ] = 4,
    measure: Measures = None,
    settings: Settings = None,
    fitted: Annotated[
        list[str] | None,
        typer.Option(
            "--fitted", metavar="FILE", help="A fitted null text, or a noise network, to compare with; may be repeated."
        ),
    ] = None,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    model: Model = "embedded",
    batch_size: BatchSize = 8,
    gallery: Annotated[int, typer.Option(help="Number of prompts whose pictures are kept.")] = 6,
    workers: Workers = 1,
    threads: Threads = 0,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = Path("out/benchmark"),
) -> None:
    """Sample every contender on every prompt and seed; after an interruption the same command continues."""
    with quiet():
        from nulltta.benchmark.request import BenchmarkRequest, prepare
        from nulltta.benchmark.run import WorkerMachine
        from nulltta.benchmark.store import BenchmarkFolder

        reported, tuning = _prompts(model, prompts, prompts_file, tuning_file)
        request = BenchmarkRequest(
            model=model, targets=target or ([] if trade_off else [_world(model).target]), trade_off=trade_off or (),
            weights=weight or (0.0, 0.25, 0.5, 0.75, 1.0), budgets=budget or ["300"],
            contenders=contender or ["rivals", "ablations"], prompts=reported, tuning=tuning,
            seeds=list(range(seeds)), measures=["colourfulness"] if measure is None else measure,
            config=_given(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale),
            settings=_settings(settings, model), fitted=fitted or (), batch_size=batch_size, gallery=gallery,
        )  # fmt: skip
        machine, store = WorkerMachine(workers, threads, device, dtype), BenchmarkFolder(out)
        plan = prepare(request, store, machine, lambda line: say("note", line))
        _sample(plan, store, machine)
        print(f"{plan.images} images are in '{out}'; `nulltta bench report {out}` writes them up")


@app.command()
def tune(
    target: Targets = None,
    budget: Annotated[
        list[int] | None, typer.Option("--budget", help="Denoiser evaluations per image; may be repeated (300)")
    ] = None,
    contender: Annotated[
        list[str] | None, typer.Option("--contender", help="A contender to tune; may be repeated (all with a grid)")
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option("--held-out", help="A measure that must not fall; may be repeated (those of the world)"),
    ] = None,
    prompts: Annotated[int, typer.Option(metavar="N", help="Number of tuning prompts to try settings on.")] = 24,
    tuning_file: TuningFile = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="Draws of noise, 0 to N−1.")] = 4,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    model: Model = "embedded",
    batch_size: BatchSize = 8,
    workers: Workers = 1,
    threads: Threads = 0,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = Path("out/tuning"),
) -> None:
    """Choose the settings of each contender on the tuning prompts; write settings.json and tuning.json to FOLDER."""
    with quiet():
        from nulltta.benchmark.run import WorkerMachine
        from nulltta.benchmark.search import TuningRequest, search
        from nulltta.benchmark.store import BenchmarkFolder

        _, tuning = _prompts(model, 1, tuning_file, tuning_file)
        asked = TuningRequest(
            model=model, targets=target or [_world(model).target], budgets=budget or [300],
            held_out=held_out or _world(model).held_out, prompts=tuning, searched=prompts,
            seeds=list(range(seeds)), batch_size=batch_size, contenders=contender or (),
            config=_given(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale),
        )  # fmt: skip
        with _bar(BenchmarkFolder(out)) as on_plan:
            search(asked, out, WorkerMachine(workers, threads, device, dtype), on_plan, lambda line: say("note", line))
        print(f"look at {out / 'tuning.json'}; give {out / 'settings.json'} to `nulltta bench run --settings`")


@app.command()
def calibrate(
    seconds: Annotated[
        list[float], typer.Argument(metavar="SECONDS...", help="Seconds per image.", show_default=False)
    ],
    target: Annotated[str | None, typer.Option(help="The reward to raise (the world's)")] = None,
    contender: Contenders = None,
    tuning_file: TuningFile = None,
    settings: Settings = None,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    model: Model = "embedded",
    threads: Threads = 0,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Measure how many denoiser evaluations each contender can do on this machine in a time per image."""
    with quiet():
        from nulltta.benchmark.calibrate import CalibrationRequest, evaluations_per_second
        from nulltta.benchmark.run import WorkerMachine

        _, tuning = _prompts(model, 1, tuning_file, tuning_file)
        asked = CalibrationRequest(
            model=model, target=target or _world(model).target, seconds=seconds,
            contenders=contender or ["rivals"], prompts=tuning, settings=_settings(settings, model),
            config=_given(num_inference_steps=num_inference_steps, guidance_scale=guidance_scale),
        )  # fmt: skip
        machine = WorkerMachine(1, threads, device, dtype)
        print("contender", "evaluations per second", *(f"in {each:g} s" for each in seconds), sep="\t")
        for name, rate in evaluations_per_second(asked, machine, lambda line: say("note", line)):
            print(name, f"{rate:.1f}", *(int(second * rate) for second in seconds), sep="\t")


@app.command()
def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Folders that `bench run` wrote.", show_default=False)
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="The folder for report.html and report.md.")] = Path(
        "out/report"
    ),
    note: Annotated[str, typer.Option(metavar="TEXT", help="What to say at the head of the report.")] = "",
) -> None:
    """Write a report on what was sampled so far: a self-contained HTML page, and a Markdown page with its pictures."""
    with quiet():
        from nulltta.benchmark.report import write

        for path in write(folders, out, note):
            print(path)


@app.command()
@config_flags
def paper(
    prompts: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file with one prompt per line.", show_default=False)
    ],
    table: Annotated[int, typer.Option(min=1, max=7, help="1 PickScore, 2 HPSv2, 3 to 5 ablations, 6 JPEG, 7 SDXL.")],
    model: Annotated[str | None, typer.Option(help="A model other than the published one.")] = None,
    seeds: Annotated[int, typer.Option(metavar="N", help="The first N of the seeds 42, 43 and 44.")] = 1,
    source: Annotated[
        list[str] | None, typer.Option(metavar="REWARD=SOURCE", help="The weights of a reward; may be repeated.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print what the run would do, take and download.")] = False,
    batch_size: BatchSize = 4,
    device: Device = None,
    dtype: Dtype = None,
    out: Out = Path("out/paper"),
    *,
    settings: dict[str, Any],
) -> None:
    """Run a published experiment and print the published numbers beside its own; settings apply to all its rows."""
    with quiet():
        from nulltta.benchmark.analysis import panels
        from nulltta.benchmark.paper import TABLES, compared, forecast, plan_of
        from nulltta.benchmark.run import WorkerMachine
        from nulltta.benchmark.store import BenchmarkFolder

        asked = TABLES[table]
        places = _sources(source or [])
        plan = plan_of(
            asked, model or asked.model, read_prompts([], prompts, None), seeds, places, settings, batch_size
        )
        print("\n".join(forecast(asked, plan)), file=sys.stderr)
        if dry_run:
            return
        store = BenchmarkFolder(out)
        plan = store.resume({"table": table, "plan": plan.as_json(), "dtype": dtype}, lambda: (plan, {}))
        _sample(plan, store, WorkerMachine(1, 0, device, dtype))
        [panel] = panels(plan, store.rows())
        print(asked.title, "ours (gain over plain, 95% interval) / published", sep=": ")
        for line in compared(asked, panel):
            print(*line, sep="\t")


def _sources(given: Sequence[str]) -> dict[str, str]:
    """Parse where the weights of rewards are: ["hpsv2=/weights"] -> {"hpsv2": "/weights"}."""
    pairs = [each.partition("=") for each in given]
    for name, sign, place in pairs:
        if not (name and sign and place) or '"' in place:
            raise InvalidValue(f"must be as in hpsv2=weights/hps, not '{name}{sign}{place}'", field="source")
    return {name: place for name, _, place in pairs}


def _sample(plan: Plan, store: BenchmarkFolder, machine: WorkerMachine) -> None:
    """Sample what the plan still lacks; Ctrl-C keeps what is finished."""
    from nulltta.benchmark.run import sample

    try:
        with _bar(store) as on_plan:
            sample(plan, store, machine, on_plan(plan))
    except KeyboardInterrupt:
        done = f"{len(store.rows())} of {plan.images} images are in '{store.folder}'"
        say("interrupted", f"{done}; the same command continues")
        raise typer.Exit(INTERRUPTED) from None


@contextmanager
def _bar(store: BenchmarkFolder) -> Iterator[Any]:
    """Show a progress bar over all images; yields a function from a plan to the callback for finished rows."""

    from nulltta.display.progress import progress_bar

    with ExitStack() as stack:

        def on_plan(plan: Plan) -> OnRows:
            bar = stack.enter_context(
                progress_bar(terminal.notes(), "sampling", "images")
            )  # no bar before there is a plan
            task = bar.add_task("", total=plan.images, completed=len(store.rows()))
            return lambda rows: bar.advance(task, len(rows))

        yield on_plan


def _prompts(
    model: str, count: int, file: Path | None, tuning_file: Path | None
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the reported and the tuning prompts: those of an embedded world, or of two files."""
    from nulltta.benchmark.request import world_prompts
    from nulltta.embedded.worlds import WORLDS

    if file is None and tuning_file is None and model in WORLDS:
        return world_prompts(model, count)
    if file is None or tuning_file is None:
        raise InvalidValue("the prompts of another model come from files: give --prompts-file and --tuning-file")
    return read_prompts([], file, "prompts_file"), read_prompts([], tuning_file, "tuning_file")


def _world(model: str) -> World:
    """Return the world whose target and held-out measures are the defaults: the model's own, or the emoji's."""
    from nulltta.embedded.worlds import WORLDS

    return WORLDS.get(model, WORLDS["embedded"])


def _settings(file: Path | None, model: str) -> list[TunedSettings]:
    """Return the contenders' settings from a file, or those in the package that suit the model."""
    from nulltta.benchmark.tuned import packaged_settings, read_settings

    with blaming("settings"):
        return read_settings(file or packaged_settings(model))


def _given(**settings: Any) -> dict[str, Any]:
    """The settings that were given on the command line."""
    return {name: value for name, value in settings.items() if value is not None}
