"""How strong should normalized attention guidance be on the few-step embedded model? Plain and aligned, by s and α.

    python studies/nag_scale.py [--prompts 32 --draw 0]

Every arm samples the same tuning prompts, each from a noise of its own: plain sampling without guidance, then for each
scale s and share α plain sampling under NAG and the preset's alignment with that guidance, from the empty text; then
alignment from the prompt itself. The script prints a Markdown table of differences from plain sampling without
guidance, paired by prompt, with 95% bootstrap intervals, and writes studies/results/nag_scale.json; an arm that the
file holds already, with the same settings, is not run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import torch
import typer

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.algorithm.randomness import own_seed
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.measures import held_out_measures
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "nag_scale.json"
MODEL, BATCH = "embedded-turbo", 8
SHARES = (0.125, 0.25, 0.5, 1.0)
GUIDED = [(s, alpha) for s, alpha in product((1.0, 2.0, 4.0, 8.0), (0.125, 0.25, 0.5)) if 0.2 < s * alpha < 2.5]


def arms() -> dict[str, tuple[str, NullTTAConfig]]:
    """Return the method and the settings of each arm; the first is plain sampling without guidance."""

    def settings(**changes: Any) -> NullTTAConfig:
        return NullTTAConfig.preset(MODEL, **{"nag_null": "empty", **changes})

    found = {"no guidance": ("plain", settings().without_null_text())}
    for method, (s, alpha) in product(("plain", "null-tta"), GUIDED):
        found[f"{method}, s = {s:g}, α = {alpha:g}"] = (method, settings(nag_scale=s, nag_alpha=alpha))
    for alpha in SHARES:
        found[f"null-tta from the prompt, s = 4, α = {alpha:g}"] = (
            "null-tta", settings(nag_alpha=alpha, nag_null="prompt"),
        )  # fmt: skip
    return found


def nag_scale(prompts: int = 32, draw: int = 0, out: Path = RESULTS) -> None:
    """Run the missing arms, then print all."""
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"arms": {}}
    model, world = nulltta.load_model(MODEL), WORLDS[MODEL]
    chosen = world.tuning_prompts(prompts)
    measures = {world.target: rewards.load(world.target), **held_out_measures(model)}
    for name, (method, config) in arms().items():
        asked = json.loads(json.dumps({"config": asdict(config), "prompts": chosen, "draw": draw}))
        if name in found["arms"] and found["arms"][name]["asked"] == asked:
            continue
        scores = _scores(model, measures, chosen, world.target, method, config, draw)
        found["arms"][name] = {"asked": asked, "scores": scores}
        found |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "versions": record.versions()}
        record.save(found, out)
    print(_table({name: found["arms"][name]["scores"] for name in arms()}))


def _scores(
    model: Any, measures: Mapping[str, Any], prompts: Sequence[str], target: str, method: str, config: NullTTAConfig,
    draw: int,
) -> dict[str, list[float]]:  # fmt: skip
    """Return the scores of one arm by measure and prompt."""
    scores: dict[str, list[float]] = {name: [] for name in measures}
    for start in range(0, len(prompts), BATCH):
        part = list(prompts[start : start + BATCH])
        seeds = [own_seed(draw, prompt) for prompt in part]
        images = nulltta.align(model, part, target, config=config, method=method, seed=seeds, progress=False).images
        with torch.no_grad():
            for name, measure in measures.items():
                scores[name] += measure(images, part).tolist()
    return scores


def _table(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Format one row per arm: its differences from the first arm, in hundredths."""
    first, *_ = found
    names = list(found[first])
    lines = [f"| | {' | '.join(f'Δ {name}, hundredths' for name in names)} |", "|---" * (len(names) + 1) + "|"]
    for arm, scores in found.items():
        gains = [paired_gain(found[first][name], scores[name], np.random.default_rng(0)) for name in names]
        cells = [
            f"({100 * g.plain:.1f})"
            if arm == first
            else f"{100 * g.mean:+.1f} ({100 * g.low:+.1f} to {100 * g.high:+.1f})"
            for g in gains
        ]
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    typer.run(nag_scale)
