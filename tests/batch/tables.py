"""Tables for `nulltta batch` on a tiny checkpoint, and what its folder must hold in the end."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from pyarrow import parquet

import nulltta
from nulltta.images import to_pil

SAMPLER = ["--num-inference-steps", "3", "--guidance-scale", "3"]
SHORT = [*SAMPLER, "--inner-steps", "1", "1", "--num-particles", "2", "--learning-rate", "0.1"]
CONFIG = nulltta.NullTTAConfig(
    num_inference_steps=3, inner_steps=(1, 1), num_particles=2, guidance_scale=3.0, learning_rate=0.1
)
MANY = [{"id": f"row-{i}", "prompt": f"picture {i}", "seed": i} for i in range(32)]


def table_of(rows: Sequence[Mapping[str, Any]], folder: Path) -> Path:
    path = folder / "prompts.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def arguments(table: Path, model: Path, out: Path, settings: Sequence[str] = SHORT) -> list[str]:
    return ["batch", str(table), "--model", str(model), "--reward", "brightness", "--out", str(out), *settings]


def written(out: Path) -> dict[str, int]:
    """Return the images, null texts and records of a folder, with the times at which they were written."""
    found = [path for inner in ("images", "null_texts", "rows") for path in (out / inner).glob("*/[!.]*")]
    return {str(path.relative_to(out)): path.stat().st_mtime_ns for path in found}


def require_each_row_once(out: Path, rows: Sequence[Mapping[str, Any]], checkpoint: Path) -> None:
    """Check that every row is in the table once and in order, with its own files, and that there is nothing else.

    The files must hold what `align` gives for the row in another batch.
    """
    model = nulltta.load_model(str(checkpoint), device="cpu")
    seeds = [row["seed"] for row in rows]
    expected = nulltta.align(model, [row["prompt"] for row in rows], "brightness", config=CONFIG, seed=seeds)
    table = parquet.read_table(out / "scores.parquet").to_pylist()
    assert [row["id"] for row in table] == [row["id"] for row in rows]
    for row, image, score, plain, learnt in zip(
        table, to_pil(expected.images), expected.rewards, expected.baseline_rewards, expected.null_text, strict=True
    ):
        assert row["reward.aligned"] == pytest.approx(float(score), abs=1e-4)
        assert row["reward.plain"] == pytest.approx(float(plain), abs=1e-4)
        with Image.open(out / row["image"]) as picture:
            assert picture.info["id"] == row["id"]
            assert max(abs(a - b) for a, b in zip(picture.tobytes(), image.tobytes(), strict=True)) <= 1
        loaded = nulltta.NullText.load(out / row["null_text"], model)
        assert loaded.prompt == row["prompt"]
        path = "encoder_hidden_states"
        apart, moved = (loaded.values[-1][path] - other[path] for other in (learnt.values[-1], learnt.null))
        # Adam moves coordinates whose gradient is only rounding by its full rate: they differ without effect.
        assert float(apart.norm()) < 0.05 * float(moved.norm())
    assert len(written(out)) == 3 * len(rows)
    assert not list(out.glob("**/*.partial"))
