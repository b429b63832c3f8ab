"""The folder of a benchmark: its plan, a row an image, the gallery's images. Whatever ends a run, it can go on."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nulltta.benchmark.plan import Key, Plan
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.files import atomic
from nulltta.images import save_png
from nulltta.runs import record

PLAN, ROWS, IMAGES = "plan.json", "rows.jsonl", "images"
GROWING = ("budgets", "contenders", "prompts", "seeds")
"""What of a request may be more than it was: a row stays what it is."""


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        arm: the key of its arm.
        prompt: its number in the plan.
        seconds: this image's share of its batch's time: the processor's on a CPU, whose clock others share, else the
            clock's.
        clock_seconds: on the clock.
        forward, backward: denoiser evaluations, as `counting` counts them; its share too.
        scores: by measure; None where a measure says nothing.
        features: packed, for diversity.
        image: (H, W, 3) in 8 bits, kept for the gallery; not part of the record.
    """

    arm: str
    prompt: int
    seed: int
    seconds: float
    clock_seconds: float
    forward: float
    backward: float
    scores: Mapping[str, float | None]
    features: str | None = None
    image: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> Key:
        return self.arm, self.prompt, self.seed


class BenchmarkFolder:
    """Where rows go.

    Raises:
        NullTTAError: the folder holds another benchmark, or what is no row.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self) -> tuple[Plan, dict[str, Any]] | None:
        """The plan and what is told beside it; None where there is none yet."""
        path = self.folder / PLAN
        if not path.exists():
            return None
        try:
            found = json.loads(path.read_text(encoding="utf-8"))
            return Plan.from_json(found["plan"]), {name: part for name, part in found.items() if name != "plan"}
        except (ValueError, KeyError, TypeError) as error:
            raise InvalidValue(f"'{path}' is no plan of a benchmark: {error}") from error

    def resume(self, request: Mapping[str, Any], make: Callable[[], tuple[Plan, Mapping[str, Any]]]) -> Plan:
        """The plan that is here, if the same request made it, or one for less; where there is none, a new one and what
        it rests on.

        Raises:
            NullTTAError: another request made it.
        """
        asked = json.loads(json.dumps(request))
        if (found := self.plan()) is None:
            plan, measured = make()
            self.folder.mkdir(parents=True, exist_ok=True)
            about = {"request": asked, "date": f"{datetime.now(UTC):%Y-%m-%d}", "versions": record.versions()}
            self._write({**about, **measured, "plan": plan.as_json()})
            return plan
        plan, about = found
        before = about.get("request", {})
        different = [name for name in asked if before.get(name) != asked[name]]
        if not different:
            return plan
        try:
            if fixed := [name for name in different if name not in GROWING]:
                raise InvalidValue(f"it differs in {', '.join(fixed)}")
            wanted, measured = make()
            plan = plan.grown(Plan.from_json(json.loads(json.dumps(wanted.as_json()))))
        except NullTTAError as error:
            raise InvalidValue(
                f"'{self.folder / PLAN}' is of another benchmark: {error}; give another folder, or the same settings "
                "to go on, with more prompts, seeds, contenders or budgets if you like"
            ) from error
        self._write({**about, **measured, "request": asked, "plan": plan.as_json()})
        return plan

    def _write(self, plan: Mapping[str, Any]) -> None:
        with atomic(self.folder / PLAN) as temporary:  # every digit: what is resumed is what was begun
            temporary.write_text(json.dumps(plan, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def rows(self) -> list[ImageRow]:
        """All whole rows. A last line that a crash cut short is taken off the file, to be done again."""
        path = self.folder / ROWS
        if not path.exists():
            return []
        text = path.read_bytes()
        whole = text[: text.rfind(b"\n") + 1]
        if len(whole) < len(text):
            with path.open("r+b") as file:
                file.truncate(len(whole))
        try:
            return [ImageRow(**json.loads(line)) for line in whole.splitlines()]
        except (ValueError, TypeError) as error:
            raise InvalidValue(f"'{path}' holds a line that is no row of this benchmark: {error}") from error

    def append(self, rows: Sequence[ImageRow], plan: Plan) -> None:
        """Add finished rows, after their images: on the disk when this returns."""
        for row in rows:
            if row.image is not None:
                (self.folder / IMAGES).mkdir(exist_ok=True)
                save_png(Image.fromarray(row.image), self.image(plan, row.arm, row.prompt, row.seed))
        lines = "".join(json.dumps(_record(row)) + "\n" for row in rows)
        with (self.folder / ROWS).open("ab") as file:
            file.write(lines.encode())
            file.flush()
            os.fsync(file.fileno())

    def image(self, plan: Plan, arm: str, prompt: int, seed: int) -> Path:
        """Where an image of the gallery lies: by numbers only, as names come from the user."""
        number = [each.key for each in plan.arms].index(arm)
        return self.folder / IMAGES / f"{number:03d}-{prompt:03d}-{seed}.png"


def _record(row: ImageRow) -> dict[str, Any]:
    """The row in JSON's own types, numbers to six digits."""
    found = asdict(replace(row, image=None))
    del found["image"]
    found["scores"] = {name: None if v is None or v != v else float(f"{v:.6g}") for name, v in row.scores.items()}
    return {name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in found.items()}
