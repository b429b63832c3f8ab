"""What is a learnt null text worth on other seeds and other prompts? Plain sampling against replay, paired.

    python studies/transfer.py [--prompts 16 --seeds 16 --others 4 --other-seeds 4 --reward clip]
        [any setting of `align`]

The script learns one null text per prompt on one seed. With each it samples the same prompt with new seeds, and other
prompts with new seeds, without reward or gradient, once with the φ'_t of each step and once with their average. It
prints a Markdown table and writes studies/results/transfer.json and docs/images/transfer.png.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import numpy as np
import torch
import typer

import nulltta
from nulltta import NullText, align, rewards
from nulltta.cli.flags import config_flags
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, Reward
from nulltta.embedded.grammar import test_prompts
from nulltta.evaluation.bootstrap import Gain, bootstrap_interval, paired_gain
from nulltta.evaluation.measures import held_out_measures
from nulltta.null_text.replay import replay
from nulltta.runs import record
from nulltta.runs.figures import GREY, INK, save_figure
from nulltta.scoring import score

ROOT = Path(__file__).parents[1]
FIRST = 32  # studies/smoke.py reports on the prompts before it
Scores: TypeAlias = dict[str, tuple[list[float], list[float]]]
"""By measure: the scores of plain sampling and of replay, one pair per sample."""
ALIGNED, SELECTION = "aligned, the seed it was learnt on", "selection alone, the same seed"
SAME, OTHERS = "same prompt, new seeds", "other prompts, new seeds"
VARIANTS = ("each step's own", "their average")


@config_flags
def transfer(
    prompts: Annotated[int, typer.Option(help="Null texts to learn, one per prompt.")] = 16,
    seeds: Annotated[int, typer.Option(help="New seeds for the prompt it was learnt for.")] = 16,
    others: Annotated[int, typer.Option(help="Other prompts to try each null text on.")] = 4,
    other_seeds: Annotated[int, typer.Option(help="Seeds for each of those.")] = 4,
    seed: int = 0,
    reward: str = "clip",
    model: str = "embedded",
    out: Path = ROOT / "studies" / "results" / "transfer.json",
    plot: Path = ROOT / "docs" / "images" / "transfer.png",
    *,
    settings: dict[str, Any],
) -> None:
    """Measure how much of the gain a null text carries to other samples."""
    began, config = time.perf_counter(), NullTTAConfig.preset(model, **settings)
    study = Study(model, reward, config, test_prompts(FIRST + prompts)[FIRST:], seed, seeds, others, other_seeds)
    samples = study.run()
    found = {where: {name: cluster_gain(rows, name) for name in rows[0]} for where, rows in samples.items()}
    shares = {where: share_of_aligned(samples, where, study.reward.name) for where in samples}
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "model": model, "reward": reward, "prompts": study.prompts,
        "seed": seed, "seeds": seeds, "others": others, "other_seeds": other_seeds, "config": asdict(config),
        "seconds": time.perf_counter() - began, "threads": torch.get_num_threads(), "versions": record.versions(),
    }  # fmt: skip
    about["own_part"] = own_part(samples, study.reward.name)
    print(markdown(found, shares, about))
    for path in (out, plot):
        path.parent.mkdir(parents=True, exist_ok=True)
    gains = {where: {name: asdict(gain) for name, gain in row.items()} for where, row in found.items()}
    record.save({**about, "gains": gains, "share_of_aligned": shares, "samples": samples}, out)
    save_figure(figure(samples, found), plot)


class Study:
    """Learns the null texts, then samples with them."""

    def __init__(
        self, model: str, reward: str, config: NullTTAConfig, prompts: Sequence[str], seed: int,
        seeds: int, others: int, other_seeds: int,
    ) -> None:  # fmt: skip
        self.model: GuidedModel = nulltta.load_model(model)
        self.reward: Reward = rewards.load(reward)
        self.measures = {self.reward.name: self._target, **held_out_measures(self.model)}
        self.config, self.prompts, self.seed = config, list(prompts), seed
        self.seeds = list(range(seed + 1, seed + 1 + seeds))
        self.others, self.other_seeds = others, self.seeds[:other_seeds]

    def run(self) -> dict[str, list[Scores]]:
        """Return one `Scores` per null text, by way of sampling."""
        (aligned, kept), (selected, _) = (
            self._aligned(c) for c in (self.config, replace(self.config, inner_steps=(0, 0), noise_tilt=0.0))
        )
        samples: dict[str, list[Scores]] = {ALIGNED: aligned, SELECTION: selected}
        samples |= {f"{what}: {variant}": [] for what in (SAME, OTHERS) for variant in VARIANTS}
        plain = [self._sampled(kept[k], prompt, self.seeds, plain=True) for k, prompt in enumerate(self.prompts)]
        for j, null_text in enumerate(kept):
            others = [(j + i) % len(kept) for i in range(1, self.others + 1)]
            for variant, form in zip(VARIANTS, (null_text, averaged(null_text)), strict=True):
                same = pairs(plain[j], self._sampled(form, self.prompts[j], self.seeds))
                other = [pairs(plain[k], self._sampled(form, self.prompts[k], self.other_seeds)) for k in others]
                samples[f"{SAME}: {variant}"].append(same)
                samples[f"{OTHERS}: {variant}"].append(joined(other))
            print(f"replayed {j + 1}/{len(kept)}", file=sys.stderr)
        return samples

    def _aligned(self, config: NullTTAConfig) -> tuple[list[Scores], list[NullText]]:
        """Align every prompt; return the scores of its plain and aligned images, and the null texts."""
        scores: list[Scores] = []
        kept: list[NullText] = []
        for start in range(0, len(self.prompts), 8):
            batch = self.prompts[start : start + 8]
            result = align(self.model, batch, self.reward, config=config, seed=self.seed)
            plain, aligned = (self._measured(images, batch) for images in (result.baseline, result.images))
            scores += [{n: ([plain[n][b]], [aligned[n][b]]) for n in self.measures} for b in range(len(batch))]
            kept += result.null_text
            print(f"aligned {len(kept)}/{len(self.prompts)}", file=sys.stderr)
        return scores, kept

    def _sampled(
        self, null_text: NullText, prompt: str, seeds: Sequence[int], *, plain: bool = False
    ) -> dict[str, list[float]]:
        """Replay a null text; return the scores by measure, one per seed."""
        images = replay(self.model, null_text, prompt=prompt, seeds=seeds, plain=plain)
        return self._measured(images, [prompt] * len(seeds))

    @torch.no_grad()
    def _measured(self, images: torch.Tensor, prompts: Sequence[str]) -> dict[str, list[float]]:
        return {name: measure(images, prompts).tolist() for name, measure in self.measures.items()}

    def _target(self, images: torch.Tensor, prompts: Sequence[str]) -> torch.Tensor:
        return score(self.reward, images, prompts)


def averaged(null_text: NullText) -> NullText:
    """Return a null text that is the average over the steps at every step, for models that take one negative
    embedding."""
    return replace(null_text, timesteps=null_text.timesteps[:1], values=[null_text.mean()])


def pairs(plain: Mapping[str, Sequence[float]], found: Mapping[str, Sequence[float]]) -> Scores:
    """Pair the scores of replay with the first scores of plain sampling, which have the same seeds."""
    return {name: (list(plain[name][: len(scores)]), list(scores)) for name, scores in found.items()}


def joined(rows: Sequence[Scores]) -> Scores:
    """Join the samples of several prompts."""
    return {name: ([x for row in rows for x in row[name][0]], [x for row in rows for x in row[name][1]])
            for name in rows[0]}  # fmt: skip


def cluster_gain(rows: Sequence[Scores], name: str) -> Gain:
    """Compare the means of each null text's samples, paired: the null text is the unit of resampling."""
    before, after = ([float(np.mean(row[name][i])) for row in rows] for i in (0, 1))
    return paired_gain(before, after, np.random.default_rng(0))


