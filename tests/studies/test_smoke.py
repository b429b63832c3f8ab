"""The arithmetic and the table of the smoke study, on the tiny checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest


def test_table_and_record_agree(
    study: Callable[[str], ModuleType], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "new" / "smoke.json"
    study("smoke").smoke(
        prompts=5, reward="brightness", model=str(checkpoint), batch_size=3, out=out,
        num_inference_steps=4, inner_steps=(1, 2), num_particles=2, learning_rate=0.1,
    )  # fmt: skip
    record = json.loads(out.read_text())
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")]
    assert rows[2][0] == "| brightness (target)"
    assert list(record["gains"]) == ["brightness", "colourfulness"]
    gains = [row["brightness"]["aligned"] - row["brightness"]["plain"] for row in record["scores"]]
    gain = record["gains"]["brightness"]
    assert len({row["prompt"] for row in record["scores"]}) == gain["n"] == 5
    assert gain["mean"] == pytest.approx(sum(gains) / 5, abs=1e-6)
    assert gain["low"] <= gain["mean"] <= gain["high"]
    assert rows[2][4].startswith(f"{gain['mean']:+.4f} ")
    assert rows[2][5].startswith(f"{gain['mean'] / gain['spread']:+.2f} ")
    alone = [row["brightness"]["aligned"] - row["selection"]["brightness"] for row in record["scores"]]
    assert record["over_selection"]["brightness"]["mean"] == pytest.approx(sum(alone) / 5, abs=1e-6)
    assert rows[2][7].startswith(f"{sum(alone) / 5:+.4f} ")
    inner, particles, steps = 1 + 1 + 1 + 1, 2, 4
    assert record["config"]["inner_steps"] == [1, 2]
    assert record["branches"]["with_gradient"] in range(inner, 2 * steps + 1)
    assert record["branches"]["without"] == 2 * particles + 2 * steps + 2 * particles * (steps - 1)
    assert record["branches"]["plain"] == 2 * steps
