"""Does `nulltta diagnose` tell a hacked reward from a sound one? Four runs of the embedded model, and their verdicts.

    python studies/diagnose.py [--prompts 8 --seeds 2 --folder FOLDER]

Each run is `nulltta align` on the same held-out prompts and seeds, and its diagnosis that of `nulltta diagnose` on its
folders: target `clip`; target `colourfulness`; `colourfulness` in a sum with `clip`; `colourfulness` with `kl_target`.
The script prints a Markdown table per run, and writes studies/results/diagnose.json and
docs/images/diagnose.png. A run whose folder is there is not sampled again.
"""

from __future__ import annotations

import contextlib
import io
import json
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
    "colourfulness, kl_target 2": ("--reward", "colourfulness", "--kl-target", "2"),
    "colourfulness + 4*clip": ("--reward", "colourfulness + 4*clip"),
}
FIRST = 64
"""The first prompt of the list that is used; studies/guard.py has those before."""


def diagnose(
    prompts: int = 8,
    seeds: int = 2,
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
        places = folders[name] = [folder / name.replace(" ", "-").replace(",", "") / str(seed) for seed in range(seeds)]
        for seed, place in enumerate(places):
            if not _finished(place, prompts):
                call("align", "--model", model, *words, "--seed", str(seed), "--out", str(place), "--", *chosen)
        found[name] = json.loads(call("diagnose", "--json", *map(str, places)))
        command = ["nulltta", "align", *words, "--prompts", "prompts.txt", "--seed", "0", "--out", "0"]
        found[name] |= {"folders": [str(seed) for seed in range(seeds)], "command": shlex.join(command)}
        found[name]["kl"] = spent(places)
        print(f"{markdown(name, found[name])}\n", flush=True)
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


def markdown(name: str, found: Mapping[str, Any]) -> str:
    """Format one run: a row per measure, then what withstands small changes, the diversity and the verdict."""
    lines = [
        f"**{name}**",
        "",
        "| measure | role | gain (95% interval) | in SD | rose and fell |",
        "|---|---|---|---|---|",
    ]
    for row in [*found["measures"], {"name": "high frequencies", "role": "texture", "gain": found["texture"]}]:
        gain = row["gain"]
        joint = "" if row.get("joint_fall") is None or row["role"] == "target" else f"{row['joint_fall']:.0%}"
        in_spreads = f"{gain['mean'] / gain['spread']:+.2f}" if gain["spread"] else "–"
        interval = f"{gain['mean']:+.4f} ({gain['low']:+.4f} to {gain['high']:+.4f})"
        lines.append(f"| {row['name']} | {row['role']} | {interval} | {in_spreads} | {joint} |")
    left = ", ".join(f"{each['share']:.0%} after {each['perturbation']}" for each in found["survival"])
    plain, aligned = found["diversity"] or (float("nan"), float("nan"))
    said = found["verdict"]
    return "\n".join([
        *lines, "", f"Of the gain is left: {left}. Vendi score: {plain:.2f} plain, {aligned:.2f} aligned. "
        f"Verdict ({said['kind']}): {said['sentence']}", *(f"- {reason}" for reason in said["reasons"]),
    ])  # fmt: skip


def gallery(folders: Mapping[str, Path], rows: int = 6, side: int = 128) -> Image.Image:
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
