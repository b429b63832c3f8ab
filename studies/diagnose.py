"""Does `nulltta diagnose` tell a hacked reward from a sound one? Runs of the embedded model, and their verdicts.

    python studies/diagnose.py [--prompts 8 --seeds 1 --folder FOLDER]

Each run is `nulltta align` on the same held-out prompts and seeds, and its diagnosis that of `nulltta diagnose` on its
folders: target `clip`; target `colourfulness`; its sum with `clip`; `colourfulness` with
`kl_target`.
The script prints a Markdown table with a row per run, and writes studies/results/diagnose.json and
docs/images/diagnose.png. A run whose folder is there is not sampled again.
"""

from __future__ import annotations

import contextlib
import io
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
import typer
from PIL import Image, ImageDraw

from nulltta.cli import main as nulltta
from nulltta.embedded.grammar import test_prompts
from nulltta.images import save_png
from nulltta.runs import record

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "studies" / "results" / "diagnose.json"
PICTURE = ROOT / "docs" / "images" / "diagnose.png"
RUNS: Mapping[str, Sequence[str]] = {
    "clip": ("--reward", "clip"),
    "colourfulness": ("--reward", "colourfulness"),
    "colourfulness + 4*clip": ("--reward", "colourfulness + 4*clip"),
    "colourfulness, kl_target 2": ("--reward", "colourfulness", "--kl-target", "2"),
}
FIRST = 64
"""The first prompt of the list that is used; studies/guard.py has those before."""


def diagnose(
    prompts: int = 8,
    seeds: int = 1,
    model: str = "embedded",
    folder: Path = ROOT / "build" / "diagnose",
    out: Path = RESULTS,
    picture: Path = PICTURE,
) -> None:
    """Align the missing runs, diagnose all, and print the tables."""
    chosen = test_prompts(FIRST + prompts)[FIRST:]
    found: dict[str, Any] = {}
    folders: dict[str, list[Path]] = {}
    for name, words in RUNS.items():
        places = folders[name] = [folder / re.sub(r"[^a-z0-9_]+", "-", name) / str(seed) for seed in range(seeds)]
        for seed, place in enumerate(places):
            if not _finished(place, prompts):
                call("align", "--model", model, *words, "--seed", str(seed), "--out", str(place), "--", *chosen)
        found[name] = json.loads(call("diagnose", "--json", *map(str, places)))
        command = ["nulltta", "align", *words, "--prompts", "prompts.txt", "--seed", "0", "--out", "0"]
        found[name] |= {"folders": [str(seed) for seed in range(seeds)], "command": shlex.join(command)}
        found[name]["kl"] = spent(places)
    print(markdown(found))
    out.parent.mkdir(parents=True, exist_ok=True)
    record.save({
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "model": model, "prompts": chosen, "seeds": list(range(seeds)),
        "threads": torch.get_num_threads(), "versions": record.versions(), "runs": found,
    }, out)  # fmt: skip
    picture.parent.mkdir(parents=True, exist_ok=True)
    save_png(gallery({name: places[0] for name, places in folders.items()}), picture)


def call(*words: str) -> str:
    """Run a command of the command line and return what it prints.

    Raises:
        RuntimeError: if it fails.
    """
    with contextlib.redirect_stdout(io.StringIO()) as shown:
        code = nulltta(list(words))
    if code:
        raise RuntimeError(f"nulltta {words[0]} ended with {code}")
    return shown.getvalue()


def spent(folders: Sequence[Path]) -> dict[str, float]:
    """Return the largest number of nats that a denoising step spent, and the mean total of a picture."""
    rows = [entry["kl"] for folder in folders for entry in _record(folder)["results"]]
    return {
        "largest_step": max(row["largest_step"] for row in rows),
        "total": sum(row["total"] for row in rows) / len(rows),
    }


def markdown(runs: Mapping[str, Any]) -> str:
    """Format a row per run: its gains, what withstands small changes, and the verdict, with its reasons below."""
    names = list(
        dict.fromkeys(row["name"] for run in runs.values() for row in run["measures"] if row["role"] != "target")
    )
    header = ["run", "target", *names, "high frequencies", "left of the gain", "verdict"]
    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    for name, run in runs.items():
        rows = {row["name"]: row for row in run["measures"]}
        target = next(row for row in run["measures"] if row["role"] == "target")
        left = [each["share"] for each in run["survival"]]
        cells = [
            _cell(target["gain"]), *(_cell(rows[other]["gain"]) if other in rows else "" for other in names),
            _cell(run["texture"]), f"{min(left):.0%} to {max(left):.0%}" if left else "",
            run["verdict"]["kind"],
        ]  # fmt: skip
        lines.append(f"| {' | '.join([name, *cells])} |")
    reasons = [
        f"- {name}: {run['verdict']['sentence']} {'; '.join(run['verdict']['reasons'])}." for name, run in runs.items()
    ]
    return "\n".join([*lines, "", *reasons])


def _cell(gain: Mapping[str, float]) -> str:
    return f"{gain['mean']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f})"


def gallery(folders: Mapping[str, Path], rows: int = 4, side: int = 112) -> Image.Image:
    """Draw plain sampling and every run in columns, one row per prompt, under the prompt and the names of the runs."""
    line, first = 16, next(iter(folders.values()))
    entries = _record(first)["results"][:rows]
    columns = {"plain": (first, "plain"), **{name: (folder, "aligned") for name, folder in folders.items()}}
    sheet = Image.new("RGB", (len(columns) * (side + 34), line + len(entries) * (side + 2 * line)), "white")
    draw = ImageDraw.Draw(sheet)
    for column, (name, (folder, way)) in enumerate(columns.items()):
        left = column * (side + 34)
        draw.text((left, 2), name, "black")
        for row, entry in enumerate(_record(folder)["results"][:rows]):
            top = line + row * (side + 2 * line)
            with Image.open(folder / entry["files"][way]) as image:
                sheet.paste(image.convert("RGB").resize((side, side), Image.Resampling.LANCZOS), (left, top + line))
            if not column:
                draw.text((left, top + 2), entry["prompt"], "gray")
    return sheet


def _finished(folder: Path, prompts: int) -> bool:
    """Say whether a run is there."""
    return (folder / "result.json").exists() and len(_record(folder)["results"]) == prompts


def _record(folder: Path) -> Any:
    return json.loads((folder / "result.json").read_text(encoding="utf-8"))


if __name__ == "__main__":
    typer.run(diagnose)
