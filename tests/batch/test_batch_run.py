"""`nulltta batch` in one process: what it writes, resumes and refuses."""

from __future__ import annotations

import json
import shlex
import signal
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFileSystem
from PIL import Image
from pyarrow import parquet

import nulltta
from nulltta.batch.folder import BatchFolder
from nulltta.cli import main

from ..command_line import refused
from .tables import SAMPLER, SHORT, arguments, require_each_row_once, table_of, written

ROWS = [{"id": "x", "prompt": "a [red] cat", "seed": 3}, {"id": "../../y", "prompt": "b", "seed": 4}]
BAD = [{"id": "x", "prompt": "again"}, {"prompt": "c", "seed": -1}, {"prompt": "d", "guidance_scale": 0.5}]


@pytest.fixture(autouse=True)
def rewards_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Provide a module in the current directory with a reward that fails for one prompt."""
    (tmp_path / "picky_reward.py").write_text(
        "def picky(images, prompts):\n"
        "    if 'bad' in prompts:\n"
        "        raise RuntimeError('cannot\\nread bad')\n"
        "    return images.flatten(1).mean(1)\n"
    )
    monkeypatch.chdir(tmp_path)


def test_good_rows_are_finished_and_bad_ones_are_reported(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = table_of([*ROWS, *BAD], tmp_path)
    with table.open("a") as file:
        file.write("not JSON\n")
    out = tmp_path / "new" / "out"
    assert main([*arguments(table, checkpoint, out), "--batch-size", "1"]) == 1
    require_each_row_once(out, ROWS, checkpoint)
    errors = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert [(error["row"], error["id"]) for error in errors] == [(3, "x"), (4, "4"), (5, "5"), (6, None)]
    for error, says in zip(errors, ("that of row 1", "not -1", "must be above 1, not 0.5", "not JSON"), strict=True):
        assert says in error["reason"]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new", "picky_reward.py", "prompts.jsonl"]
    line = capsys.readouterr().out
    assert line.startswith("2 of 6 rows are finished, 4 failed; mean reward 0.")
    assert line.endswith(f"{out / 'scores.parquet'}, reasons in {out / 'errors.jsonl'}\n")


def test_a_reward_may_read_latents(checkpoint: Path, tmp_path: Path) -> None:
    reward = "tests.rewards.latents:Redness + 0.5*brightness"
    assert main([*arguments(table_of(ROWS, tmp_path), checkpoint, tmp_path / "out"), "--reward", reward]) == 0
    scores = parquet.read_table(tmp_path / "out" / "scores.parquet").to_pylist()
    assert len(scores) == 2
    columns = {f"{name}.{which}" for name in ("redness", "brightness") for which in ("plain", "aligned")}
    assert all(columns <= set(row) for row in scores)


def test_a_finished_row_is_not_sampled_again(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    table = table_of(ROWS, tmp_path)
    assert main([*arguments(table, checkpoint, out), "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith("2 of 2 rows are finished")
    assert shown.err == ""
    first = written(out)
    assert main(arguments(table, checkpoint, out)) == 0
    assert written(out) == first

    new = {"id": "z", "prompt": "new", "seed": 5}
    changed = {**ROWS[0], "prompt": "changed"}
    assert main(arguments(table_of([new, ROWS[1], changed], tmp_path), checkpoint, out)) == 0
    assert first.items() < written(out).items()
    assert [row["prompt"] for row in parquet.read_table(out / "scores.parquet").to_pylist()] == ["new", "b", "changed"]

    kept = parquet.read_table(out / "scores.parquet").to_pylist()[1]  # a row that the next table has too
    lost = out / kept["image"]
    lost.unlink()
    assert main(arguments(table_of([*ROWS, new, {**changed, "id": "w"}], tmp_path), checkpoint, out)) == 0
    assert len(written(out)) == 5 * 3


def test_a_damaged_picture_or_record_is_done_again(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = arguments(table_of([{"prompt": "a", "seed": i} for i in range(7)], tmp_path), checkpoint, out, SAMPLER)
    words += ["--method", "plain"]
    assert main(words) == 0
    first = {path: path.read_bytes() for path in out.glob("*/*/*.*")}
    pictures, records = sorted(out.glob("images/*/*")), sorted(out.glob("rows/*/*"))
    damaged = {pictures[0]: first[pictures[0]][:200], pictures[1]: first[pictures[1]][:-1] + b"!"}  # of the same size
    contents = (b"", b"[]", b'{"image": 5}', b'{"files": {"": 1}}')
    damaged |= dict(zip(records[2:], contents, strict=False))
    for path, content in damaged.items():
        path.write_bytes(content)
    capsys.readouterr()
    assert main(words) == 0
    warned = [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning: ")]
    assert len(warned) == len(damaged)
    for path in damaged:
        assert any(line.endswith(f"is sampled again, because '{path.relative_to(out)}' is damaged") for line in warned)
    assert {path: path.read_bytes() for path in pictures} == {path: first[path] for path in pictures}


def test_a_finished_table_does_not_load_the_model(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    table = table_of(ROWS, tmp_path)
    assert main(arguments(table, checkpoint, tmp_path / "out")) == 0
    said = capsys.readouterr().out
    monkeypatch.setattr("nulltta.batch.worker.load", None)
    assert main(arguments(table, checkpoint, tmp_path / "out")) == 0
    assert capsys.readouterr().out == said


def test_a_failing_row_does_not_fail_the_rest_of_its_batch(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    table = table_of([{"prompt": "good"}, {"prompt": "bad"}, {"prompt": "too"}], tmp_path)
    words = [*arguments(table, checkpoint, out), "--reward", "picky_reward:picky"]
    assert main(words) == 1
    [error] = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert error == {"row": 2, "id": "2", "reason": "reward 'picky_reward:picky' failed: RuntimeError: cannot"}
    assert [row["prompt"] for row in parquet.read_table(out / "scores.parquet").to_pylist()] == ["good", "too"]
    assert main([*words[:1], str(table_of([{"prompt": "good"}], tmp_path)), *words[2:]]) == 0
    assert not (out / "errors.jsonl").exists()


def test_rows_can_differ_in_their_settings_and_a_picture_says_how_it_was_made(checkpoint: Path, tmp_path: Path) -> None:
    out, alone = tmp_path / "out", tmp_path / "alone"
    rows = [{"prompt": "a", "seed": 1}, {"prompt": "a", "seed": 1, "guidance_scale": 5.0, "negative_prompt": "n"}]
    assert main([*arguments(table_of(rows, tmp_path), checkpoint, out)]) == 0
    first, second = parquet.read_table(out / "scores.parquet").to_pylist()
    assert first["reward.aligned"] != second["reward.aligned"]
    assert json.loads(second["settings"])["guidance_scale"] == 5.0
    with Image.open(out / second["image"]) as image:
        command = shlex.split(image.info["command"])
    command[command.index("--out") + 1] = str(alone)
    assert main(command[1:]) == 0
    [result] = json.loads((alone / "result.json").read_text())["results"]
    assert result["scores"]["brightness"]["aligned"] == pytest.approx(second["reward.aligned"], abs=1e-4)


def test_a_setting_for_all_rows_needs_one_row_that_it_has_an_effect_on(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    rows = [
        {"prompt": "a", "gradient": "zeroth-order", "zeroth_order_directions": "white"},
        {"prompt": "b"},
        {"prompt": "c", "zeroth_order_radius": 0.5},
    ]
    words = arguments(table_of(rows, tmp_path), checkpoint, out)
    assert main([*words, "--zeroth-order-samples", "2", "--batch-size", "1"]) == 1
    first, second = parquet.read_table(out / "scores.parquet").to_pylist()
    assert [json.loads(row["settings"])["zeroth_order_samples"] for row in (first, second)] == [2, 2]
    [failed] = [json.loads(line) for line in (out / "errors.jsonl").read_text().splitlines()]
    assert failed["row"] == 3
    assert failed["reason"].startswith("zeroth_order_radius has no effect: the gradient is autograd")


def test_a_method_without_a_null_text_writes_none(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = [*arguments(table_of(ROWS, tmp_path), checkpoint, out, SAMPLER), "--method", "plain"]
    assert main(words) == 0
    table = parquet.read_table(out / "scores.parquet").to_pylist()
    assert [(row["id"], row["null_text"]) for row in table] == [("x", None), ("../../y", None)]
    assert [row["reward.aligned"] for row in table] == [row["reward.plain"] for row in table]
    first = written(out)
    assert len(first) == 2 * len(ROWS)
    assert main(words) == 0
    assert written(out) == first


MISTAKES = {
    "no table": (["batch"], "TABLE"),
    "unknown column": (["batch", "{tmp}/typo.jsonl"], "unknown column 'promt' in row 1: did you mean 'prompt'?"),
    "no prompts": (["batch", "{tmp}/seeds.csv"], "there is no column 'prompt'"),
    "another form": (["batch", "{tmp}/picky_reward.py"], ".jsonl, .csv, .parquet"),
    "unknown model": (["batch", "{tmp}/good.jsonl", "--model", "nonesuch"], "--model: unknown model 'nonesuch'"),
    "no reward": (["batch", "{tmp}/good.jsonl"], "--reward must name what is raised on this model"),
    "toy reward": (
        ["batch", "{tmp}/good.jsonl", "--reward", "clip"],
        "--reward 'clip' knows what the model 'embedded' draws",
    ),
    "no row can use it": (["batch", "{tmp}/cfg.jsonl", "--nag-scale", "3"], "--nag-scale has no effect: the guidance"),
    "no row uses it under this reward": (
        ["batch", "{tmp}/cfg.jsonl", "--zeroth-order-samples", "8"],
        "--zeroth-order-samples has no effect: the gradient is autograd",
    ),
    "no row has the tiny decoder": (
        ["batch", "{tmp}/good.jsonl", "--tiny-decoder", "no/where"],
        "--tiny-decoder has no effect",
    ),
    "unknown reward": (["batch", "{tmp}/good.jsonl", "--reward", "brightnes"], "did you mean 'brightness'"),
    "two sources": (
        ["batch", "{tmp}/good.jsonl", "--reward-source", "a/b", "--reward", "clip + jpeg"],
        "'clip + jpeg'",
    ),
    "negative seed": (["batch", "{tmp}/good.jsonl", "--seed", "-1"], "seed must be a whole number, 0 or more, not -1"),
    "batch size": (["batch", "{tmp}/good.jsonl", "--batch-size", "0"], "--batch-size must be a whole number"),
    "setting": (["batch", "{tmp}/good.jsonl", "--guidance-scale", "1"], "--guidance-scale must be above 1"),
    "workers of none": (["batch", "{tmp}/good.jsonl", "--workers", "2"], "need --engine ray"),
    "no workers": (["batch", "{tmp}/good.jsonl", "--engine", "ray", "--workers", "0"], "--workers"),
    "unknown engine": (
        ["batch", "{tmp}/good.jsonl", "--engine", "spark"],
        "--engine must be one of local, ray, not 'spark'",
    ),
    "no name": (["batch", "{tmp}/good.jsonl", "--out", " "], "--out must name a folder or an address"),
    "unknown method": (
        ["batch", "{tmp}/good.jsonl", "--method", "nonesuch"],
        "--method must be one of null-tta, plain",
    ),
    "a file": (["batch", "{tmp}/good.jsonl", "--out", "{tmp}/seeds.csv"], "cannot write to"),
    "no such address": (["batch", "{tmp}/good.jsonl", "--out", "nowhere://out"], "cannot write to 'nowhere://out'"),
    "in a file": (["batch", "{tmp}/good.jsonl", "--out", "{tmp}/seeds.csv/out"], "cannot write to"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_in_one_line_and_leaves_no_files(
    words: list[str], says: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "typo.jsonl").write_text('{"promt": "a"}\n')
    (tmp_path / "good.jsonl").write_text('{"prompt": "a"}\n')
    (tmp_path / "cfg.jsonl").write_text('{"prompt": "a", "guidance": "cfg"}\n{"prompt": "b", "num_particles": 3}\n')
    (tmp_path / "seeds.csv").write_text("seed\n1\n")
    before = sorted(tmp_path.rglob("*"))
    command, *rest = (word.format(tmp=tmp_path) for word in words)
    usual = ["--model", str(checkpoint), "--out", str(tmp_path / "new" / "out"), *SHORT]
    usual += [] if "is raised on this model" in says else ["--reward", "brightness"]
    assert says in refused([command, *usual, *rest], capsys)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_second_run_is_refused_and_a_killed_runs_leftovers_are_removed(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    words = arguments(table_of(ROWS, tmp_path), checkpoint, out)
    with BatchFolder.at(out).locked():
        assert main(words) == 2
        assert "another run is writing to" in capsys.readouterr().err
    assert not out.exists()
    (out / "rows").mkdir(parents=True)
    (out / "rows" / ".x.json.1234.partial").write_text('{"id"')
    assert main(words) == 0
    require_each_row_once(out, ROWS, checkpoint)


def test_a_full_disk_is_reported_in_one_line_and_leaves_no_row(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    assert main(arguments(table_of(ROWS, tmp_path), checkpoint, tmp_path / "out")) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("row", "kept"), [(1, 0), (2, 1)])
def test_ctrl_c_keeps_what_is_finished(
    row: int, kept: int, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupted(model, prompts, *rest, **named):
        if prompts == [ROWS[row - 1]["prompt"]]:
            raise KeyboardInterrupt
        return nulltta.align(model, prompts, *rest, **named)

    out = tmp_path / "out"
    words = [*arguments(table_of(ROWS, tmp_path), checkpoint, out), "--batch-size", "1"]
    with monkeypatch.context() as patch:
        patch.setattr("nulltta.runs.loading.align", interrupted)
        assert main(words) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("interrupted: 1 of 2 rows are finished" if kept else "interrupted: nothing was written")
    assert len(written(out)) == 3 * kept
    assert (out / "scores.parquet").exists() == bool(kept)
    assert main(words) == 0
    require_each_row_once(out, ROWS, checkpoint)


def test_sigterm_ends_a_run_as_ctrl_c_does(checkpoint: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    (tmp_path / "slow_reward.py").write_text(
        "import os, pathlib, signal\n"
        "def slow(images, prompts):\n"
        "    if list(pathlib.Path('out').glob('rows/*/*.json')):\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "    return images.flatten(1).mean(1)\n"
    )
    before = signal.getsignal(signal.SIGTERM)
    words = [*arguments(table_of(ROWS, tmp_path), checkpoint, out, SAMPLER), "--batch-size", "1"]
    words += ["--method", "plain"]
    assert main([*words, "--reward", "slow_reward:slow"]) == 130
    assert signal.getsignal(signal.SIGTERM) == before
    assert [row["id"] for row in parquet.read_table(out / "scores.parquet").to_pylist()] == ["x"]
    assert not (out / "scores").exists()


def test_results_may_go_to_any_address_that_fsspec_knows(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"memory://{tmp_path.name}/results"
    words = arguments(table_of(ROWS, tmp_path), checkpoint, tmp_path / "unused")
    words[words.index("--out") + 1] = out
    assert main(words) == 0
    assert f"{out}/scores.parquet" in capsys.readouterr().out
    files = MemoryFileSystem()
    with files.open(f"/{tmp_path.name}/results/scores.parquet") as file:
        rows = parquet.read_table(file).to_pylist()
    assert [row["id"] for row in rows] == ["x", "../../y"]
    with files.open(f"/{tmp_path.name}/results/{rows[0]['image']}") as file, Image.open(file) as image:
        assert image.info["id"] == "x"
    first = files.created(f"/{tmp_path.name}/results/{rows[0]['image']}")
    files.rm(f"/{tmp_path.name}/results/{rows[1]['null_text']}")
    assert main(words) == 0
    assert files.created(f"/{tmp_path.name}/results/{rows[0]['image']}") == first
    assert files.exists(f"/{tmp_path.name}/results/{rows[1]['null_text']}")
    assert not list(Path().glob("memory*"))
