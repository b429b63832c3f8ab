"""What keeps a reward from being hacked? A guard, a sum, the annealed weights and kl_target, under `colourfulness`.

    python studies/guard.py [--prompts 16 --batch-size 8] [--only "kl_target 2"]

Every arm aligns the same held-out prompts, prompt i from the noise of seed i. Each is compared, paired by prompt, with
plain sampling (the gain), and the guard with each alternative (the difference): 95% bootstrap intervals over prompts,
and for the differences p-values of a paired permutation test of signs, corrected by Holm's method over all of them.
`clip` is the guard's reward; `clip-b`, the facts and the high frequencies are optimised or watched by no arm. The
script prints two Markdown tables and writes studies/results/guard.json; an arm that the file holds already, with the
same settings, is not run again.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.contracts import GuidedModel
from nulltta.embedded.grammar import test_prompts
from nulltta.evaluation.bootstrap import Gain, paired_gain
from nulltta.evaluation.measures import Measure, held_out_measures, high_frequency
from nulltta.evaluation.significance import holm, sign_test
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "guard.json"
TARGET, WATCHED = "colourfulness", "clip"
GUARD = "guard"
ARMS: Mapping[str, dict[str, Any]] = {
    "plain sampling": {"method": "plain"},
    "selection only": {"inner_steps": (0, 0)},
    "the preset (annealed weights)": {},
    "sum with 4 clip": {"reward": f"{TARGET} + 4*{WATCHED}"},
    "kl_target 2": {"kl_target": 2.0},
    "kl_target 0.5": {"kl_target": 0.5},
    "weights of 0.2": {"kl_weight": 0.2},
    "weights of 20": {"kl_weight": 20.0},
}
"""The arguments of `align` and the settings of each arm that differ from the preset. The guard was removed by what came
of this study; its row in the file is that of commit 93f1447."""
COMPARED = (TARGET, WATCHED, "clip-b")


def guard(
    prompts: int = 16,
    batch_size: int = 8,
    only: Annotated[list[str] | None, typer.Option(help="Run these arms again, and no others.")] = None,
    model: str = "embedded",
    out: Path = RESULTS,
) -> None:
    """Run the missing arms, then print all."""
    found: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"arms": {}}
    loaded, chosen = nulltta.load_model(model), test_prompts(prompts)
    measures = {name: rewards.load(name) for name in (TARGET, WATCHED)} | held_out_measures(loaded)
    for name, changes in ARMS.items():
        asked = json.loads(
            json.dumps({"changes": changes, "prompts": prompts, "batch_size": batch_size, "model": model})
        )
        there = found["arms"].get(name)
        if (only and name not in only) or (not only and there and there["asked"] == asked):
            continue
        row = run(loaded, chosen, {**measures, "high-frequency": high_frequency}, changes, batch_size)
        found["arms"][name] = {"asked": asked, **row}
        found |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": torch.get_num_threads(), "prompts": chosen,
                  "preset": asdict(NullTTAConfig.preset(model)), "versions": record.versions()}  # fmt: skip
        out.parent.mkdir(parents=True, exist_ok=True)
        record.save(found, out)
        print(f"{name}: {row['seconds']:.1f} s per prompt", file=sys.stderr, flush=True)
    arms = {name: found["arms"][name] for name in (*ARMS, GUARD) if name in found["arms"]}
    print(f"{gain_table(arms)}\n\n{difference_table(arms)}")


def run(
    model: GuidedModel, prompts: Sequence[str], measures: Mapping[str, Measure], changes: Mapping[str, Any], batch: int
) -> dict[str, Any]:
    """Return the scores of one arm by measure and prompt, the nats spent per prompt, and the seconds per prompt."""
    own = {name: value for name, value in changes.items() if name in ("guard", "reward", "method")}
    config = NullTTAConfig.preset(model.name, **{name: value for name, value in changes.items() if name not in own})
    scores: dict[str, list[float]] = {name: [] for name in measures}
    nats: list[float] = []
    began = time.perf_counter()
    for start in range(0, len(prompts), batch):
        part = prompts[start : start + batch]
        seeds = range(start, start + len(part))
        result = nulltta.align(model, part, config=config, seed=seeds, **{"reward": TARGET, **own})
        nats += torch.stack([step.kl for step in result.trace]).sum(0).tolist()
        with torch.no_grad():
            for name, measure in measures.items():
                scores[name] += measure(result.images, part).tolist()
    return {"scores": scores, "kl": nats, "seconds": (time.perf_counter() - began) / len(prompts)}


def gain_table(arms: Mapping[str, Any]) -> str:
    """Format one row per arm: its gain over plain sampling, in each measure."""
    plain, *others = arms
    names = list(arms[plain]["scores"])
    lines = [f"| | {' | '.join(names)} |", "|---" * (len(names) + 1) + "|"]
    means = (f"{np.mean(arms[plain]['scores'][name]):.4f}" for name in names)
    lines.append(f"| {plain} | {' | '.join(means)} |")
    for arm in others:
        cells = (cell(difference(arms[arm], arms[plain], name)) for name in names)
        lines.append(f"| {arm} | {' | '.join(cells)} |")
    return "\n".join(lines)


def difference_table(arms: Mapping[str, Any]) -> str:
    """Format one row per alternative: the guard's scores minus its own, and Holm's p-values."""
    rivals = [arm for arm in list(arms)[1:] if arm != GUARD]
    if GUARD not in arms or not rivals:
        return ""
    pairs = [(arm, name) for arm in rivals for name in COMPARED]
    p_values = holm([sign_test(_gains(arms[GUARD], arms[arm], name)) for arm, name in pairs])
    cells = {
        pair: f"{cell(difference(arms[GUARD], arms[pair[0]], pair[1]))}, p = {p:.2g}"
        for pair, p in zip(pairs, p_values, strict=True)
    }
    lines = [f"| the guard minus | {' | '.join(COMPARED)} |", "|---" * (len(COMPARED) + 1) + "|"]
    return "\n".join([*lines, *(f"| {arm} | {' | '.join(cells[arm, name] for name in COMPARED)} |" for arm in rivals)])


def difference(arm: Mapping[str, Any], other: Mapping[str, Any], measure: str) -> Gain:
    """Compare two arms, paired by prompt."""
    return paired_gain(other["scores"][measure], arm["scores"][measure], np.random.default_rng(0))


def cell(gain: Gain) -> str:
    """Format a gain with its interval."""
    return f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})"


def _gains(arm: Mapping[str, Any], other: Mapping[str, Any], measure: str) -> np.ndarray:
    ours, theirs = (np.asarray(each["scores"][measure], dtype=np.float64) for each in (arm, other))
    return np.asarray(ours - theirs)


if __name__ == "__main__":
    typer.run(guard)
