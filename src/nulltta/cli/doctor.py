"""`nulltta doctor`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from nulltta.cli.flags import run_flags
from nulltta.cli.messages import quiet
from nulltta.runs.request import RunSettings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from nulltta.runs.doctor import Estimate, Machine

GIB = 2**30


@run_flags(batch_size=1)
def doctor(
    *,
    settings: RunSettings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Report on this machine and estimate the time and memory per prompt, from a few timed evaluations."""
    with quiet():
        from nulltta.runs.doctor import examine

        machine, packages, estimate = examine(settings)
    if as_json:
        found = {"machine": asdict(machine), "packages": packages, "estimate": asdict(estimate)}
        print(json.dumps(found, indent=1))
    else:
        _print(machine, packages, estimate, settings)


def _print(machine: Machine, packages: Mapping[str, str | None], estimate: Estimate, settings: RunSettings) -> None:
    from rich.console import Console
    from rich.table import Table

    parts = {"inner steps": estimate.inner, "candidates": estimate.candidates, "references": estimate.references}
    rows = [
        ("device", f"{machine.device}, {machine.free / GIB:.1f} of {machine.total / GIB:.1f} GiB free"),
        ("computes in", ", ".join(machine.dtypes)),
        ("installed", ", ".join(f"{name} {number}" for name, number in packages.items() if number)),
        ("per prompt", f"{estimate.seconds:.1f} s in batches of {settings.batch_size}, "
                       f"at {settings.config.num_inference_steps} steps"),
        ("", ", ".join(f"{seconds:.1f} s {part}" for part, seconds in parts.items())),
        ("memory", f"{estimate.weights / GIB:.2f} GiB of weights, "
                   f"{estimate.activations / GIB:.2f} GiB per inner step"),
        ("", "fits" if estimate.fits else "does not fit: the run will lower --micro-batch itself, or give it"),
    ]  # fmt: skip
    table = Table.grid(padding=(0, 2))
    for row in rows:
        table.add_row(*row)
    Console().print(table)
