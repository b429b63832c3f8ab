"""A fit in several processes: what one would make, in the same order, and failures in all of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from nulltta.errors import InvalidValue, NullTTAError
from nulltta.fit.workers import Workers, joined
from nulltta.runs.fit import _run
from nulltta.runs.fit_request import FitRequest
from nulltta.runs.request import ModelSettings

SHARES = """
from nulltta.errors import NullTTAError
from nulltta.fit.workers import joined

def failing(rows):
    if 2 in rows:
        raise ValueError("no such row")

with joined() as workers:
    assert workers.map(lambda rows: rows.tolist(), 3) == [[0, 1], [2]]
    assert workers.map(lambda rows: rows.tolist(), 1) == [[0]]  # fewer rows than processes
    assert workers.agree("this") and not workers.agree(workers.rank)
    try:
        workers.map(failing, 3)
    except (ValueError, NullTTAError) as error:
        said = str(error)
    open(f"said-{workers.rank}", "w").write(said)
"""


def _started(folder: Path, *words: str) -> None:
    """Run a command in two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([*launch, *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_results_come_in_order_and_a_failure_is_one_in_every_process(tmp_path: Path) -> None:
    (tmp_path / "shares.py").write_text(SHARES)
    _started(tmp_path, "shares.py")
    said = [(tmp_path / f"said-{rank}").read_text() for rank in range(2)]
    assert said == ["process 1 failed: no such row", "no such row"]


def test_processes_that_nobody_started_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(NullTTAError, match="WORLD_SIZE is set, but"), joined():
        pass


def test_one_gpu_for_all_processes_is_refused(tmp_path: Path) -> None:
    request = FitRequest(
        prompts=["a cat", "a dog", "a rose", "a fox"], out=tmp_path / "null.safetensors", reward="clip",
        model=ModelSettings(device="cuda:0"),
    )  # fmt: skip
    with pytest.raises(InvalidValue, match="device must not name one GPU for 2 processes, as 'cuda:0' does: give cuda"):
        _run(request, Workers(count=2, rank=1))


def test_two_processes_fit_what_one_fits(checkpoint: Path, tmp_path: Path) -> None:
    from nulltta.cli import main

    (tmp_path / "prompts.txt").write_text("a cat\na dog\na rose\na fox\na bird\n", encoding="utf-8")
    words = ["fit", "--model", str(checkpoint), "--reward", "brightness", "--device", "cpu", "--form", "steps"]
    words += ["--prompts", str(tmp_path / "prompts.txt"), "--updates", "3", "--rows", "3"]
    words += ["--num-inference-steps", "2", "--guidance-scale", "4"]
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    assert main([*words, "--out", str(one)]) == 0
    _started(tmp_path, "-m", "nulltta", *words, "--out", str(two))
    ours, theirs = load_file(one), load_file(two)
    assert ours["shift.parts.encoder_hidden_states.shift"].abs().max() > 1e-4
    for name, tensor in ours.items():
        torch.testing.assert_close(theirs[name], tensor, rtol=1e-4, atol=1e-7)
    assert {path.name for path in tmp_path.iterdir()} == {"prompts.txt", "one.safetensors", "two.safetensors"}
