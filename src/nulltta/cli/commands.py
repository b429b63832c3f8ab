"""All commands, and how their errors are told."""

from __future__ import annotations

import logging
import sys
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Annotated

import typer

from nulltta import __version__
from nulltta.cli import INTERRUPTED, align, batch, bench, diagnose, doctor, export, fit, replay, rewards, serve, ui
from nulltta.cli.messages import describe, say
from nulltta.cli.usage import describe_usage
from nulltta.display import terminal
from nulltta.errors import NullTTAError

USAGE_ERROR = 2
ANYWHERE = ("--debug", "--quiet", "--verbose")
"""Flags that belong to every command and may stand anywhere before a "--"."""

app = typer.Typer(
    help="Test-time alignment of text-to-image diffusion models by null-text optimisation.",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for command in (
    align.align, fit.fit, export.export, diagnose.diagnose, replay.replay, batch.batch, serve.serve, ui.ui,
    doctor.doctor,
):  # fmt: skip
    environment = {"auto_envvar_prefix": serve.ENVIRONMENT} if command is serve.serve else None
    app.command(context_settings=environment)(command)
app.add_typer(rewards.app, name="rewards")
app.add_typer(bench.app, name="bench")


def run(argv: Sequence[str]) -> int:
    """Run a command line and return its exit code, with errors as one line; see `nulltta.cli.main`."""
    words, asked = _without_flags(argv)
    try:
        with _verbosity(quiet="--quiet" in asked, verbose="--verbose" in asked):
            return int(parser()(words, prog_name="nulltta", standalone_mode=False) or 0)
    except typer.Abort:  # Ctrl-C outside of what a command guards itself
        say("interrupted", "nothing was written")
        return INTERRUPTED
    except typer.TyperException as error:
        if message := describe_usage(error):
            say("error", message)
        return USAGE_ERROR
    except NullTTAError as error:
        if "--debug" in asked:
            traceback.print_exception(error)
        say("error", describe(error))
        return error.exit_code


@cache
def parser() -> Callable[..., int | None]:
    """Return the parser of all commands, which takes a tenth of a second to build."""
    return typer.main.get_command(app)


def _without_flags(argv: Sequence[str]) -> tuple[list[str], set[str]]:
    """Return the words of a command line without those of `ANYWHERE`, and which of these were among them."""
    end = argv.index("--") if "--" in argv else len(argv)
    return [word for i, word in enumerate(argv) if word not in ANYWHERE or i > end], set(argv[:end]) & set(ANYWHERE)


@contextmanager
def _verbosity(*, quiet: bool, verbose: bool) -> Iterator[None]:
    """Show on stderr, within a `with` block, errors alone, or also what this package does meanwhile.

    The log messages of other libraries are not shown.
    """
    package = logging.getLogger("nulltta")
    handler: logging.Handler = logging.StreamHandler(sys.stderr) if verbose else logging.NullHandler()
    handler.addFilter(lambda message: message.name.startswith("nulltta"))
    handler.setFormatter(logging.Formatter("%(asctime)s %(name)s: %(message)s", "%H:%M:%S"))
    level = package.level
    logging.getLogger().addHandler(handler)  # without one, Python prints the warnings of every library
    try:
        package.setLevel(logging.DEBUG if verbose else level)
        with terminal.quiet_notes(quiet):
            yield
    finally:
        package.setLevel(level)
        logging.getLogger().removeHandler(handler)


@app.callback(invoke_without_command=True)
def _nulltta(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    debug: Annotated[  # noqa: ARG001 - this and the next two are read by `run`, so that they may stand anywhere
        bool, typer.Option("--debug", help="Print the traceback of an error too; with any command.")
    ] = False,
    quiet: Annotated[  # noqa: ARG001
        bool, typer.Option("--quiet", help="Print results and errors only; with any command.")
    ] = False,
    verbose: Annotated[  # noqa: ARG001
        bool, typer.Option("--verbose", help="Print what is done meanwhile, with the time; with any command.")
    ] = False,
) -> None:
    if version:
        print(f"nulltta {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
