"""What does a null text gain that was learnt once, and what does it save where alignment starts from it?

    python studies/fit_forms.py [--target "colourfulness + 4*clip"] [--prompts 64 --seeds 2] [--only "fitted: prompt"]

Null texts of several forms are fitted to the target on training prompts (`nulltta fit`; those that the folder holds are
not fitted again). Then every arm samples the same held-out prompts, each from its own noise. Each arm is compared with
plain sampling, paired by prompt after averaging over seeds: 95% bootstrap intervals over prompts, and p-values of a
paired permutation test of signs, corrected by Holm's method over all cells. Only the target is optimised; the
first held-out scorer guards the fits, except that to colourfulness alone. "vendi" is the effective number of different
pictures among a prompt's seeds, as the first held-out scorer sees them. The script prints Markdown tables and writes
the scores to studies/results/fit_forms.json, by target, from which a run that was stopped goes on.
"""

from __future__ import annotations

import json
import random
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import torch
import typer

import nulltta
from nulltta import NullTTAConfig, rewards
from nulltta.algorithm.budget import spent
from nulltta.baselines import BestOfN
from nulltta.benchmark.contenders import filled
from nulltta.cli import main as nulltta_command
from nulltta.contracts import GuidedModel
from nulltta.embedded import grammar
from nulltta.embedded.scenes import grammar as scenes_grammar
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.bootstrap import paired_gain
from nulltta.evaluation.measures import Measure, held_out_measures, high_frequency, vendi_score
from nulltta.evaluation.significance import holm, sign_test
from nulltta.null_text.fitted import FittedNullText
from nulltta.runs import record

RESULTS = Path(__file__).parent / "results" / "fit_forms.json"
MODELS: Mapping[str, str] = {
    "clip": "embedded", "colourfulness": "embedded", "colourfulness + 4*clip": "embedded", "scenes-clip": "scenes"
}  # fmt: skip
"""The targets with their models. Prompts share little of the direction in which `clip` rises, and half of that of
`colourfulness` (fit_shared.py), which rises at the cost of `clip` when it is alone."""


class Fit(NamedTuple):
    """How a null text is fitted.

    Attributes:
        flags: those of `nulltta fit`.
        prompts: the number of training prompts.
        guarded: whether the first held-out scorer guards it.
    """

    flags: Sequence[str]
    prompts: int = 4000
    guarded: bool = True


HALF = ("--dtype", "bfloat16")
SHORT = ("--updates", "200", "--validate-every", "50", "--prior-weight", "1e-5", *HALF)
RENEG = (
    *("--form", "constant", "--learning-rate", "5e-3", "--num-inference-steps", "30", "--rows", "64"),
    *("--prior-weight", "0", "--kl-weight", "0"),
)
STEPS = ("--form", "steps", "--learning-rate", "0.01", *SHORT)
FITS: Mapping[str, Mapping[str, Fit]] = {
    "clip": {
        "prompt": Fit(("--form", "prompt", "--updates", "600", "--validate-every", "100", *HALF)),
        "steps": Fit(("--form", "steps", "--updates", "300", "--validate-every", "100", *HALF)),
        "constant": Fit(("--form", "constant", "--updates", "300", "--validate-every", "100", *HALF)),
        "constant, as ReNeg": Fit((*RENEG, "--updates", "120", "--validate-every", "40", *HALF)),
    },
    "colourfulness": {
        "constant": Fit(("--form", "constant", *SHORT, "--validate-every", "100"), guarded=False),
    },
    "colourfulness + 4*clip": {
        "steps": Fit(STEPS),
        "prompt": Fit(("--form", "prompt", "--learning-rate", "5e-5", *SHORT, "--updates", "300")),
        "constant": Fit(("--form", "constant", "--learning-rate", "0.01", *SHORT)),
        "steps, 32 prompts": Fit(STEPS, 32),
        "steps, 128 prompts": Fit(STEPS, 128),
        "steps, 512 prompts": Fit(STEPS, 512),
        "steps, 2048 prompts": Fit(STEPS, 2048),
    },
    "scenes-clip": {
        "prompt": Fit(("--form", "prompt", *SHORT, "--updates", "400")),
        "constant": Fit(("--form", "constant", *SHORT)),
    },
}
"""The null texts by target, first that from which test-time optimisation starts. The constant form is ReNeg's idea
(arXiv 2412.19637); "as ReNeg" is that with ReNeg's learning rate, batch and steps and without a regulariser, for
120 of its 4,000 updates. That of `colourfulness + 4*clip` is the one that ships with the embedded model."""
VALIDATION_PROMPTS, TEST_PROMPTS = 48, 64
CAPTIONS: Mapping[str, Callable[[random.Random], str]] = {
    "embedded": lambda rng: grammar.caption(grammar.sample(rng)),
    "scenes": lambda rng: scenes_grammar.caption(scenes_grammar.sample(rng)[0]),
}
"""Captions of what the models were trained on."""
CANDIDATES: Mapping[int, int] = {100: 1, 200: 2, 400: 3}
"""K by the budget in evaluations; fewer candidates leave more of a small budget to φ'."""


