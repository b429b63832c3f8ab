"""Write the request and the results of a run as JSON, from which the run can be repeated."""

from __future__ import annotations

import json
import math
import platform
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nulltta
from nulltta.contracts import Step
from nulltta.evaluation.comparison import Comparison
from nulltta.files import atomic
from nulltta.runs.request import AlignRequest
from nulltta.versions import version_of

FORMAT = 1
"""The version of the format of result.json."""
_NUMBERS = re.compile(r'\[\n([^][{}"]*)\n *]')  # a list of numbers in indented JSON, whose strings hold no newline


def versions() -> dict[str, str | None]:
    """Return the versions of what determines the numbers of a run."""
    packages = {name: version_of(name) for name in ("torch", "diffusers", "transformers")}
    return {"nulltta": nulltta.__version__, "python": platform.python_version(), **packages}


def of_request(request: AlignRequest) -> dict[str, Any]:
    """Return what is known before the run: the settings, the command that repeats it, and the versions."""
    return {
        "format": FORMAT, "command": shlex.join(request.command()), "arguments": request.arguments(),
        "device": request.settings.device, "dtype": request.settings.dtype, "versions": versions(),
    }  # fmt: skip


def of_comparison(comparison: Comparison, files: Mapping[str, str]) -> dict[str, Any]:
    """Return the scores, files, trace and spent KL divergence of one prompt."""
    return {
        "prompt": comparison.prompt,
        "seed": comparison.seed,
        "files": dict(files),
        "scores": {name: asdict(score) for name, score in comparison.scores.items()},
        "kl": _spent(comparison.trace),
        "initial_rewards": comparison.initial_rewards.tolist(),
        "trace": [_of_step(step) for step in comparison.trace],
    }


def save(record: Mapping[str, Any], path: Path) -> None:
    """Write a record whole or not at all, with numbers to seven digits and null for those that are not finite."""
    text = json.dumps(_plain(record), indent=1, ensure_ascii=False)
    with atomic(path) as temporary:
        temporary.write_text(_NUMBERS.sub(_on_one_line, text) + "\n", encoding="utf-8")


def _spent(trace: Sequence[Step]) -> dict[str, float]:
    """Return the nats that a prompt spent in its most expensive denoising step and in all of them together."""
    nats = [float(step.kl[0]) for step in trace]
    return {"largest_step": max(nats, default=0.0), "total": sum(nats)}


def _of_step(step: Step) -> dict[str, Any]:
    """Return a step of one prompt; `selected` is the index of the candidate that sampling went on from."""
    return {
        "index": step.index, "timestep": step.timestep, "inner_rewards": step.inner_rewards[:, 0].tolist(),
        "candidate_rewards": step.candidate_rewards[0].tolist(), "selected": int(step.selected[0]),
        "kl": float(step.kl[0]),
    }  # fmt: skip


def _on_one_line(numbers: re.Match[str]) -> str:
    """Return a list of numbers without its line breaks."""
    return f"[{' '.join(numbers[1].split())}]"


def _plain(value: Any) -> Any:
    """Return a value in JSON's own types."""
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value