def share_of_aligned(
    samples: Mapping[str, Sequence[Scores]], where: str, name: str, resamples: int = 10_000
) -> tuple[float, float, float]:
    """Return the mean gain of one way of sampling divided by that of the aligned images, with the 95% percentile
    bootstrap interval of the ratio; null texts are resampled, each with both of its gains."""
    part, whole = (_gains(samples[key], name) for key in (where, ALIGNED))
    picks = np.random.default_rng(0).integers(len(part), size=(resamples, len(part)))
    low, high = np.quantile(part[picks].mean(1) / whole[picks].mean(1), [0.025, 0.975])
    return float(part.mean() / whole.mean()), float(low), float(high)


def own_part(samples: Mapping[str, Sequence[Scores]], name: str) -> tuple[float, float, float]:
    """Return what the null text adds to the selection of candidates on the seed it was learnt on, with its 95% interval
    over null texts."""
    gains = _gains(samples[ALIGNED], name) - _gains(samples[SELECTION], name)
    return (float(gains.mean()), *bootstrap_interval(gains.tolist(), np.random.default_rng(0)))


def _gains(rows: Sequence[Scores], name: str) -> Any:
    """Return the mean gain of each null text, as a NumPy array."""
    return np.array([np.mean(row[name][1]) - np.mean(row[name][0]) for row in rows])


