"""`nulltta bench` on the command line, with a small benchmark."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from nulltta.benchmark.contenders import RIVALS
from nulltta.benchmark.request import BenchmarkRequest, parsed, world_prompts
from nulltta.benchmark.store import BenchmarkFolder
from nulltta.cli import main
from nulltta.errors import NullTTAError

from ..command_line import refused

SHORT = ["--num-inference-steps", "2", "--threads", "1"]


@pytest.fixture
def tiny(checkpoint: Path, tmp_path: Path) -> list[str]:
    """Return flags for a benchmark on the tiny checkpoint."""
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    (tmp_path / "tuning.txt").write_text("c\nd\n")
    files = ["--prompts-file", str(tmp_path / "prompts.txt"), "--tuning-file", str(tmp_path / "tuning.txt")]
    return ["--model", str(checkpoint), "--guidance-scale", "3", *files, *SHORT]


def test_smoke_on_the_embedded_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rivals and two ablations run on real prompts, from sampling to the report."""
    monkeypatch.setattr("nulltta.benchmark.difficulty.DRAWS", range(1000, 1001))
    monkeypatch.setattr("nulltta.benchmark.request.UNIT_PROMPTS", 3)
    out, pages = tmp_path / "run", tmp_path / "pages"
    ablations = ["no-consistency", "shared-null"]
    command = ["bench", "run", "--prompts", "3", "--seeds", "1", "--budget", "24", "--gallery", "1", *SHORT]
    command += [word for name in ("rivals", *ablations) for word in ("--contender", name)]
    assert main([*command, "--out", str(out)]) == 0
    assert main(["bench", "report", str(out), "--out", str(pages)]) == 0
    html, markdown = (pages / "report.html").read_text(), (pages / "report.md").read_text()
    for name in (*RIVALS, *ablations):
        if not name.startswith("fitted"):  # these need a file
            assert f"\n| {name} | " in markdown
            assert f"<td>{name}</td>" in html
    assert re.search(r"Target clip, 24 evaluations per image, 3 prompts: Null-TTA changes the target by [+-]\d", html)
    pictures = re.findall(r"\]\((.+?\.png)\)", markdown)
    assert len(pictures) == html.count("data:image/png;base64,") == 5
    assert (
        "everything right, % | all | hardest third (1) | middle third (1) | easiest third (1) | one (1) |" in markdown
    )
    for picture in pictures:
        with Image.open(pages / picture) as image:
            image.verify()
    assert not re.search(r'(src|href)="(?!data:)', html)
    rows = BenchmarkFolder(out).rows()
    assert {round(row.forward + row.backward) for row in rows if "plain" not in row.arm} <= set(range(14, 25))
    measured = {"clip", "clip-b", "facts", "all right", "nearest render", "colourfulness", "high-frequency"}
    assert all(set(row.scores) == measured for row in rows)
    assert {row.nats > 0 for row in rows if row.arm.endswith("|null-tta")} == {True}
    assert "writes them up" in capsys.readouterr().out


