"""`nulltta doctor`: the machine, what is installed, and what a run would take here."""

from __future__ import annotations

import json
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nulltta.cli.flags import DEVICE, REWARD_SOURCE, config_flags
from nulltta.cli.messages import quiet
from nulltta.config import NullTTAConfig
from nulltta.runs.request import RunSettings

if TYPE_CHECKING:
    from nulltta.runs.doctor import Estimate, Machine

PACKAGES = ("torch", "diffusers", "transformers", "accelerate", "gradio", "fastapi", "ray")


@config_flags
def doctor(
    model: Annotated[str, typer.Option(help="'embedded', a diffusers directory, or a hub id.")] = "embedded",
    reward: Annotated[str, typer.Option(help="What would be raised.")] = "clip",
    reward_source: Annotated[str | None, REWARD_SOURCE] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts at a time.")] = 1,
    device: Annotated[str | None, DEVICE] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(metavar="TYPE", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)"),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="As JSON.")] = False,
    *,
    settings: dict[str, Any],
) -> None:
    """Say what this machine is and how long a prompt would take on it, from a few timed evaluations."""
    config = NullTTAConfig.preset(model, **settings)
    with quiet():
        from nulltta.runs.doctor import estimate, machine
        from nulltta.runs.loading import load, usable_device

        shared = RunSettings(
            config=config, model=model, reward=reward, reward_source=reward_source, batch_size=batch_size,
            device=device, dtype=dtype,
        )  # fmt: skip
        about = machine(usable_device(device))
        loaded = load(shared)
        found = estimate(loaded.model, loaded.reward, config, batch_size)
    if as_json:
        print(json.dumps({"machine": asdict(about), "packages": _packages(), "estimate": asdict(found)}, indent=1))
    else:
        _show(about, found, config, batch_size)


def _packages() -> dict[str, str | None]:
    return {name: _version(name) for name in PACKAGES}


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _show(about: Machine, found: Estimate, config: NullTTAConfig, batch_size: int) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    installed = ", ".join(f"{name} {number}" for name, number in _packages().items() if number)
    gib = 2**30
    parts = {"inner steps": found.inner, "candidates": found.candidates, "references": found.references}
    rows = [
        ("device", f"{about.device}, {about.free / gib:.1f} of {about.total / gib:.1f} GiB free"),
        ("computes in", ", ".join(about.dtypes)),
        ("installed", installed),
        ("a prompt", f"{found.seconds:.1f} s in batches of {batch_size}, at {config.num_inference_steps} steps"),
        ("", ", ".join(f"{seconds:.1f} s {part}" for part, seconds in parts.items())),
        ("memory", f"{found.weights / gib:.2f} GiB of weights, {found.activations / gib:.2f} GiB an inner step"),
        ("", "fits" if found.fits else "does not fit: --micro-batch is lowered as the run goes, or give it yourself"),
    ]
    for name, value in rows:
        table.add_row(name, value)
    Console().print(table)