def fit_forms(
    target: Annotated[str, typer.Option(help=f"The reward to fit to: {', '.join(MODELS)}.")] = "clip",
    prompts: int = TEST_PROMPTS,
    seeds: int = 2,
    batch_size: int = 16,
    fits: Annotated[Path, typer.Option(help="The folder of the fitted null texts.")] = Path("out/fit"),
    only: Annotated[list[str] | None, typer.Option(help="Run these arms only; may be repeated.")] = None,
    threads: int = 1,
    out: Path = RESULTS,
) -> None:
    """Fit what is missing, sample what is missing, and print the tables."""
    torch.set_num_threads(threads)
    if target not in FITS:
        raise typer.BadParameter(f"must be one of {', '.join(MODELS)}", param_hint="--target")
    folder = fits / "-".join(re.findall(r"[\w-]+", target))
    asked = {name: arm for name, arm in arms(target).items() if not only or name in only or name == "plain"}
    for name in dict.fromkeys(arm["start"] for arm in asked.values() if "start" in arm):
        if not (folder / f"{name}.safetensors").exists():
            fit(target, name, folder)
    every: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    found = every.setdefault(target, {"arms": {}})
    out.parent.mkdir(parents=True, exist_ok=True)
    model = nulltta.load_model(MODELS[target])
    named = dict.fromkeys((target, WORLDS[model.name].target, "colourfulness"))
    measures: dict[str, Measure] = {**{name: rewards.load(name) for name in named}, **held_out_measures(model)}
    measures["high-frequency"] = high_frequency
    for arm in asked.values():
        if "start" in arm:
            name, arm["start"] = arm["start"], FittedNullText.load(folder / f"{arm['start']}.safetensors", model)
            about = arm["start"].about
            found.setdefault("fits", {})[name] = {"settings": about["fit"], "validation": about["validation"]}
    for name, start, seed in jobs(asked, prompts, seeds, batch_size):
        row = found["arms"].setdefault(name, {"scores": {}, "features": {}, "seconds": {}})
        numbers = [i for i in range(start, min(start + batch_size, prompts)) if f"{i}/{seed}" not in row["seconds"]]
        if not numbers:
            continue
        sampled = sample(model, target, asked[name], numbers, seed, measures)
        for part, values in sampled.items():
            row[part] = row.get(part, {}) | values
        found |= {"date": f"{datetime.now(UTC):%Y-%m-%d}", "threads": threads, "versions": record.versions(),
                  "preset": asdict(NullTTAConfig.preset(model.name))}  # fmt: skip
        record.save(every, out)
        print(f"{name}: prompts {numbers[0]} to {numbers[-1]}, seed {seed}", file=sys.stderr, flush=True)
    print(tables(found["arms"]))


def write_prompts(folder: Path, model: str, number: int) -> Sequence[str]:
    """Write a number of training prompts and the validation prompts, and return the flags that name the files.

    Compositions of the tuning prompts, on which nothing is reported, validate a fit; those of the training prompts are
    what the model was trained on.
    """
    source, training = random.Random(5), dict[str, None]()
    while len(training) < number:
        training[CAPTIONS[model](source)] = None
    flags: list[str] = []
    for flag, name, lines in (
        ("--prompts", f"train-{number}", list(training)),
        ("--validation", "validation", WORLDS[model].tuning_prompts(VALIDATION_PROMPTS)),
    ):
        file = folder / f"{name}.txt"
        file.write_text("\n".join(lines) + "\n", encoding="utf-8")
        flags += [flag, str(file)]
    return flags


def fit(target: str, name: str, folder: Path) -> None:
    """Run `nulltta fit`; a fit that was stopped goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    model, chosen = MODELS[target], FITS[target][name]
    words = ["fit", "--model", model, "--reward", target, *chosen.flags]
    words += ["--guard", WORLDS[model].held_out[0]] if chosen.guarded else []
    words += write_prompts(folder, model, chosen.prompts)
    if code := nulltta_command([*words, "--out", str(folder / f"{name}.safetensors")]):
        sys.exit(code)


def arms(target: str = "clip") -> dict[str, dict[str, Any]]:
    """Return the arguments of `align` of each arm, the cheap ones first; starts are the names of fits."""
    names = list(FITS[target])
    found: dict[str, dict[str, Any]] = {"plain": {"method": "plain"}}
    found |= {f"fitted: {name}": {"method": "plain", "start": name} for name in names}
    found["best of 4"] = {"method": BestOfN(samples=4)}
    for budget in CANDIDATES:
        config = config_of(budget, MODELS[target])
        found[f"null-tta, {budget}"] = {"config": config}
        found[f"null-tta, {budget}, from fitted: {names[0]}"] = {"config": config, "start": names[0]}
    return found


def config_of(budget: int, model: str = "embedded") -> NullTTAConfig:
    """Return Null-TTA's settings for a budget; the presets of both models take as many evaluations."""
    return filled(replace(NullTTAConfig.preset(model), num_particles=CANDIDATES[budget]), budget)


