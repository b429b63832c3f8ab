"""The command line. Nothing heavy is imported before a command needs it: `--help` answers at once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nulltta import __version__
from nulltta.cli import batch, bench, doctor, flags, replay, rewards, serve, ui
from nulltta.cli.flags import config_flags
from nulltta.cli.messages import INTERRUPTED, quiet, say
from nulltta.config import NullTTAConfig
from nulltta.errors import NullTTAError
from nulltta.runs.request import AlignRequest, RunSettings, flag, read_prompts
from nulltta.server.settings import ServerSettings as Settings

MISTAKE = 2  # the exit code after a mistake

app = typer.Typer(
    help="Test-time alignment of text-to-image diffusion models by null-text optimisation.",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(bench.app, name="bench")
app.add_typer(rewards.app, name="rewards")
app.command("replay")(replay.replay)
app.command("doctor")(doctor.doctor)
app.command("batch")(batch.batch)
app.command("serve")(serve.serve)
app.command("ui")(ui.ui)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line (sys.argv's by default): 0; 2 after one line on what was wrong; 130 after Ctrl-C."""
    try:
        return int(app(argv, prog_name="nulltta", standalone_mode=False) or 0)
    except (NullTTAError, typer.TyperException) as error:
        message = error.format_message() if isinstance(error, typer.TyperException) else _in_flags(str(error))
        say("error", message)
        return MISTAKE


@app.callback(invoke_without_command=True)
def _nulltta(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
) -> None:
    if version:
        print(f"nulltta {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command()
@config_flags
def align(
    prompts: Annotated[
        list[str] | None, typer.Argument(metavar="PROMPT...", help="What the pictures should show.", show_default=False)
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="More prompts, one a line.")
    ] = None,
    reward: Annotated[str, flags.REWARD] = "clip",
    reward_source: Annotated[str | None, flags.REWARD_SOURCE] = None,
    model: Annotated[str, flags.MODEL] = "embedded",
    seed: Annotated[int, typer.Option(help="Of the noise, the same for every prompt.")] = 0,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where pictures and result.json go.")] = Path("out"),
    negative_prompt: Annotated[str, typer.Option(help="The null text to start from.")] = "",
    guard: Annotated[str | None, flags.GUARD] = None,
    save_null_text: Annotated[
        Literal["small", "exact"] | None,
        typer.Option(metavar="FORM", help="Keep what was learnt, for `replay`: small; or exact, with the run's noise."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time; results do not depend on it.")] = 8,
    micro_batch: Annotated[int | None, flags.MICRO_BATCH] = None,
    method: Annotated[str, flags.METHOD] = "null-tta",
    tiny_decoder: Annotated[str | None, flags.TINY_DECODER] = None,
    compiled: Annotated[bool, flags.COMPILE] = False,
    device: Annotated[str | None, flags.DEVICE] = None,
    dtype: Annotated[flags.Dtype | None, flags.DTYPE] = None,
    *,
    settings: dict[str, Any],
) -> None:
    """Sample pictures of PROMPT whose reward was raised, beside plain ones from the same noise."""
    shared = RunSettings(
        config=NullTTAConfig.preset(model, **settings), model=model, reward=reward, reward_source=reward_source,
        guard=guard, batch_size=batch_size, micro_batch=micro_batch, method=method, tiny_decoder=tiny_decoder,
        compile=compiled, device=device, dtype=dtype,
    )  # fmt: skip
    request = AlignRequest(
        prompts=read_prompts(prompts or [], prompts_file), settings=shared, seed=seed, negative_prompt=negative_prompt,
        save_null_text=save_null_text, out=out,
    )  # fmt: skip
    with quiet():
        from nulltta.runs.align import run

        finished = run(request)
    raise typer.Exit(0 if finished else INTERRUPTED)


def _in_flags(message: str) -> str:
    """Config fields in a message as the flags they are here."""
    from dataclasses import fields

    for name in (
        field.name for kind in (NullTTAConfig, RunSettings, Settings) for field in fields(kind) if "_" in field.name
    ):
        message = message.replace(name, flag(name))
    return message
