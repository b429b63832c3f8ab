"""The work of `nulltta diagnose`: read the folders of aligned runs, measure their pictures, and write the diagnosis."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import torch
from rich.console import Console
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.display import terminal
from nulltta.display.progress import print_line
from nulltta.errors import InvalidValue, blaming
from nulltta.evaluation.comparison import Comparison, Role, Score
from nulltta.evaluation.diagnosis import Diagnosis, diagnosis_of
from nulltta.evaluation.evidence import examine, features_of
from nulltta.files import as_error
from nulltta.rewards.catalogue import REWARDS
from nulltta.rewards.compose import unmeasured
from nulltta.rewards.expression import names, parse
from nulltta.rewards.image_files import read_image
from nulltta.runs import record
from nulltta.runs.folder import refuse_unwritable
from nulltta.runs.loading import load_reward, usable_device
from nulltta.runs.tables import diagnosis_section
from nulltta.scoring import score

FILE = "diagnosis.json"
SAME = ("model", "reward", "config", "method")
"""What folders that are diagnosed together must have in common."""


@dataclass(frozen=True, kw_only=True)
class DiagnoseRequest:
    """What `nulltta diagnose` is asked for.

    Attributes:
        folders: folders of `nulltta align` that differ in prompts and seeds only.
        against: rewards that were not optimised, to measure the pictures with.
        reward: the target once more, where it is the import path of a function; None to take it from the folder.
        as_json: whether to print JSON in place of the table.
        device: as in `ModelSettings`.
    """

    folders: Sequence[Path]
    against: Sequence[str] = ()
    reward: str | None = None
    as_json: bool = False
    device: str | None = None


def run(request: DiagnoseRequest) -> Diagnosis:
    """Diagnose the folders, print the diagnosis, and write it to diagnosis.json in the first of them.

    Raises:
        InvalidValue: if a folder cannot be read or is given twice, the folders are of different runs, there are too few
            pictures, or the file cannot be written.
        LoadError: if a reward does not load.
        RewardError: if a reward fails.
    """
    notes = terminal.notes()
    if len({folder.resolve() for folder in request.folders}) < len(request.folders):
        raise InvalidValue("a folder is given twice: its pictures would count twice")
    runs = [read_run(folder) for folder in request.folders]
    settings = _common(runs, request.folders)
    refuse_unwritable(request.folders[0])
    with notes.status("loading rewards"):
        device = usable_device(request.device)
        target = _target(settings["reward"], request.reward, device)
        with blaming("against"):
            others = [load_reward(name, device) for name in request.against]
        features = features_of(settings["model"], device)
    with notes.status("measuring the pictures"):
        comparisons = [
            _with(comparison, others)
            for folder, found in zip(request.folders, runs, strict=True)
            for comparison in _comparisons(found, folder)
        ]
        diagnosis = diagnosis_of(examine(comparisons, target, features), settings["config"])
    out = request.folders[0] / FILE
    with as_error(out):
        record.save({"folders": [str(folder) for folder in request.folders], **diagnosis.as_json()}, out)
    if request.as_json:
        print(out.read_text(encoding="utf-8"), end="")
    else:
        Console().print(*diagnosis_section(diagnosis))
        print_line(Console(), f"all numbers are in {out}")
    return diagnosis


def read_run(folder: Path) -> dict[str, Any]:
    """Read the result.json of a folder that `nulltta align` wrote.

    Raises:
        InvalidValue: if there is none, or it is not of an aligned run.
    """
    path = folder / "result.json"
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidValue(f"cannot read '{path}': {error.strerror}; give a folder of `nulltta align`") from error
    except ValueError as error:
        raise InvalidValue(f"cannot read '{path}': it is not JSON") from error
    try:
        arguments, results = found["arguments"], found["results"]
        known = all(name in arguments for name in SAME) and all(
            {"plain", "aligned"} <= set(entry["files"]) and entry["prompt"] and entry["scores"] for entry in results
        )
    except (KeyError, TypeError):
        known = False
    if not known:
        raise InvalidValue(f"'{path}' is not of an aligned run: give a folder of `nulltta align`")
    return dict(found)


def _common(runs: Sequence[Mapping[str, Any]], folders: Sequence[Path]) -> dict[str, Any]:
    """Return the arguments that all runs share."""
    first = runs[0]["arguments"]
    for other, folder in zip(runs[1:], folders[1:], strict=True):
        if different := [name for name in SAME if other["arguments"][name] != first[name]]:
            raise InvalidValue(
                f"'{folder}' has another {different[0]} than '{folders[0]}': diagnose them one by one, or give runs "
                "that differ in prompts and seeds only"
            )
    return {name: first[name] for name in SAME}


def _comparisons(found: Mapping[str, Any], folder: Path) -> list[Comparison]:
    """Read the pictures of a run and their scores."""
    comparisons = []
    for entry in found["results"]:
        plain, aligned = (_image(folder, str(entry["files"][name])) for name in ("plain", "aligned"))
        scores = {
            name: Score(_number(each["plain"]), _number(each["aligned"]), _role(each.get("role")))
            for name, each in entry["scores"].items()
        }
        comparisons.append(Comparison(entry["prompt"], int(entry["seed"]), plain, aligned, scores, [], torch.empty(0)))
    return comparisons


def _image(folder: Path, name: str) -> Tensor:
    """Read a picture, which must lie in the folder."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise InvalidValue(f"'{folder / 'result.json'}' names a picture outside its folder: '{path}'")
    return read_image(path)


def _role(recorded: Any) -> Role:
    """Return a role of result.json; a measure of another role was not optimised."""
    return recorded if recorded in get_args(Role) else "held out"


def _number(value: float | None) -> float:
    """Return a number of result.json, where null stands for NaN."""
    return math.nan if value is None else float(value)


@torch.no_grad()
def _with(comparison: Comparison, others: Sequence[Reward]) -> Comparison:
    """Add the scores of further rewards to a comparison."""
    images = torch.stack([comparison.plain, comparison.aligned])
    added = {
        reward.name: Score(*score(reward, images, [comparison.prompt] * 2).tolist())
        for reward in others
        if reward.name not in comparison.scores
    }
    return replace(comparison, scores={**comparison.scores, **added})


def _target(recorded: str, given: str | None, device: torch.device) -> Reward | None:
    """Load the target; None for a z(...) that was measured during the run and cannot be measured again.

    A folder may come from somebody else, so that no code is imported because its record says so.
    """
    own = [str(name) for name in names(parse(recorded)) if name.word not in REWARDS]
    if own and given != recorded:
        raise InvalidValue(f"must be given for a run whose target is a function of your own: '{recorded}'", "reward")
    reward = load_reward(given or recorded, device)
    return None if unmeasured(reward) else reward