def jobs(arms: Mapping[str, Any], prompts: int, seeds: int, size: int) -> Iterator[tuple[str, int, int]]:
    """Yield (arm, first prompt, seed): all arms on the first prompts, then all on the next."""
    for start in range(0, prompts, size):
        for seed in range(seeds):
            for name in arms:
                yield name, start, seed


def sample(
    model: GuidedModel,
    target: str,
    arm: Mapping[str, Any],
    numbers: Sequence[int],
    seed: int,
    measures: Mapping[str, Measure],
) -> dict[str, dict[str, Any]]:
    """Return scores, features and seconds of the prompts of some numbers, by "number/seed"."""
    texts = [WORLDS[model.name].test_prompts(TEST_PROMPTS)[i] for i in numbers]
    began = time.perf_counter()
    images = nulltta.align(model, texts, target, seed=[i + 10_000 * seed for i in numbers], **arm).images
    seconds = (time.perf_counter() - began) / len(numbers)
    with torch.no_grad():
        scores = {name: measure(images, texts).tolist() for name, measure in measures.items()}
        features = scorer_of(model.name).image_features(images)
    places = [f"{i}/{seed}" for i in numbers]
    return {
        "scores": {place: {name: values[b] for name, values in scores.items()} for b, place in enumerate(places)},
        "features": {place: [round(x, 4) for x in features[b].tolist()] for b, place in enumerate(places)},
        "seconds": dict.fromkeys(places, seconds),
    }


@cache
def scorer_of(model: str) -> Any:
    """Return the scorer whose image features tell how different a prompt's pictures are: a model's held-out one."""
    return rewards.load(WORLDS[model].held_out[0])


def by_prompt(arm: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    """Return the mean over seeds of each measure by prompt, and the Vendi score of the seeds' pictures."""
    places: dict[int, list[str]] = {}
    for place in arm["scores"]:
        places.setdefault(int(place.split("/")[0]), []).append(place)
    found: dict[str, dict[int, float]] = {
        name: {i: float(np.mean([arm["scores"][place][name] for place in mine])) for i, mine in places.items()}
        for name in next(iter(arm["scores"].values()))
    }
    features = arm.get("features", {})  # they are left out of the results in the repository
    if all(len(mine) > 1 and all(map(features.get, mine)) for mine in places.values()):
        found["vendi"] = {i: vendi_score(_unit([features[place] for place in mine])) for i, mine in places.items()}
    return found


def _unit(rows: Sequence[Sequence[float]]) -> np.ndarray:
    features = np.asarray(rows)
    return np.asarray(features / np.linalg.norm(features, axis=1, keepdims=True))


def cost(name: str) -> int:
    """Return an arm's denoiser evaluations per picture."""
    plain = 2 * NullTTAConfig.preset("embedded").num_inference_steps
    if name.startswith("null-tta"):
        return spent(config_of(int(name.split(", ")[1])), started="from" in name)
    return 4 * plain if name == "best of 4" else plain


def tables(found: Mapping[str, Any]) -> str:
    """Format the gain of each arm over plain sampling and, where both were run, of each start over no start."""
    scores = {name: by_prompt(arm) for name, arm in found.items()}
    over_plain = [("plain", name) for name in scores if name != "plain"]
    over_scratch = [(a, b) for a, b in pairwise(scores) if b.startswith(f"{a}, from")]
    return "\n\n".join(table(scores, pairs) for pairs in (over_plain, over_scratch) if pairs)


def table(scores: Mapping[str, Mapping[str, Mapping[int, float]]], pairs: Sequence[tuple[str, str]]) -> str:
    """Format one row per pair (before, after): the gains in standard deviations of plain sampling over prompts."""
    names = list(scores["plain"])
    cells = {}
    for before, after in pairs:
        for name in names:
            ours, theirs = scores[after].get(name, {}), scores[before].get(name, {})
            both = [i for i in ours if i in theirs and np.isfinite([ours[i], theirs[i]]).all()]
            if len(both) > 1:
                spread = float(np.std(list(scores["plain"][name].values()), ddof=1)) or 1.0
                cells[after, name] = np.array([ours[i] - theirs[i] for i in both]) / spread
    p_values = dict(zip(cells, holm([sign_test(gains) for gains in cells.values()]), strict=True))
    lines = [f"| | evaluations | prompts | {' | '.join(names)} |", "|---" * (len(names) + 3) + "|"]
    for _, after in pairs:
        row = [_cell(cells[after, name], p_values[after, name]) if (after, name) in cells else "" for name in names]
        lines.append(f"| {after} | {cost(after)} | {len(next(iter(scores[after].values())))} | {' | '.join(row)} |")
    return "\n".join(lines)


def _cell(gains: np.ndarray, p: float) -> str:
    """Format a gain with its interval, in bold where it is significant after Holm's correction."""
    gain = paired_gain(np.zeros(len(gains)).tolist(), gains.tolist(), np.random.default_rng(0))
    mean = f"**{gain.mean:+.2f}**" if p < 0.05 else f"{gain.mean:+.2f}"
    return f"{mean} ({gain.low:+.2f} to {gain.high:+.2f})"


if __name__ == "__main__":
    typer.run(fit_forms)
