"""How small can the file of a learnt null text be? Its size, its error and the change of the image at each rank.

    python studies/low_rank.py [--prompts 16 --rank 1 --rank 2 --rank 4 --rank 8 --reward clip] [any setting of `align`]

The images are exact replays with the recorded noise, under φ'_t in full and as each file gives it back. The script
prints two Markdown tables and writes studies/results/low_rank.json.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch import Tensor

import nulltta
from nulltta import NullText, align, rewards
from nulltta.cli.flags import config_flags
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, Reward
from nulltta.embedded.grammar import test_prompts
from nulltta.null_text.low_rank import relative_error
from nulltta.null_text.replay import replay
from nulltta.runs import record
from nulltta.scoring import score

RESULTS = Path(__file__).parent / "results" / "low_rank.json"
FIRST = 32  # as in studies/transfer.py


@config_flags
def low_rank(
    prompts: int = 16,
    rank: Annotated[
        list[int] | None, typer.Option(help="A rank to store files at; may be repeated. [1, 2, 4 and 8]")
    ] = None,
    seed: int = 0,
    reward: str = "clip",
    model: str = "embedded",
    out: Path = RESULTS,
    *,
    settings: dict[str, Any],
) -> None:
    """Measure files of several ranks."""
    adapted, target, ranks = nulltta.load_model(model), rewards.load(reward), rank or [1, 2, 4, 8]
    config = NullTTAConfig.preset(model, **settings)
    learnt: list[NullText] = []
    asked = test_prompts(FIRST + prompts)[FIRST:]
    for start in range(0, prompts, 8):
        learnt += align(adapted, asked[start : start + 8], target, config=config, seed=seed).null_text
        print(f"learnt {len(learnt)}/{prompts}", file=sys.stderr)
    found: dict[str, Any] = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "model": model, "prompts": prompts, "seed": seed, "reward": reward,
        "config": asdict(config), "versions": record.versions(), "forms": forms(learnt, ranks),
        "files": files(adapted, target, learnt, ranks),
    }  # fmt: skip
    print(f"{form_table(found['forms'])}\n\n{file_table(found['files'])}")
    out.parent.mkdir(parents=True, exist_ok=True)
    record.save(found, out)


def forms(learnt: Sequence[NullText], ranks: Sequence[int]) -> list[dict[str, Any]]:
    """Approximate the stack (T, L, D) of differences at each rank, arranged as matrices in three ways.

    Returns:
        One row per arrangement and rank: the mean relative error of the best approximation, and how many numbers its
        factors hold.
    """
    rows = []
    stacks = [
        torch.stack([value["encoder_hidden_states"] for value in n.values]) - n.null["encoder_hidden_states"]
        for n in learnt
    ]
    T, L, D = stacks[0].shape
    shapes: dict[str, tuple[Callable[[Tensor], Tensor], int]] = {
        "one row per step: (T, L·D)": (lambda x: x.flatten(1)[None], T + L * D),
        "one matrix per step: T × (L, D)": (lambda x: x, T * (L + D)),
        "one row per token: (L, T·D)": (lambda x: x.transpose(0, 1).flatten(1)[None], L + T * D),
    }
    for name, (matrices, numbers) in shapes.items():
        spectra = [torch.linalg.svdvals(matrices(stack)) for stack in stacks]
        for r in ranks:
            errors = [float(values[:, r:].norm() / values.norm()) for values in spectra]
            rows.append({"form": name, "rank": r, "numbers": r * numbers, "error": sum(errors) / len(errors)})
    return rows


def files(model: GuidedModel, target: Reward, learnt: Sequence[NullText], ranks: Sequence[int]) -> list[dict[str, Any]]:
    """Save every null text in each form and measure, over the null texts, its bytes, its relative error, and the change
    of image and reward."""
    plain = [_image(model, n, plain=True) for n in learnt]
    whole = [_image(model, n) for n in learnt]
    gain = _mean(_score(target, n, a) - _score(target, n, b) for n, a, b in zip(learnt, whole, plain, strict=True))
    rows = []
    forms: dict[str, dict[str, Any]] = {"in full, with noise": {"noise": True}, "float16": {}}
    for name, options in (forms | {f"rank {r}": {"rank": r} for r in ranks}).items():
        sizes, errors, changes, gains = [], [], [], []
        for null_text, image, before in zip(learnt, whole, plain, strict=True):
            kept, size = _through_a_file(null_text, options)
            again = _image(model, replace(kept, latents=null_text.latents, noise=null_text.noise))
            sizes.append(size)
            errors.append(_error(kept, null_text))
            changes.append((again - image).abs())
            gains.append(_score(target, null_text, again) - _score(target, null_text, before))
        rows.append({
            "file": name, "bytes": round(_mean(sizes)), "error": _mean(errors), "worst_error": max(errors),
            "mean_change": float(torch.stack(changes).mean()), "largest_change": float(torch.stack(changes).max()),
            "gain": _mean(gains), "share_of_gain": _mean(gains) / gain,
        })  # fmt: skip
        print(rows[-1], file=sys.stderr)
    return rows


def _through_a_file(null_text: NullText, options: Mapping[str, Any]) -> tuple[NullText, int]:
    """Save and load a null text, and return it with the size of its file in bytes."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "null-text.safetensors"
        null_text.save(path, **options)
        return NullText.load(path), path.stat().st_size


def _image(model: GuidedModel, null_text: NullText, *, plain: bool = False) -> Tensor:
    return replay(model, null_text, exact=True, plain=plain)


def _score(target: Reward, null_text: NullText, image: Tensor) -> float:
    with torch.no_grad():
        return float(score(target, image, [null_text.prompt]))


def _error(kept: NullText, exact: NullText) -> float:
    change, truth = (
        torch.stack([value["encoder_hidden_states"] for value in n.values]) - exact.null["encoder_hidden_states"]
        for n in (kept, exact)
    )
    return relative_error(change, truth)


def _mean(values: Any) -> float:
    values = list(values)
    return float(sum(values) / len(values))


def form_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format one row per arrangement, one column per rank."""
    ranks = list(dict.fromkeys(row["rank"] for row in rows))
    lines = [f"| the differences as | {' | '.join(f'r = {r}' for r in ranks)} |", "|---" * (len(ranks) + 1) + "|"]
    for form in dict.fromkeys(row["form"] for row in rows):
        cells = [f"{row['error']:.3f} ({row['numbers']})" for row in rows if row["form"] == form]
        lines.append(f"| {form} | {' | '.join(cells)} |")
    return "\n".join(lines)


def file_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Format one row per form of the file."""
    lines = [
        "| file | kB | relative error (worst) | image: mean change (largest) | gain kept |",
        "|---|---|---|---|---|",
    ]
    for r in rows:
        error = f"{r['error']:.2g} ({r['worst_error']:.2g})"
        change = f"{r['mean_change']:.2g} ({r['largest_change']:.2g})"
        lines.append(f"| {r['file']} | {r['bytes'] / 1000:.0f} | {error} | {change} | {r['share_of_gain']:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(low_rank)
