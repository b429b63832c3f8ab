"""The work of `nulltta replay`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from rich.console import Console
from rich.progress import Progress
from torch import Tensor

from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, Reward
from nulltta.display import terminal
from nulltta.display.progress import print_line
from nulltta.errors import InvalidValue, blaming, out_of_memory_as_error
from nulltta.evaluation.comparison import Score
from nulltta.evaluation.measures import Measure, held_out_measures
from nulltta.null_text import loading
from nulltta.null_text.bare import is_bare
from nulltta.null_text.exact import recorded_config
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.identity import require_same_denoiser
from nulltta.null_text.loading import AnyNullText
from nulltta.null_text.replay import replay
from nulltta.null_text.sources import located
from nulltta.rewards.expression import with_source
from nulltta.runs.folder import closing, require_free
from nulltta.runs.loading import load_model, load_reward, resolved
from nulltta.runs.replay_writer import ReplayWriter, Sample, exactness
from nulltta.runs.request import ReplayRequest
from nulltta.runs.tables import gain_table
from nulltta.scoring import as_measure, require_pictures


def run(request: ReplayRequest) -> bool:
    """Sample, measure and write the pictures of a null text batch by batch, showing the progress and the gains.

    Returns:
        Whether all pictures are finished. If not, Ctrl-C ended the run after some of them.

    Raises:
        InvalidValue: if the device cannot be used or a file cannot be written.
        DoesNotFit: if the null text was made for another model.
        LoadError: if the null text cannot be read, or the model or the reward does not load.
        RewardError: if the reward fails; the pictures finished before stay in the folder.
        OutOfMemory: if memory runs out; the pictures finished before stay in the folder.
        KeyboardInterrupt: after a Ctrl-C before any picture was finished.
    """
    began, notes = time.perf_counter(), terminal.notes()
    require_free(request.out, overwrite=request.overwrite)
    file = located(request.file)
    null_text = None if is_bare(file) else loading.load(file)
    if request.exact and isinstance(null_text, FittedNullText):
        raise InvalidValue("makes a recorded picture again, and a null text for all prompts records none", "exact")
    config = _config(request, null_text)
    prompts = request.prompts or ["" if null_text is None else null_text.prompt]
    if not all(prompts):
        raise InvalidValue("is needed: the null text was made for all prompts (or prompts, a file)", "prompt")
    with notes.status("loading the model"):
        request, model, measures = _load(request)
    if null_text is None:  # a bare embedding says what it is only beside its model
        null_text = loading.load(file, model)
        config = _config(request, null_text)
    null_text.require_fit(model)
    if request.exact:
        require_same_denoiser(null_text.about, model)
    total = len(prompts) * sum(map(len, _batches(request)))
    writer = ReplayWriter(request, null_text, config, total)
    with closing(writer), Progress(console=notes, transient=True, disable=not notes.is_terminal) as bar:
        task = bar.add_task("sampling", total=total)
        for samples in _samples(request, prompts, model, null_text, config, measures):
            writer.add(samples, time.perf_counter() - began)
            bar.advance(task, len(samples))
    console = Console() if writer.folder.complete else notes
    if measures:
        console.print(gain_table([(sample.prompt, sample.scores) for sample in writer.finished]))
    if request.exact:
        print_line(console, exactness(writer.finished[0], null_text))
    out = request.out
    where = f"look at {out / 'grid.png'}; all settings and scores are in {out / 'result.json'}"
    print_line(console, where if writer.folder.complete else f"interrupted: {writer.folder}")
    return writer.folder.complete


def _config(request: ReplayRequest, null_text: AnyNullText | None) -> NullTTAConfig:
    """Return the settings of sampling: as recorded, unless the request says otherwise."""
    return replace(recorded_config({} if null_text is None else null_text.about), **request.changes())


def _load(request: ReplayRequest) -> tuple[ReplayRequest, GuidedModel, dict[str, Measure]]:
    """Return the request with its defaults filled in, the model, and the measures with the reward first."""
    request = replace(request, settings=resolved(request.settings))
    device = request.settings.device
    target: Reward | None = None
    if request.reward is not None:
        with blaming("reward"):
            request = replace(
                request, reward=with_source(request.reward, request.reward_source), reward_source=None, plain=True
            )
            target = load_reward(str(request.reward), device)
        require_pictures(target, "a replay")
    model = load_model(request.settings)
    if target is None:
        return request, model, {}
    held_out = {name: measure for name, measure in held_out_measures(model, device).items() if name != target.name}
    return request, model, {target.name: as_measure(target), **held_out}


def _samples(
    request: ReplayRequest,
    prompts: Sequence[str],
    model: GuidedModel,
    null_text: AnyNullText,
    config: NullTTAConfig,
    measures: Mapping[str, Measure],
) -> Iterator[list[Sample]]:
    """Yield the samples of one batch of seeds of one prompt at a time."""
    for prompt in prompts:
        for seeds in _batches(request):
            how: dict[str, Any] = {"prompt": prompt, "config": config, "exact": request.exact}
            how |= {} if request.exact else {"seeds": seeds}
            images = _replayed(model, null_text, **how)
            plain = _replayed(model, null_text, plain=True, **how) if request.plain else None
            values = _scores(images, plain, [prompt] * len(images), measures)
            yield [
                Sample(prompt, seed, images[i], None if plain is None else plain[i],
                       {name: Score(*pair[i]) for name, pair in values.items()})
                for i, seed in enumerate(seeds)
            ]  # fmt: skip


def _replayed(model: GuidedModel, null_text: AnyNullText, **how: Any) -> Tensor:
    """Return replayed images on the CPU."""
    with out_of_memory_as_error("sample fewer pictures at a time (batch_size)"):
        return replay(model, null_text, **how).cpu()


def _batches(request: ReplayRequest) -> list[Sequence[int | None]]:
    """Return the seeds of each batch; None stands for the recorded noise."""
    if request.exact:
        return [[None]]
    seeds = request.seed_list()
    return [seeds[i : i + request.batch_size] for i in range(0, len(seeds), request.batch_size)]


@torch.no_grad()
def _scores(
    images: Tensor, plain: Tensor | None, prompts: Sequence[str], measures: Mapping[str, Measure]
) -> dict[str, list[tuple[float, float]]]:
    """Return the plain and the replayed value of each picture, by measure."""
    if plain is None:
        return {}
    found = {name: [measure(of, prompts).tolist() for of in (plain, images)] for name, measure in measures.items()}
    return {name: list(zip(*pair, strict=True)) for name, pair in found.items()}
