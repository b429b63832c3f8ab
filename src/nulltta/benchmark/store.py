"""The folder of a benchmark: its plan, one row per image and the images of the gallery. A run can always continue."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from nulltta.benchmark.plan import Plan, RowKey
from nulltta.errors import InvalidValue, LoadError, NullTTAError, first_line
from nulltta.files import as_error, atomic
from nulltta.images import save_png
from nulltta.runs import record

PLAN, ROWS, IMAGES = "plan.json", "rows.jsonl", "images"
GROWING = ("budgets", "contenders", "prompts", "seeds")
"""The parts of a request that may grow when it is given again, as the rows that exist stay valid."""


@dataclass(frozen=True)
class ImageRow:
    """One image.

    Attributes:
        arm: the key of its arm.
        prompt: the number of its prompt in the plan.
        seed: the seed of its noise.
        seconds: this image's share of the time of its batch: processor time on a CPU, which others share, else wall
            time; None if it was not measured where the other rows were.
        clock_seconds: the share of the wall time; likewise.
        forward, backward: its share of the denoiser evaluations, as `counting` counts them.
        scores: values by measure; None where a measure does not apply.
        features: packed features, for the Vendi score.
        nats: how far the null text moved the distribution, summed over the denoising steps; 0 without a null text.
        image: (H, W, 3) in 8 bits, for the gallery; not part of the record.
    """

    arm: str
    prompt: int
    seed: int
    seconds: float | None
    clock_seconds: float | None
    forward: float
    backward: float
    scores: Mapping[str, float | None]
    features: str | None = None
    nats: float = 0.0
    image: np.ndarray | None = field(default=None, compare=False, repr=False)

    @property
    def key(self) -> RowKey:
        """What identifies the row in a plan."""
        return self.arm, self.prompt, self.seed


class BenchmarkFolder:
    """A folder that holds one benchmark, finished or not.

    Attributes:
        folder: its path; it is made when the plan is written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def plan(self) -> tuple[Plan, dict[str, Any]] | None:
        """Read the plan and the facts stored beside it; None if there is no plan yet.

        Raises:
            LoadError: if the file is not a plan.
        """
        path = self.folder / PLAN
        try:
            if not path.exists():
                return None
            found = json.loads(path.read_text(encoding="utf-8"))
            return Plan.from_json(found["plan"]), {name: part for name, part in found.items() if name != "plan"}
        except OSError as error:
            raise LoadError(f"cannot read '{path}': {first_line(error)}") from error
        except (ValueError, KeyError, TypeError) as error:
            raise LoadError(f"'{path}' is not the plan of a benchmark: {first_line(error)}") from error

    def resume(self, request: Mapping[str, Any], make: Callable[[], tuple[Plan, Mapping[str, Any]]]) -> Plan:
        """Return the plan in the folder if it comes from this request, grown if the request asks for more than before.

        A folder without a plan, or with a plan of another request and no rows yet, gets a new plan.

        Args:
            request: what is asked for, in JSON types.
            make: makes the plan of the request, and what was measured for it.

        Raises:
            InvalidValue: if the folder holds the rows of another benchmark, or cannot be written to.
        """
        self.check_writable()
        asked = json.loads(json.dumps(request))
        found = self.plan()
        if found is None or (found[1].get("request") != asked and not self.rows()):
            plan, measured = make()
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
                "to continue, with more prompts, seeds, contenders or budgets if you like"
            ) from error
        self._write({**about, **measured, "request": asked, "plan": plan.as_json()})
        return plan

    def check_writable(self) -> None:
        """Refuse a path that cannot be written to, before anything is loaded.

        Raises:
            InvalidValue: if the path is a file, or the system does not let us write there.
        """
        existing = next(path for path in (self.folder, *self.folder.absolute().parents) if path.exists())
        if not existing.is_dir():
            raise InvalidValue(f"cannot write to '{self.folder}': '{existing}' is a file")
        with as_error(self.folder):
            tempfile.TemporaryDirectory(dir=existing).cleanup()

    def _write(self, plan: Mapping[str, Any]) -> None:
        """Write the plan file with every digit, so that a continued benchmark is the one that was begun."""
        with as_error(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic(self.folder / PLAN) as temporary:
                temporary.write_text(json.dumps(plan, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")

    def rows(self) -> list[ImageRow]:
        """Read all complete rows, and cut off a last line that a crash left incomplete.

        Raises:
            LoadError: if a line is not a row.
        """
        path = self.folder / ROWS
        try:
            if not path.exists():
                return []
            text = path.read_bytes()
            whole = text[: text.rfind(b"\n") + 1]
            if len(whole) < len(text):
                with suppress(OSError), path.open("r+b") as file:  # a folder that is only read may be read-only
                    file.truncate(len(whole))
            return [ImageRow(**json.loads(line)) for line in whole.splitlines()]
        except OSError as error:
            raise LoadError(f"cannot read '{path}': {first_line(error)}") from error
        except (ValueError, TypeError) as error:
            raise LoadError(
                f"'{path}' holds a line that is not a row of this benchmark: {first_line(error)}"
            ) from error

    def append(self, rows: Sequence[ImageRow], plan: Plan) -> None:
        """Add finished rows after their images; both are on the disk when this returns.

        Raises:
            InvalidValue: if the system does not let us write.
        """
        with as_error(self.folder):
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
        """Return the path of an image of the gallery; it is made of numbers only, as names come from the user."""
        number = [each.key for each in plan.arms].index(arm)
        return self.folder / IMAGES / f"{number:03d}-{prompt:03d}-{seed}.png"


def _record(row: ImageRow) -> dict[str, Any]:
    """Return the row in JSON types, with numbers to six digits."""
    found = asdict(replace(row, image=None))
    del found["image"]
    found["scores"] = {name: None if v is None or v != v else float(f"{v:.6g}") for name, v in row.scores.items()}
    return {name: float(f"{v:.6g}") if isinstance(v, float) else v for name, v in found.items()}
