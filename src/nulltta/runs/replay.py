"""What `nulltta replay` does: batch after batch of seeds sampled, measured and written."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from nulltta.algorithm.memory import is_out_of_memory
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, Reward
from nulltta.errors import NullTTAError, OutOfMemory
from nulltta.evaluation.comparison import Score
from nulltta.evaluation.measures import Measure, held_out_measures
from nulltta.null_text.exact import recorded_config
from nulltta.null_text.replay import replay
from nulltta.null_text.value import NullText
from nulltta.rewards.expression import with_source
from nulltta.runs.folder import refuse_unwritable
from nulltta.runs.loading import load_model, load_reward, resolved
from nulltta.runs.replay_folder import ReplayOutput, Sample, exactness
from nulltta.runs.request import ReplayRequest
from nulltta.runs.tables import gain_table
from nulltta.scoring import score


def run(asked: ReplayRequest) -> bool:
    """Do what is asked, saying how it goes; false if Ctrl-C ended it early, with finished pictures on the disk.

    Raises:
        NullTTAError: the file does not read or fit, a reward or the model does not load, the folder is not writable.
        KeyboardInterrupt: Ctrl-C came before any picture was finished.
    """
    began, notes = time.perf_counter(), Console(stderr=True)
    refuse_unwritable(asked.out)
    null_text = NullText.load(asked.file)
    config = replace(recorded_config(null_text), **asked.changes())
    prompts = asked.prompts or [null_text.prompt]
    with notes.status("loading the model"):
        asked, model, measures = _load(asked, null_text)
    output, finished = ReplayOutput(asked, null_text, config), True
    total = len(prompts) * sum(map(len, _batches(asked)))
    try:
        with Progress(console=notes, transient=True, disable=not notes.is_terminal) as bar:
            task = bar.add_task("sampling", total=total)
            for samples in _samples(asked, prompts, model, null_text, config, measures):
                output.add(samples, time.perf_counter() - began)
                bar.advance(task, len(samples))
    except KeyboardInterrupt:
        if not output.finished:
            raise
        finished = len(output.finished) == total
    except NullTTAError as error:
        if not output.finished:
            raise
        output.close("failed")
        error.add_note(f"{len(output.finished)} of {total} pictures are finished and in '{asked.out}'")
        raise
    output.close("finished" if finished else "interrupted")
    console = Console() if finished else notes
    if measures:
        console.print(gain_table([(sample.prompt, sample.scores) for sample in output.finished]))
    if asked.exact:
        _say(console, exactness(output.finished[0], null_text))
    if finished:
        _say(console, f"look at {asked.out / 'grid.png'}; all settings and scores are in {asked.out / 'result.json'}")
    else:
        _say(console, f"interrupted: {len(output.finished)} of {total} pictures are finished and in '{asked.out}'")
    return finished


def _load(asked: ReplayRequest, null_text: NullText) -> tuple[ReplayRequest, GuidedModel, dict[str, Measure]]:
    """What is asked with nothing left to find out, the model and the measures, the target first."""
    asked = replace(asked, settings=resolved(asked.settings))
    device = asked.settings.device
    target: Reward | None = None
    if asked.reward is not None:
        asked = replace(asked, reward=with_source(asked.reward, asked.reward_source), reward_source=None, plain=True)
        target = load_reward(str(asked.reward), device)
    model = load_model(asked.settings)
    null_text.require_fit(model)
    if target is None:
        return asked, model, {}
    held_out = {name: measure for name, measure in held_out_measures(model, device).items() if name != target.name}
    return asked, model, {target.name: lambda images, prompts: score(target, images, prompts), **held_out}


def _samples(
    asked: ReplayRequest,
    prompts: Sequence[str],
    model: GuidedModel,
    null_text: NullText,
    config: NullTTAConfig,
    measures: Mapping[str, Measure],
) -> Iterator[list[Sample]]:
    """A batch of one prompt's seeds at a time."""
    for prompt in prompts:
        for seeds in _batches(asked):
            how: dict[str, Any] = {"prompt": prompt, "config": config, "exact": asked.exact}
            how |= {} if asked.exact else {"seeds": seeds}
            images = _replayed(model, null_text, **how)
            plain = _replayed(model, null_text, plain=True, **how) if asked.plain else None
            values = _scores(images, plain, [prompt] * len(images), measures)
            yield [
                Sample(prompt, seed, images[i], None if plain is None else plain[i],
                       {name: Score(*pair[i]) for name, pair in values.items()})
                for i, seed in enumerate(seeds)
            ]  # fmt: skip


def _replayed(model: GuidedModel, null_text: NullText, **how: Any) -> Tensor:
    try:
        return replay(model, null_text, **how).cpu()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemory("out of memory: sample fewer pictures at a time (batch_size)") from error


def _batches(asked: ReplayRequest) -> list[Sequence[int | None]]:
    if asked.exact:
        return [[None]]
    seeds = asked.seed_list()
    return [seeds[i : i + asked.batch_size] for i in range(0, len(seeds), asked.batch_size)]


@torch.no_grad()
def _scores(
    images: Tensor, plain: Tensor | None, prompts: Sequence[str], measures: Mapping[str, Measure]
) -> dict[str, list[tuple[float, float]]]:
    """By measure, plain's and replay's of each picture."""
    if plain is None:
        return {}
    found = {name: [measure(of, prompts).tolist() for of in (plain, images)] for name, measure in measures.items()}
    return {name: list(zip(*pair, strict=True)) for name, pair in found.items()}


def _say(console: Console, line: str) -> None:
    console.print(line, markup=False, highlight=False, soft_wrap=True)