def markdown(
    found: Mapping[str, Mapping[str, Gain]], shares: Mapping[str, tuple[float, float, float]], about: Mapping[str, Any]
) -> str:
    """Format one row per way of sampling: the gain of each measure with its interval, and the share of the aligned
    gain."""
    names = list(next(iter(found.values())))
    headings = ["sampled", f"{names[0]} (target)", "share of the aligned gain", *names[1:]]
    lines = [f"| {' | '.join(headings)} |", "|---" * len(headings) + "|"]
    for where, row in found.items():
        cells = [f"{gain.mean:+.4f} ({gain.low:+.4f} to {gain.high:+.4f})" for gain in row.values()]
        share = "{:.0%} ({:.0%} to {:.0%})".format(*shares[where])
        lines.append(f"| {' | '.join([where, cells[0], share, *cells[1:]])} |")
    settings = ", ".join(f"{name} {value}" for name, value in about["config"].items())
    return "\n".join([
        *lines, "",
        f"{about['date']}, model {about['model']}, {len(about['prompts'])} null texts learnt for as many prompts of "
        f"held-out compositions with seed {about['seed']}; {about['seeds']} new seeds of the same prompt, "
        f"{about['others']} other prompts of {about['other_seeds']} new seeds each. Gains over plain sampling of the "
        "same prompt and seed; 95% percentile bootstrap over null texts, 10,000 resamples.",
        "Aligned less selection alone, which is the null text's own part there: "
        "{:+.4f} ({:+.4f} to {:+.4f}).".format(*about["own_part"]),
        f"Settings: {settings}. {about['seconds'] / 60:.0f} minutes with {about['threads']} threads.",
    ])  # fmt: skip


def figure(samples: Mapping[str, Sequence[Scores]], found: Mapping[str, Mapping[str, Gain]]) -> Any:
    """Plot one panel per measure and one row per way of sampling: the gain of each null text as a dot, with the mean
    and its interval."""
    from matplotlib.figure import Figure

    names = list(next(iter(found.values())))
    drawn = Figure(figsize=(11, 0.55 * len(found) + 1.4), dpi=110, layout="constrained")
    for panel, (axis, name) in enumerate(
        zip(drawn.subplots(1, len(names), sharey=True, squeeze=False)[0], names, strict=True)
    ):
        for row, where in enumerate(found):
            gain, dots = found[where][name], _gains(samples[where], name)
            axis.scatter(dots, np.full(len(dots), row + 0.22), s=9, color="#afb8c1", zorder=2)
            interval = [[gain.mean - gain.low], [gain.high - gain.mean]]
            axis.errorbar(gain.mean, row, xerr=interval, fmt="o", color="#0969da", markersize=5, linewidth=2, zorder=3)
        axis.axvline(0, color=GREY, linewidth=1)
        axis.set_title(f"{name} (target)" if panel == 0 else name, fontsize=11, parse_math=False)
        axis.set_xlabel("gain over plain sampling")
        axis.locator_params(axis="x", nbins=4)
        axis.grid(axis="x", alpha=0.25)
        axis.spines[["top", "right", "left"]].set_visible(False)
        axis.tick_params(axis="y", length=0, labelcolor=INK)
        if panel == 0:
            axis.set_yticks(range(len(found)), list(found))
            axis.invert_yaxis()
    return drawn


if __name__ == "__main__":
    typer.run(transfer)
