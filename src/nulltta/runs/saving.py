"""Write a `Result` as the command line writes its own."""

from __future__ import annotations

from pathlib import Path

from nulltta import hub
from nulltta.alignment import Result
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.comparison import compare
from nulltta.evaluation.measures import held_out_measures
from nulltta.models.observed import ObservedModel
from nulltta.prompts import EncodedPrompt
from nulltta.quiet import quiet_libraries
from nulltta.runs.align_writer import AlignWriter
from nulltta.runs.folder import closing, require_free
from nulltta.runs.request import AlignRequest, RunSettings


def save(result: Result, folder: Path, *, overwrite: bool = False) -> None:
    """Write the pictures of a result, its figures and its result.json into a folder.

    Raises:
        InvalidValue: if a file cannot be written, or the folder holds another run and `overwrite` is False.
        RewardError: if a reward or a measure fails.
        OutOfMemory: if memory runs out while plain pictures are sampled.
    """
    require_free(folder, overwrite=overwrite)
    request = request_of(result, folder)
    with quiet_libraries():
        measures = held_out_measures(result.problem.model, request.settings.device)
    writer = AlignWriter(request, repeatable=is_repeatable(result))
    with closing(writer):
        writer.add(compare(result, measures), {})


def request_of(result: Result, folder: Path) -> AlignRequest:
    """Return what the command line would have been asked for to make a result."""
    problem, asked = result.problem, result.asked
    method, negative = asked.get("method", "null-tta"), asked.get("negative_prompt", "")
    settings = RunSettings(
        config=problem.config, model=problem.model.name, reward=problem.reward.name,
        method=method if isinstance(method, str) else type(method).__name__, device=str(problem.latents.device),
        dtype=str(problem.model.dtype).removeprefix("torch."), batch_size=len(problem.prompts),
        start=str(start) if isinstance(start := asked.get("start"), str | Path) else None,
    )  # fmt: skip
    same, seeds = isinstance(negative, str), list(problem.seeds)
    is_range = len(set(problem.prompts)) == 1 < len(seeds) == len(set(seeds))
    return AlignRequest(
        prompts=problem.prompts, settings=settings, seed=seeds[0], own_seeds=seeds if len(set(seeds)) > 1 else (),
        negative_prompt=negative if same else "", own_negatives=() if same else list(negative),
        seed_range=",".join(map(str, seeds)) if is_range else None, out=folder,
    )  # fmt: skip


def is_repeatable(result: Result) -> bool:
    """Return whether a command can make a result again: its model, reward and method were given by name alone."""
    model, asked = result.problem.model, result.asked
    texts = [*result.problem.prompts, asked.get("negative_prompt", "")]
    named = model.name in WORLDS or Path(model.name).is_dir() or hub.is_hub_id(model.name)
    by_name = isinstance(asked.get("reward"), str) and isinstance(asked.get("method"), str)
    called = not isinstance(model, ObservedModel) or bool(model.stock.options)
    encoded = any(isinstance(text, EncodedPrompt) for text in texts)
    by_file = isinstance(asked.get("start"), str | Path | None)
    return named and by_name and by_file and not encoded and not called and not asked.get("latents")
