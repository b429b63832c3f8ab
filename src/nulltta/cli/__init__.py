"""The command line: each command parses its flags, calls one function of the package and prints what came of it.

Nothing heavy is imported before a command needs it, so that `--help` and mistakes are answered at once.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import Annotated

import typer

from nulltta import __version__
from nulltta.cli import align, batch, bench, diagnose, doctor, export, fit, replay, rewards, serve, ui
from nulltta.cli.messages import describe, say
from nulltta.cli.usage import describe_usage
from nulltta.errors import NullTTAError

USAGE_ERROR = 2

app = typer.Typer(
    help="Test-time alignment of text-to-image diffusion models by null-text optimisation.",
    add_completion=False,
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


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    The code is 0 after success, 2 after a mistake of the user's, 1 after another failure, and 130 after Ctrl-C. An
    error is one line on stderr; the word --debug anywhere before a "--" adds the traceback.

    Args:
        argv: the words of the command line; those of the process if None.
    """
    words, debug = _without_debug(sys.argv[1:] if argv is None else argv)
    try:
        return int(app(words, prog_name="nulltta", standalone_mode=False) or 0)
    except typer.TyperException as error:
        if message := describe_usage(error):
            say("error", message)
        return USAGE_ERROR
    except NullTTAError as error:
        if debug:
            traceback.print_exception(error)
        say("error", describe(error))
        return error.exit_code


def _without_debug(argv: Sequence[str]) -> tuple[list[str], bool]:
    """Return the words of a command line without --debug, and whether it was among them."""
    end = argv.index("--") if "--" in argv else len(argv)
    words = [word for i, word in enumerate(argv) if word != "--debug" or i > end]
    return words, len(words) < len(argv)


@app.callback(invoke_without_command=True)
def _nulltta(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.", is_eager=True)] = False,
    debug: Annotated[  # noqa: ARG001 - read by `main`, so that it may stand anywhere
        bool, typer.Option("--debug", help="Print the traceback of an error too; with any command.")
    ] = False,
) -> None:
    if version:
        print(f"nulltta {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