def test_the_same_command_resumes_and_another_is_refused(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = [
        "bench",
        "run",
        *tiny,
        "--target",
        "colourfulness",
        "--budget",
        "30",
        "--seeds",
        "1",
        "--out",
        str(out),
    ]
    command += ["--contender", "plain", "--contender", "best-of-n", "--contender", "null-tta"]
    assert main(command) == 0
    lines = (out / "rows.jsonl").read_text().splitlines(keepends=True)
    assert len(lines) == 6
    (out / "rows.jsonl").write_text("".join(lines[:3]))
    assert main(command) == 0
    assert len((out / "rows.jsonl").read_text().splitlines()) == 6
    assert main([*command, "--measure", "sharpness"]) == 2
    assert "it differs in measures" in capsys.readouterr().err
    assert main([*command, "--dtype", "bfloat16"]) == 2
    assert "it differs in dtype" in capsys.readouterr().err


def test_a_benchmark_can_grow_and_keeps_its_rows(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"

    def run(seeds: int, prompts: str, *contenders: str) -> int:
        (tmp_path / "prompts.txt").write_text(prompts)
        names = [word for name in contenders for word in ("--contender", name)]
        more = ["--target", "colourfulness", "--budget", "30", "--seeds", str(seeds), "--gallery", "1"]
        return main(["bench", "run", *tiny, *more, *names, "--out", str(out)])

    assert run(1, "a\nb\n", "plain", "null-tta") == 0
    store = BenchmarkFolder(out)
    found = store.plan()
    assert found is not None
    before, first = store.rows(), found[0]
    pictures = {path: path.read_bytes() for path in (out / "images").iterdir()}
    assert run(2, "a\nb\ne\n", "plain", "best-of-n", "null-tta") == 0
    rows, found = store.rows(), store.plan()
    assert found is not None
    assert [arm.name for arm in found[0].arms] == ["plain", "null-tta", "best-of-n"]
    assert found[0].arms[:2] == first.arms
    assert (rows[: len(before)], len(rows)) == (before, 3 * 3 * 2)
    assert all(path.read_bytes() == content for path, content in pictures.items())
    capsys.readouterr()
    for seeds, prompts, names, why in (
        (1, "a\nb\ne\n", ("plain", "best-of-n", "null-tta"), "seed 1 is missing"),
        (2, "b\na\ne\n", ("plain", "best-of-n", "null-tta"), "do not begin with"),
        (2, "a\nb\ne\n", ("plain", "best-of-n"), "arm 'colourfulness|30 evaluations|null-tta' is missing"),
    ):
        assert run(seeds, prompts, *names) == 2
        assert why in capsys.readouterr().err
    assert store.rows() == rows


def test_two_rewards_are_traded_off_and_a_budget_may_be_in_seconds(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    names = [word for name in ("plain", "best-of-n", "dps", "null-tta") for word in ("--contender", name)]
    command = [
        "bench",
        "run",
        *tiny,
        "--trade-off",
        "brightness",
        "colourfulness",
        "--weight",
        "0.25",
        "--weight",
        "1",
    ]
    assert main([*command, "--budget", "0.3s", *names, "--seeds", "1", "--out", str(out)]) == 0
    plan = json.loads((out / "plan.json").read_text())
    targets = list(dict.fromkeys(arm["target"] for arm in plan["plan"]["arms"]))
    assert [target.split("*")[0] for target in targets] == ["0.25", "1"]
    assert all("z(brightness, " in target and "z(colourfulness, " in target for target in targets)
    assert {arm["budget"] for arm in plan["plan"]["arms"]} == {"", "0.3s"}
    assert main(["bench", "report", str(out), "--out", str(tmp_path)]) == 0
    assert "Trade-off of brightness and colourfulness" in (tmp_path / "report.md").read_text()
    assert (tmp_path / "trade-off-0-0.png").exists()


def test_settings_are_tuned_and_used(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid = {"fk": [{"reward_weight": 0.1}, {"reward_weight": 5.0}], "dps": [{"scale": 0.0}, {"scale": 0.5}]}
    monkeypatch.setattr("nulltta.benchmark.tune.GRID", grid)
    out = tmp_path / "tuning"
    place = tiny.index("--prompts-file")
    flags = ["--target", "brightness", "--held-out", "sharpness", "--budget", "24", "--seeds", "1", "--out", str(out)]
    assert main(["bench", "tune", *tiny[:place], *tiny[place + 2 :], *flags]) == 0
    [tuned], record = (json.loads((out / name).read_text()) for name in ("settings.json", "tuning.json"))
    chosen = tuned["settings"]
    assert (tuned["target"], tuned["budget"], set(chosen)) == ("brightness", 24, {"fk", "dps"})
    tries = {(each["contender"], str(each["settings"])): each for each in record["search"]}
    assert len(tries) == 4
    for name, settings in chosen.items():
        [best] = [each for each in record["search"] if each["contender"] == name and each["chosen"]]
        assert best["settings"] == settings
    assert record["rule"].endswith("whose interval begins highest.")
    run = [
        "bench",
        "run",
        *tiny,
        "--target",
        "brightness",
        "--contender",
        "plain",
        "--contender",
        "fk",
        "--seeds",
        "1",
    ]
    assert main([*run, "--budget", "24", "--settings", str(out / "settings.json"), "--out", str(tmp_path / "run")]) == 0
    plan = json.loads((tmp_path / "run" / "plan.json").read_text())
    weight = plan["plan"]["arms"][1]["settings"]["reward_weight"]
    assert weight == pytest.approx(chosen["fk"]["reward_weight"] / plan["units"]["brightness"])


def test_methods_are_timed(tiny: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    place = tiny.index("--prompts-file")
    command = ["bench", "calibrate", "0.5", "2", *tiny[:place], *tiny[place + 2 :], "--target", "colourfulness"]
    assert main([*command, "--contender", "best-of-n", "--contender", "null-tta"]) == 0
    said = capsys.readouterr()
    assert [line for line in said.err.splitlines() if "timing" in line] == [
        "note: timing best-of-n (1 of 2)", "note: timing null-tta (2 of 2)",
    ]  # fmt: skip
    lines = [line.split("\t") for line in said.out.splitlines()]
    assert [line[0] for line in lines] == ["contender", "best-of-n", "null-tta"]
    for line in lines[1:]:
        assert float(line[1]) == pytest.approx(int(line[3]) / 2, rel=0.2, abs=1)


MISTAKES = {
    "unknown contender": (["--contender", "dsp"], "--contender 'dsp' is unknown"),
    "budget": (["--budget", "soon"], "not soon"),
    "target": (["--target", "clp"], "did you mean 'clip'"),
    "measure": (["--measure", "nope"], "unknown reward 'nope'"),
    "measure of a sum": (["--measure", "clip + "], "clip + "),
    "part of a trade-off": (["--trade-off", "clip", "nope"], "unknown reward 'nope'"),
    "weight": (["--trade-off", "clip", "brightness", "--weight", "nan"], "weight must lie between 0 and 1, not nan"),
    "no prompts": (["--prompts", "0"], "prompts must be 1 or more, not 0"),
    "fewer prompts": (["--prompts", "-1"], "prompts must be 1 or more, not -1"),
    "no seeds": (["--seeds", "0"], "seeds must be 1 or more"),
    "batch size": (["--batch-size", "0"], "must be 1 or more, not 0"),
    "gallery": (["--gallery", "-1"], "gallery must be 0 or more, not -1"),
    "steps": (["--num-inference-steps", "0"], "must be a whole number, 1 or more, not 0"),
    "held out": (["--target", "clip-b"], "choose another target"),
    "held out of another world": (
        ["--model", "scenes", "--target", "scenes-conv"],
        "'scenes-conv' is a held-out measure of all targets: choose another target",
    ),
    "another model without prompts": (["--model", "a/b"], "give --prompts-file"),
    "workers": (["--workers", "0"], "workers must be 1 or more, not 0"),
    "threads": (["--threads", "-1"], "threads must be 0 or more, not -1"),
    "budget of no seconds": (["--budget", "0s"], "not 0s"),
    "settings": (["--settings", "missing.json"], "cannot read settings from 'missing.json'"),
}


@pytest.mark.parametrize(("flags", "says"), MISTAKES.values(), ids=MISTAKES)
def test_mistakes_are_refused_in_one_line_before_anything_is_loaded_or_written(
    flags: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.benchmark.run.load_model", lambda *_: pytest.fail("a model is loaded"))
    out = tmp_path / "out"
    assert says in refused(["bench", "run", *flags, "--out", str(out)], capsys)
    assert not out.exists()


OTHER_MISTAKES = {
    "tune no prompts": (["tune", "--prompts", "0"], "prompts must be 2 or more, not 0"),
    "tune budget": (["tune", "--budget", "0"], "budget must be 1 or more, not 0"),
    "tune held out": (["tune", "--held-out", "nope"], "unknown reward 'nope'"),
    "tune target": (["tune", "--target", "clip-b"], "choose another target"),
    "calibrate seconds": (["calibrate", "nan"], "not nans"),
    "calibrate no time": (["calibrate", "0"], "not 0s"),
    "calibrate target": (["calibrate", "1", "--target", "nope"], "unknown reward 'nope'"),
    "calibrate contender": (["calibrate", "1", "--contender", "dsp"], "--contender 'dsp' is unknown"),
    "calibrate threads": (["calibrate", "1", "--threads", "-1"], "threads must be 0 or more, not -1"),
}


@pytest.mark.parametrize(("words", "says"), OTHER_MISTAKES.values(), ids=OTHER_MISTAKES)
def test_mistakes_of_the_other_commands_are_refused_in_one_line(
    words: list[str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.benchmark.run.load_model", lambda *_: pytest.fail("a model is loaded"))
    monkeypatch.chdir(tmp_path)
    assert says in refused(["bench", *words], capsys)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", ["run", "tune"])
def test_a_folder_that_cannot_be_written_to_is_refused_before_anything_is_loaded(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.benchmark.run.load_model", lambda *_: pytest.fail("a model is loaded"))
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file", tmp_path / "file" / "below", Path("/proc/nulltta")):
        assert refused(["bench", command, "--out", str(out)], capsys).startswith("error: cannot write to ")


def test_unreadable_files_are_refused_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("plan.json", "rows.jsonl"):
        folder = tmp_path / name
        (folder / name).mkdir(parents=True)
        if name == "rows.jsonl":
            plan = {
                "model": "x",
                "prompts": ["a"],
                "seeds": [0],
                "arms": [{"name": "a", "target": "b", "method": "plain"}],
            }
            (folder / "plan.json").write_text(json.dumps({"plan": plan}))
        assert main(["bench", "report", str(folder)]) == 2
        assert re.fullmatch(rf"error: cannot read '.*{name}': .*\n", capsys.readouterr().err)


def test_a_report_into_a_file_is_refused(tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["bench", "run", *tiny, "--target", "brightness", "--budget", "30", "--seeds", "1", "--gallery", "0"]
    assert main([*run, "--contender", "plain", "--contender", "best-of-n", "--out", str(tmp_path / "run")]) == 0
    (tmp_path / "file").write_text("")
    capsys.readouterr()
    assert main(["bench", "report", str(tmp_path / "run"), "--out", str(tmp_path / "file")]) == 2
    assert "cannot write to" in capsys.readouterr().err


def test_a_plan_without_rows_does_not_block_the_corrected_command(
    tiny: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Such a plan is left by a run that fails before its first image."""
    out = tmp_path / "run"
    run = ["bench", "run", *tiny, "--target", "brightness", "--budget", "30", "--seeds", "1"]
    run += ["--contender", "plain", "--contender", "best-of-n", "--out", str(out)]
    assert main(run) == 0
    (out / "rows.jsonl").unlink()
    assert main([*run, "--measure", "sharpness"]) == 0
    assert all("sharpness" in row.scores for row in BenchmarkFolder(out).rows())


def test_a_folder_without_a_benchmark_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "report", str(tmp_path)]) == 2
    assert "holds no benchmark" in capsys.readouterr().err


def test_reported_prompts_and_tuning_prompts_are_disjoint() -> None:
    reported, tuning = world_prompts("embedded", 64)
    assert not set(reported) & set(tuning)
    with pytest.raises(NullTTAError, match="nothing may be both"):
        BenchmarkRequest(prompts=reported, tuning=[*tuning, reported[3]])


def test_budgets() -> None:
    assert parsed("300") == ("300 evaluations", 300)
    assert parsed("2.5s") == ("2.5s", 2.5)
    for bad in ("0", "-3", "1.5", "s"):
        with pytest.raises(NullTTAError, match="budget"):
            parsed(bad)
