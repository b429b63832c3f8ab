"""Sampling a plan on a tiny checkpoint: the order, resuming after a crash, and workers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.randomness import own_seed
from nulltta.baselines import DNO
from nulltta.benchmark.contenders import ContenderTask, arm
from nulltta.benchmark.counting import counted
from nulltta.benchmark.plan import Plan
from nulltta.benchmark.run import JobSampler, WorkerMachine, sample
from nulltta.benchmark.store import ROWS, BenchmarkFolder, ImageRow

CONFIG = NullTTAConfig(num_inference_steps=3, guidance_scale=3.0, inner_steps=(1, 2), num_particles=2)
TASK = ContenderTask(config=CONFIG, target="colourfulness")
ONE = WorkerMachine(threads=1)


@pytest.fixture
def plan(checkpoint: Path) -> Plan:
    arms = [arm(name, 40, "40 evaluations", TASK) for name in ("plain", "best-of-n", "null-tta")]
    return Plan(
        model=str(checkpoint), prompts=["a", "b", "c"], seeds=[0, 1], arms=arms, measures=["brightness"],
        batch_size=2, gallery=1,
    )  # fmt: skip


def stripped(rows: list[ImageRow]) -> list[dict[str, Any]]:
    """Return the rows in order, without their times."""
    found = sorted(rows, key=lambda row: row.key)
    return [{k: v for k, v in vars(row).items() if not k.endswith("seconds") and k != "image"} for row in found]


def approximately(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows with a tolerance, because scores in batches of different sizes differ in their last bits."""
    about = {"scores": 1e-3, "nats": 1e-3}
    return [{**row, **{name: pytest.approx(row[name], rel=rel) for name, rel in about.items()}} for row in rows]


def test_all_arms_sample_the_first_prompts_first(plan: Plan) -> None:
    jobs = [(job.prompts, job.seed, job.arm.name) for job in plan.jobs()]
    names = ["plain", "best-of-n", "null-tta"]
    assert jobs == [(batch, seed, name) for batch in ((0, 1), (2,)) for seed in (0, 1) for name in names]


def test_rows_describe_their_images(plan: Plan, tmp_path: Path) -> None:
    store = BenchmarkFolder(tmp_path / "new")
    store.resume({}, lambda: (plan, {}))
    heard: list[ImageRow] = []
    sample(plan, store, ONE, heard.extend)
    rows = store.rows()
    assert stripped(heard) == approximately(stripped(rows))
    assert len({row.key for row in rows}) == len(rows) == plan.images == 18
    assert sorted(path.name for path in (store.folder / "images").iterdir()) == [
        "000-000-0.png", "001-000-0.png", "002-000-0.png",
    ]  # fmt: skip
    method, config = plan.arms[2].build()
    result = align(plan.model, ["b"], "colourfulness", config=config, method=method, seed=[own_seed(1, "b")])
    [row] = [row for row in rows if row.key == (plan.arms[2].key, 1, 1)]
    assert row.scores["colourfulness"] == pytest.approx(float(result.rewards[0]), abs=1e-4)
    assert row.scores["brightness"] == pytest.approx(float(result.images.mean()), abs=1e-4)
    assert (row.forward + row.backward, row.seconds > 0, row.clock_seconds > 0) == (
        pytest.approx(40, abs=3),
        True,
        True,
    )


def test_a_run_resumes_wherever_it_was_cut(plan: Plan, tmp_path: Path) -> None:
    whole, cut = BenchmarkFolder(tmp_path / "whole"), BenchmarkFolder(tmp_path / "cut")
    for store in (whole, cut):
        store.resume({"n": 1}, lambda: (plan, {}))
    sample(plan, whole, ONE)
    text = (whole.folder / ROWS).read_bytes()
    lines = text.splitlines(keepends=True)
    place = cut.folder / ROWS
    place.write_bytes(b"".join(lines[:4]) + lines[4][:25])  # a crash in the middle of the fifth row, and of a batch
    assert len(cut.rows()) == 4
    assert place.read_bytes() == b"".join(lines[:4])
    heard: list[ImageRow] = []
    sample(plan, cut, ONE, heard.extend)
    assert len(heard) == 14
    assert stripped(cut.rows()) == approximately(stripped(whole.rows()))
    sample(plan, cut, ONE, lambda rows: pytest.fail("nothing is left to do"))
    for length in (0, 1, len(text) - 1):
        place.write_bytes(text[:length])
        assert len(cut.rows()) == text[:length].count(b"\n")


def test_another_request_is_refused_in_the_same_folder(plan: Plan, tmp_path: Path) -> None:
    store = BenchmarkFolder(tmp_path)
    store.resume({"seeds": [0, 1], "model": "x"}, lambda: (plan, {}))
    assert store.resume({"seeds": (0, 1), "model": "x"}, lambda: pytest.fail("it is here")) == Plan.from_json(
        json.loads(json.dumps(plan.as_json()))
    )
    store.append([ImageRow(plan.arms[0].key, 0, 0, 1.0, 1.0, 1.0, 0.0, {"colourfulness": 0.5})], plan)
    with pytest.raises(NullTTAError, match="differs in model"):
        store.resume({"seeds": [0, 1], "model": "y"}, lambda: pytest.fail("it is refused before"))
    other = replace(plan, arms=[replace(plan.arms[0], config={"num_inference_steps": 2}), *plan.arms[1:]])
    with pytest.raises(NullTTAError, match="would be another"):
        store.resume({"seeds": [0, 1, 2], "model": "x"}, lambda: (other, {}))


