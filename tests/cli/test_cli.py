"""`nulltta` on the command line: its output, exit codes and files."""

from __future__ import annotations

import json
import os
import re
import resource
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import asdict, fields
from pathlib import Path

import pytest
from PIL import Image

import nulltta
from nulltta import rewards
from nulltta.cli import main
from nulltta.config import NullTTAConfig
from nulltta.errors import RewardError
from nulltta.rewards.image_files import read_image
from nulltta.runs.folder import RunFolder
from nulltta.runs.request import flag

from ..command_line import refused

SAMPLER = ["--num-inference-steps", "3", "--guidance-scale", "3"]
SHORT = [*SAMPLER, "--inner-steps", "1", "1", "--num-particles", "2", "--learning-rate", "0.1"]


def arguments(model: Path, out: Path, *prompts: str, settings: Sequence[str] = SHORT) -> list[str]:
    return ["align", *prompts, "--model", str(model), "--reward", "brightness", "--out", str(out), *settings]


def test_help_imports_nothing_heavy() -> None:
    script = (
        "import sys; from nulltta.cli import main; code = main(['align', '--help']);"
        "heavy = {'torch', 'diffusers', 'transformers', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules);"
        "sys.exit(str(heavy) if heavy else code)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    for field in fields(NullTTAConfig):
        assert flag(field.name) in done.stdout


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nulltta {nulltta.__version__}\n"
    assert main([]) == 0
    assert "align" in capsys.readouterr().out


def test_one_prompt(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "out"
    prompt = "a [red] cat"
    assert main(arguments(checkpoint, out, prompt)) == 0
    assert sorted(p.name for p in out.iterdir()) == [
        "aligned.png", "comparison.png", "plain.png", "result.json", "trace.png",
    ]  # fmt: skip
    record = json.loads((out / "result.json").read_text())
    [result] = record["results"]
    score = result["scores"]["brightness"]
    assert score["aligned"] > score["plain"]
    assert record["status"] == "finished"
    assert record["unfinished"] == []
    assert set(record["versions"]) == {"nulltta", "python", "torch", "diffusers", "transformers"}
    assert [len(step["inner_rewards"]) for step in result["trace"]] == [1, 1, 1]
    for name in ("plain", "aligned"):  # the files contain the images that were scored
        with Image.open(out / result["files"][name]) as image:
            mean = sum(sum(pixel) for pixel in image.get_flattened_data()) / (3 * 255 * image.width * image.height)
        assert mean == pytest.approx(score[name], abs=0.002)
    shown = capsys.readouterr()
    assert prompt in shown.out
    gain = score["aligned"] - score["plain"]
    assert re.search(rf"brightness +{score['plain']:.3f} +{score['aligned']:.3f} +\+{gain:.3f} +target", shown.out)
    assert "3/3" in shown.err


def test_a_recorded_command_and_arguments_repeat_the_run(checkpoint: Path, tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    extra = ["--seed", "3", "--negative-prompt", "b", "--kl-target", "0.5", "--annealing", "auto"]
    assert main([*arguments(checkpoint, first), *extra, "--", "-a dash"]) == 0
    record = json.loads((first / "result.json").read_text())
    command = shlex.split(record["command"])
    command[command.index("--out") + 1] = str(second)
    assert command[0] == "nulltta"
    assert main(command[1:]) == 0
    assert json.loads((second / "result.json").read_text())["results"] == record["results"]
    given = dict(record["arguments"])
    again = nulltta.align(**{**given, "config": NullTTAConfig(**given["config"])})
    assert float(again.rewards[0]) == pytest.approx(record["results"][0]["scores"]["brightness"]["aligned"], abs=1e-5)
    with Image.open(first / "aligned.png") as image:
        assert image.info["prompt"] == "-a dash"
        assert shlex.split(image.info["command"])[-2:] == ["--", "-a dash"]


def test_resolved_auto_settings_are_recorded_and_repeat_the_run(checkpoint: Path, tmp_path: Path) -> None:
    """A reward without a gradient halves λ1, so that a command with 'auto' and 100 would describe another run."""
    first, second = tmp_path / "first", tmp_path / "second"
    settings = [*SAMPLER, "--inner-steps", "1", "1", "--reward", "jpeg", "--eta", "0.5"]
    assert main(arguments(checkpoint, first, "a", settings=settings)) == 0
    record = json.loads((first / "result.json").read_text())
    config = NullTTAConfig(**record["arguments"]["config"])
    assert (config.gradient, config.reward_weight, config.eta) == ("zeroth-order", 50.0, 0.5)
    result = nulltta.align(str(checkpoint), "a", "jpeg", config=config)
    assert asdict(result.problem.config) == asdict(config)
    command = shlex.split(record["command"])
    command[command.index("--out") + 1] = str(second)
    assert main(command[1:]) == 0
    assert json.loads((second / "result.json").read_text())["results"] == record["results"]


def test_a_sums_components_are_reported_plain_and_aligned(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reward = "2*(brightness - 0.5*colourfulness) + z(sharpness)"
    assert main([*arguments(checkpoint, tmp_path, "a"), "--reward", reward]) == 0
    record = json.loads((tmp_path / "result.json").read_text())
    scores = record["results"][0]["scores"]
    assert {name: score["role"] for name, score in scores.items()} == {
        reward: "target", "brightness": "component", "colourfulness": "component", "sharpness": "component",
    }  # fmt: skip
    shown = capsys.readouterr().out
    for way in ("plain", "aligned"):
        image = read_image(tmp_path / f"{way}.png")[None]
        for name in ("brightness", "colourfulness"):  # rounded to 8 bits since they were scored
            assert scores[name][way] == pytest.approx(float(rewards.load(name)(image, ["a"])), abs=0.004)
            assert re.search(rf"^   {name} .* {scores[name][way]:.3f} ", shown, re.MULTILINE)


def test_a_rewards_source_is_part_of_what_is_recorded(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = tmp_path / "my weights"
    weights.symlink_to(nulltta.embedded.WEIGHTS)
    words = [*arguments(checkpoint, tmp_path / "out", "a"), "--reward", "clip", "--reward-source", str(weights)]
    assert main(words) == 0
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert record["arguments"]["reward"] == f'clip:"{weights}"'
    assert "--reward-source" not in record["command"]
    capsys.readouterr()
    assert main([*words, "--reward", "clip + jpeg", "--overwrite"]) == 2
    assert "write sources into an expression" in capsys.readouterr().err


def test_prompts_in_batches_give_what_they_give_alone(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "prompts.txt"
    file.write_text("# the second and third\n../../b\n\n  c\n", encoding="utf-8-sig")
    out, alone = tmp_path / "many", tmp_path / "alone"
    assert main([*arguments(checkpoint, out, "a"), "--prompts", str(file), "--batch-size", "2"]) == 0
    assert main(arguments(checkpoint, alone, "c")) == 0
    record = json.loads((out / "result.json").read_text())
    assert [result["prompt"] for result in record["results"]] == ["a", "../../b", "c"]
    assert sorted(p.name for p in out.iterdir()) == ["000", "001", "002", "contact-sheet.png", "result.json"]
    for result in record["results"]:
        assert all((out / file).is_file() for file in result["files"].values())
    [single] = json.loads((alone / "result.json").read_text())["results"]
    assert record["results"][2]["scores"]["brightness"] == pytest.approx(single["scores"]["brightness"], abs=1e-4)
    shown = capsys.readouterr()
    assert "batch 2/2" in shown.err
    scores = [result["scores"]["brightness"] for result in record["results"]]
    plain, aligned = (sum(score[way] for score in scores) / 3 for way in ("plain", "aligned"))
    assert re.search(rf"mean of 3 prompts[^a-z]+plain.*\n.*\n brightness +{plain:.3f} +{aligned:.3f} ", shown.out)
    for score, prompt in zip(scores, ("a", r"\.\./\.\./b", "c"), strict=True):
        assert re.search(rf"^ {prompt} .*\{score['aligned'] - score['plain']:+.3f}", shown.out, re.MULTILINE)


def test_several_pictures_of_one_prompt(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, again, alone = (tmp_path / name for name in ("out", "again", "alone"))
    shorter = ["--num-inference-steps", "1"]
    assert main([*arguments(checkpoint, out, "a cat"), *shorter, "--seeds", "3,0-1"]) == 0
    shown = capsys.readouterr().out
    assert re.findall(r"^ a cat \(seed (\d)\)", shown, re.MULTILINE) == ["3", "0", "1"]
    assert "mean of 3 pictures" in shown
    assert sorted(p.name for p in out.iterdir()) == ["000", "001", "002", "contact-sheet.png", "result.json"]
    record = json.loads((out / "result.json").read_text())
    assert [result["seed"] for result in record["results"]] == [3, 0, 1]
    command = shlex.split(record["command"])
    assert command[command.index("--seeds") + 1] == "3,0-1"
    assert "--seed" not in command
    command[command.index("--out") + 1] = str(again)
    assert main(command[1:]) == 0
    assert json.loads((again / "result.json").read_text())["results"] == record["results"]
    with Image.open(out / "001" / "aligned.png") as image:
        words = shlex.split(image.info["command"])
    words[words.index("--out") + 1] = str(alone)
    assert main(words[1:]) == 0
    assert (read_image(alone / "aligned.png") - read_image(out / "001" / "aligned.png")).abs().max() < 1.5 / 255


MISTAKES = {
    "no prompt": ([], "no prompt"),
    "empty prompt": ([" "], "empty"),
    "bytes": (["\udcff"], "UTF-8"),
    "missing file": (["--prompts", "{tmp}/none.txt"], "--prompts '{tmp}/none.txt' cannot be read"),
    "empty file": (["--prompts", "{tmp}/empty.txt"], "no prompts"),
    "binary file": (["--prompts", "{tmp}/binary.txt"], "UTF-8"),
    "unknown reward": (
        ["a", "--reward", "brightnes"],
        "--reward: unknown reward 'brightnes': did you mean 'brightness'",
    ),
    "toy reward": (
        ["a", "--reward", "0.5*clip + brightness"],
        "--reward 'clip' knows what the model 'embedded' draws and nothing else: name another, such as pickscore",
    ),
    "toy reward of another world": (
        ["a", "--model", "embedded", "--reward", "clip + scenes-questions"],
        "--reward 'scenes-questions' knows what the model 'scenes' draws and nothing else: name another, such as clip ",
    ),
    "malformed reward": (["a", "--reward", "0.7*"], "malformed"),
    "unknown model": (["a", "--model", "nonesuch"], "--model: unknown model 'nonesuch'"),
    "no diffusers model": (["a", "--model", "{tmp}"], "--model: "),
    "guidance": (["a", "--guidance-scale", "1"], "--guidance-scale must be above 1, not 1"),
    "reversed": (["a", "--inner-steps", "5", "2"], "--inner-steps must be n_min n_max: (5, 2) is reversed"),
    "one number": (["a", "--inner-steps", "5"], "--inner-steps takes 2 values"),
    "one number before a flag": (["a", "--inner-steps", "5", "--seed", "1"], "must be two whole numbers, not '--seed'"),
    "three numbers": (["a", "--inner-steps", "5", "6", "7"], "'7' would be a prompt: give --inner-steps"),
    "no value": (["a", "--seed"], "--seed takes a value"),
    "no candidates": (["a", "--num-particles", "0"], "--num-particles"),
    "negative weight": (["a", "--reward-weight", "-1"], "--reward-weight"),
    "not a number": (["a", "--learning-rate", "fast"], "--learning-rate must be a number, not 'fast'"),
    "nan": (["a", "--kl-weight", "nan"], "--kl-weight"),
    "bad word": (["a", "--annealing", "slow"], "annealing"),
    "bad convention": (["a", "--conventions", "mine"], "--conventions must be one of paper, release, exact"),
    "too many steps": (["a", "--num-inference-steps", "2000"], "--num-inference-steps is above the 1000 steps"),
    "negative seed": (["a", "--seed", "-1"], "seed"),
    "seeds beside a seed": (["a", "--seeds", "0-7", "--seed", "1"], "--seeds gives every prompt these seeds: give no"),
    "malformed seeds": (["a", "--seeds", "-7"], "--seeds must be like 0-7 or 0,3,5: '-7' is neither"),
    "no seed": (["a", "--seed", "x"], "--seed must be a whole number, not 'x'"),
    "batch size": (["a", "--batch-size", "0"], "--batch-size must be"),
    "unknown device": (["a", "--device", "abacus"], "--device 'abacus'"),
    "no such device": (["a", "--device", "cuda:99"], "--device 'cuda:99'"),
    "device without numbers": (["a", "--device", "meta"], "--device 'meta'"),
    "no device": (["a", "--device", ""], "--device '' is not a device: give cpu, cuda, cuda:1 or mps"),
    "unknown type": (["a", "--dtype", "int8"], "--dtype must be one of float32, bfloat16, float16, not 'int8'"),
    "unknown flag": (["a", "--guidance", "2"], "--guidance"),
    "unwritable": (["a", "--out", "{tmp}/empty.txt/out"], "--out: cannot write to"),
    "no real folder": (["a", "--out", "/proc/new"], "--out: cannot write to '/proc/new'"),
    "a file": (["a", "--out", "{tmp}/empty.txt"], "is not a folder"),
}


@pytest.mark.parametrize(("words", "expected"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_refused_in_one_line_and_leaves_no_files(
    words: list[str], expected: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty.txt").write_text(" \n# nothing\n")
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x80")
    before = sorted(tmp_path.rglob("*"))
    given = [word.format(tmp=tmp_path) for word in words]
    line = refused([*arguments(checkpoint, tmp_path / "out"), *given], capsys)
    assert expected.replace("{tmp}", str(tmp_path)) in line
    assert sorted(tmp_path.rglob("*")) == before


def test_a_folder_belongs_to_one_run(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main([*arguments(checkpoint, out, "a", "b"), "--save-null-text", "small"]) == 0
    (out / "notes.txt").write_text("mine")
    before = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}
    capsys.readouterr()
    for again in (
        arguments(checkpoint, out, "c"),
        ["replay", str(out / "000/null-text.safetensors"), "--out", str(out)],
    ):
        assert main(again) == 2
        assert "holds the results of another run: give another folder, or --overwrite" in capsys.readouterr().err
        assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == before

    assert main([*arguments(checkpoint, out, "c"), "--overwrite"]) == 0
    left = {path.relative_to(out).as_posix() for path in out.rglob("*")}
    assert left == {"plain.png", "aligned.png", "comparison.png", "trace.png", "result.json", "notes.txt"}

    monkeypatch.chdir(tmp_path)  # without --out, the next folder without a run
    words = arguments(checkpoint, out, "d")
    place = words.index("--out")
    assert main([*words[:place], *words[place + 2 :]]) == 0
    assert "look at out-2/comparison.png" in capsys.readouterr().out


def test_an_overwritten_result_names_no_file_outside_the_folder(tmp_path: Path) -> None:
    (tmp_path / "precious.png").touch()
    folder = RunFolder(tmp_path / "out", {}, 1, "prompts")
    (tmp_path / "out").mkdir()
    entry = {"files": {"aligned": "../precious.png"}}
    (tmp_path / "out" / "result.json").write_text(json.dumps({"results": [entry]}))
    with folder.writing("running"):
        pass
    assert (tmp_path / "precious.png").exists()


FAILING = """
def shaky(images, prompts):
    raise ZeroDivisionError("no light")
"""


def test_a_reward_that_raises_is_one_line_and_debug_adds_the_traceback(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "failing_rewards.py").write_text(FAILING)
    monkeypatch.chdir(tmp_path)
    words = [*arguments(checkpoint, tmp_path / "out", "a"), "--reward", "failing_rewards:shaky"]
    assert main(words) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert line == "error: reward 'failing_rewards:shaky' failed: ZeroDivisionError: no light"
    assert main([*words, "--debug"]) == 1
    shown = capsys.readouterr().err
    assert 'raise ZeroDivisionError("no light")' in shown
    assert line in shown.splitlines()
    assert main(["align", "--debug", "--seed", "x"]) == 2


def test_an_unknown_command_is_refused_in_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["algin", "a"]) == 2
    assert re.fullmatch("error: .*algin.*\n", capsys.readouterr().err)


def test_too_long_a_prompt_is_warned_of_once(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt = "a" * 75 + "bcd"  # each letter is a token; 75 fit between the first and the last
    assert main([*arguments(checkpoint, tmp_path, prompt, "e"), "--batch-size", "1"]) == 0
    warnings = [line for line in capsys.readouterr().err.splitlines() if "warning: " in line]
    assert len(warnings) == 1
    assert "cut off: 'bcd'" in warnings[0]


def test_a_failure_keeps_the_finished_batches(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.runs.loading.align", failing_on("b", RewardError("reward 'brightness' is not finite")))
    assert main([*arguments(checkpoint, tmp_path / "out", "a", "b", "c"), "--batch-size", "1"]) == 1
    [line] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert "is not finite" in line
    assert "1 of 3 prompts" in line
    record = json.loads((tmp_path / "out" / "result.json").read_text())
    assert (record["status"], record["unfinished"]) == ("failed", ["b", "c"])


@pytest.mark.parametrize("most", [100, 5_000])
def test_a_file_that_does_not_fit_on_the_disk_is_one_line_and_nothing_is_half_written(
    most: int, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, limits[1]))
    try:
        code = main(arguments(checkpoint, out, "a"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert code == 2
    [line] = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("aligning ")]
    assert re.match(rf"error: cannot write to '{out}.*': File too large", line)
    assert not list(tmp_path.rglob("*.partial"))
    for picture in out.rglob("*.png"):
        read_image(picture)


def failing_on(prompt: str, error: BaseException):
    """Return an `align` that raises an error at a prompt."""

    def fake(model, prompts, reward, **rest):
        if prompt in prompts:
            raise error
        return nulltta.align(model, prompts, reward, **rest)

    return fake


@pytest.mark.parametrize(("interrupted_at", "kept"), [("a", 0), ("b", 1)])
def test_ctrl_c_keeps_what_is_finished(
    interrupted_at: str, kept: int, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("nulltta.runs.loading.align", failing_on(interrupted_at, KeyboardInterrupt()))
    out = tmp_path / "out"
    assert main([*arguments(checkpoint, out, "a", "b"), "--batch-size", "1"]) == 130
    line = capsys.readouterr().err.splitlines()[-1]
    assert line.startswith("interrupted: ")
    if not kept:
        assert "nothing was written" in line
        assert not out.exists()
    else:
        assert "1 of 2 prompts" in line
        record = json.loads((out / "result.json").read_text())
        assert (record["status"], record["unfinished"]) == ("interrupted", ["b"])


def test_a_real_ctrl_c_leaves_complete_files(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    prompts = [f"p{i}" for i in range(200)]
    ended = threading.Event()

    def interrupt_after_the_first_batch() -> None:
        while not (out / "result.json").exists() and not ended.wait(0.05):
            pass
        if not ended.is_set():
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have Ctrl-C ignored
    waiting = threading.Thread(target=interrupt_after_the_first_batch)
    waiting.start()
    try:
        code = main([*arguments(checkpoint, out, *prompts), "--batch-size", "2"])
    finally:
        ended.set()
        waiting.join()
        signal.signal(signal.SIGINT, before)
    errors = capsys.readouterr().err
    assert code == 130, errors
    assert "Traceback" not in errors
    record = json.loads((out / "result.json").read_text())
    finished = len(record["results"])
    assert f"interrupted: {finished} of 200 prompts" in errors
    assert 0 < finished < 200
    assert record["unfinished"] == prompts[finished:]
    names = {str(p.relative_to(out)) for p in out.rglob("*") if p.is_file()}
    listed = {file for result in record["results"] for file in result["files"].values()}
    assert names == listed | {"result.json", "contact-sheet.png"}
    for name in names - {"result.json"}:
        with Image.open(out / name) as image:
            image.load()


@pytest.mark.parametrize("method", ["plain", "best-of-n", "fk", "reno", "prompt-embedding"])
def test_every_method_can_be_run_and_is_reported(
    method: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / method
    settings = SHORT if method == "prompt-embedding" else SAMPLER
    words = [*arguments(checkpoint, out, "a cat", settings=settings), "--method", method, "--micro-batch", "1"]
    assert main([*words, "--num-inference-steps", "1"]) == 0
    record = json.loads((out / "result.json").read_text())
    assert record["arguments"]["method"] == method
    assert "--method" in record["command"]
    shown = capsys.readouterr()
    if method == "plain":  # nothing was aligned, and nothing scored on the way
        assert sorted(path.name for path in out.iterdir()) == ["plain.png", "result.json"]
        assert "align" not in shown.out + shown.err
    else:  # choosing among finished images has no course
        assert (out / "trace.png").exists() == (method != "best-of-n")


@pytest.mark.parametrize("form", ["jpeg", "webp"])
def test_other_formats_hold_their_command_too(form: str, checkpoint: Path, tmp_path: Path) -> None:
    words = arguments(checkpoint, tmp_path, "ein Kätzchen", settings=SAMPLER)
    words += ["--method", "plain", "--image-format", form]
    assert main(words) == 0
    with Image.open(tmp_path / f"plain.{form}") as image:
        assert image.format == form.upper()
        note = json.loads(image.getexif()[0x010E])
    assert note["prompt"] == "ein Kätzchen"
    assert shlex.split(note["command"])[-2:] == ["--", "ein Kätzchen"]
    assert f"--image-format {form}" in note["command"]


def test_the_doctor_estimates_what_a_run_takes(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["doctor", "--model", str(checkpoint), "--reward", "brightness", "--batch-size", "2", *SHORT]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    parts = [found["estimate"][name] for name in ("inner", "candidates", "references")]
    assert found["estimate"]["seconds"] == pytest.approx(sum(parts))
    assert found["packages"]["torch"]
    assert found["packages"]["peft"]
    assert main(asked) == 0
    assert "in batches of 2, at 3 steps" in capsys.readouterr().out
    assert main(["doctor", "--model", "nothing"]) == 2
