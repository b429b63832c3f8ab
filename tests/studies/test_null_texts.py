"""The studies of learnt null texts: their arithmetic, tables and files, on the tiny checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nulltta import NullText

SHORT: dict[str, Any] = {
    "num_inference_steps": 3, "inner_steps": (1, 1), "num_particles": 2, "learning_rate": 0.1, "guidance_scale": 3.0,
}  # fmt: skip


def test_transfer_is_the_gain_over_plain_of_the_same_seeds(
    study: Callable[[str], ModuleType], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    transfer, out, plot = study("transfer"), tmp_path / "new" / "transfer.json", tmp_path / "plot.png"
    transfer.transfer(
        prompts=3, seeds=3, others=2, other_seeds=2, reward="brightness", model=str(checkpoint), out=out, plot=plot,
        **SHORT,
    )  # fmt: skip
    record = json.loads(out.read_text())
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|")][2:]
    assert [row[0].removeprefix("| ") for row in rows] == list(record["gains"])
    same, other = (
        record["samples"][f"{what}: each step's own"] for what in ("same prompt, new seeds", "other prompts, new seeds")
    )
    assert [len(sample["brightness"][0]) for sample in same] == [3, 3, 3]
    assert [len(sample["brightness"][1]) for sample in other] == [4, 4, 4]
    for j in range(3):  # plain sampling of another prompt has that prompt's own first seeds
        assert other[j]["brightness"][0][:2] == same[(j + 1) % 3]["brightness"][0][:2]
    gains = [np.mean(sample["brightness"][1]) - np.mean(sample["brightness"][0]) for sample in same]
    gain = record["gains"]["same prompt, new seeds: each step's own"]["brightness"]
    assert gain["n"] == 3
    assert gain["mean"] == pytest.approx(np.mean(gains), abs=1e-6)
    aligned = record["gains"]["aligned, the seed it was learnt on"]["brightness"]["mean"]
    assert record["share_of_aligned"]["same prompt, new seeds: each step's own"][0] == pytest.approx(
        np.mean(gains) / aligned, rel=1e-4
    )
    assert record["share_of_aligned"]["aligned, the seed it was learnt on"] == [1, 1, 1]
    with Image.open(plot) as image:
        image.load()


def test_the_share_resamples_null_texts_with_both_of_their_gains(study: Callable[[str], ModuleType]) -> None:
    transfer = study("transfer")
    whole = [{"m": ([0.0], [float(g)])} for g in (1, 2, 3, 4)]
    half = [{"m": ([1.0, 1.0], [1 + g / 2, 1 + g / 2])} for g in (1, 2, 3, 4)]
    samples = {transfer.ALIGNED: whole, "x": half}
    assert transfer.share_of_aligned(samples, "x", "m") == pytest.approx((0.5, 0.5, 0.5))


def test_averaging_gives_one_embedding_for_all_steps(study: Callable[[str], ModuleType]) -> None:
    null_text = NullText([9, 5, 1], [{"tokens": torch.full((1, 1), float(i))} for i in (0, 3, 9)], "a")
    assert [float(study("transfer").averaged(null_text).at(t)["tokens"]) for t in (9, 4, 0)] == [4, 4, 4]


def test_low_rank_files(
    study: Callable[[str], ModuleType], checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "low_rank.json"
    study("low_rank").low_rank(prompts=2, rank=[1, 3], reward="brightness", model=str(checkpoint), out=out, **SHORT)
    record = json.loads(out.read_text())
    by_name = {row["file"]: row for row in record["files"]}
    assert list(by_name) == ["in full, with noise", "float16", "rank 1", "rank 3"]
    assert by_name["in full, with noise"]["error"] == by_name["in full, with noise"]["largest_change"] == 0
    assert by_name["in full, with noise"]["share_of_gain"] == pytest.approx(1)
    assert by_name["rank 1"]["error"] > by_name["rank 3"]["error"] > by_name["float16"]["error"]
    assert by_name["rank 1"]["bytes"] < by_name["rank 3"]["bytes"] < by_name["float16"]["bytes"]
    tokens = {row["rank"]: row for row in record["forms"] if row["form"].startswith("one row per token")}
    assert tokens[3]["numbers"] == 3 * (77 + 3 * 32)
    assert tokens[1]["error"] == pytest.approx(by_name["rank 1"]["error"], rel=1e-2)
    assert "| rank 3 |" in capsys.readouterr().out