@pytest.mark.parametrize(("file", "text"), [("rows.jsonl", "{}\n"), ("rows.jsonl", "x\n"), ("plan.json", "[]")])
def test_files_of_another_format_are_refused(tmp_path: Path, file: str, text: str) -> None:
    (tmp_path / file).write_text(text)
    with pytest.raises(NullTTAError, match=r"is not the plan|is not a row") as caught:
        BenchmarkFolder(tmp_path).plan() if file == "plan.json" else BenchmarkFolder(tmp_path).rows()
    assert "\n" not in str(caught.value)


def test_workers_write_the_same_rows_and_print_nothing(
    plan: Plan, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Other libraries print neither progress bars nor warnings there, while they load a model and a scorer."""
    alone, together = BenchmarkFolder(tmp_path / "alone"), BenchmarkFolder(tmp_path / "together")
    small = replace(plan, prompts=["a", "b"], seeds=[0], measures=["clip"])
    for store, machine in ((alone, ONE), (together, WorkerMachine(workers=2, threads=1))):
        store.resume({}, lambda: (small, {}))
        sample(small, store, machine)
    assert capfd.readouterr() == ("", "")
    assert stripped(alone.rows()) == approximately(stripped(together.rows()))


@pytest.mark.skipif(shutil.which("ps") is None, reason="ps lists the workers")
def test_workers_end_with_a_run_that_is_killed(plan: Plan, tmp_path: Path) -> None:
    """Otherwise they would wait for work forever."""
    BenchmarkFolder(tmp_path).resume({}, lambda: (replace(plan, seeds=list(range(1000))), {}))
    script = (
        "import sys; from pathlib import Path; from nulltta.benchmark.run import WorkerMachine, sample\n"
        "from nulltta.benchmark.store import BenchmarkFolder\n"
        "if __name__ == '__main__':\n"
        " store = BenchmarkFolder(Path(sys.argv[1]))\n"
        " sample(store.plan()[0], store, WorkerMachine(workers=2, threads=1))\n"
    )
    (tmp_path / "run.py").write_text(script)
    process = subprocess.Popen([sys.executable, tmp_path / "run.py", tmp_path], cwd=tmp_path)
    wait_until(lambda: (tmp_path / ROWS).exists() or process.poll() is not None)
    children = [pid for pid, parent in processes().items() if parent == process.pid]
    assert len(children) >= 2
    process.kill()
    process.wait()
    wait_until(lambda: not processes().keys() & children)
    assert not processes().keys() & children


def processes() -> dict[int, int]:
    """Return the running processes with their parents."""
    lines = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout.splitlines()
    return {int(pid): int(parent) for pid, parent in map(str.split, lines)}


def wait_until(true: Callable[[], bool]) -> None:
    """Wait for five minutes at most, as a busy machine takes long to import torch and diffusers."""
    deadline = time.monotonic() + 300
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)


def test_a_failing_job_names_its_arm_and_leaves_the_finished_rows(plan: Plan, tmp_path: Path) -> None:
    store = BenchmarkFolder(tmp_path)
    broken = replace(plan.arms[2], name="broken", config={**plan.arms[2].config, "learning_rate": 1e38})
    bad = replace(plan, arms=[plan.arms[0], broken])
    store.resume({}, lambda: (bad, {}))
    with pytest.raises(NullTTAError, match=r"^broken, target 'colourfulness', prompt 'a': .* finite"):
        sample(bad, store, ONE)
    assert [row.key[0] for row in store.rows()] == [plan.arms[0].key] * 2


def test_counting_leaves_the_model_unchanged(model: nulltta.GuidedModel) -> None:
    predict = model.predict
    with pytest.raises(ZeroDivisionError), counted(model):
        raise ZeroDivisionError
    assert model.predict == predict


def test_every_evaluation_of_noise_optimisation_is_counted_once(model: Any) -> None:
    with counted(model) as evaluations:
        align(model, "a", "colourfulness", config=CONFIG, method=DNO(iterations=2))
    T, n = 3, 2
    assert (evaluations.forward, evaluations.backward) == (2 * T * n + 2 * T, 2 * T * n)


def test_a_samplers_image_does_not_depend_on_its_batch(plan: Plan) -> None:
    sampler = JobSampler(plan, ONE)
    torch.set_num_threads(1)
    jobs = list(plan.jobs())
    both, alone = sampler(jobs[2]), sampler(replace(jobs[2], prompts=(1,)))
    assert alone[0].scores == pytest.approx(both[1].scores, rel=1e-3)
