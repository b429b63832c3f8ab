"""Scoring pictures on the disk, by names or by a table."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from nulltta import NullTTAError
from nulltta.rewards import load
from nulltta.rewards.image_files import read_image, read_prompts, score_files

from .pictures import picture, tensor


def test_pictures_of_a_folder_are_scored_in_order_with_their_parts(tmp_path: Path) -> None:
    sizes = [(20, 30), (20, 30), (16, 16)]
    for seed, size in enumerate(sizes):
        picture(*size, seed=seed).save(tmp_path / f"{seed}.png")
    (tmp_path / "prompts.csv").write_text("prompt,file\n" + "".join(f'"a cat, {k}",{k}.png\n' for k in (2, 0, 1)))
    pictures = read_prompts(tmp_path / "prompts.csv", tmp_path)
    assert pictures[0] == (tmp_path / "2.png", "a cat, 2")
    reward = load("brightness - jpeg")
    rows = list(score_files([load("sharpness"), reward, load("jpeg")], pictures, batch_size=2))
    assert [path.name for path, _, _ in rows] == ["2.png", "0.png", "1.png"]
    for path, prompt, scores in rows:
        seed = int(path.stem)
        image = tensor(picture(*sizes[seed], seed=seed))
        assert prompt == f"a cat, {seed}"
        assert list(scores) == ["sharpness", reward.name, "brightness", "jpeg"]
        assert scores[reward.name] == pytest.approx(reward(image, [""]).item(), rel=1e-5)
        for name in ("sharpness", "brightness", "jpeg"):
            assert scores[name] == pytest.approx(load(name)(image, [""]).item(), rel=1e-5)


def test_an_unreadable_picture_is_named_in_one_line(tmp_path: Path) -> None:
    picture(64, 64).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "folder.png").mkdir()
    Image.fromarray(np.full((4, 4), 40_000, np.uint16)).save(tmp_path / "deep.png")
    for name, says in {
        "cut": "is truncated", "text": "not an image", "absent": "no such file", "folder": "directory",
        "deep": "more than 8 bits",
    }.items():  # fmt: skip
        with pytest.raises(NullTTAError, match=rf"cannot read image '.*{name}\.png': .*{says}"):
            read_image(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,text\na.png,cat\n", "needs the columns file and prompt, not name, text"),
        ("", "needs the columns file and prompt, not none"),
        ("file,prompt\n", "does not list any images"),
        ("file,prompt\na.png,cat\n,dog\n", "line 3 lacks"),
        ("file,prompt\na.png\n", "line 2 lacks"),
        ("file,prompt\na.png,a cat, red\n", "line 2 has more cells"),
        ("file,prompt\na.png,cat\n a.png ,dog\n", "line 3 repeats 'a.png'"),
        ("file,prompt\na.png,cat\nc.png,dog\n", "line 3 asks for 'c.png', which is not in"),
        ("file,prompt\na.png,cat\n", "has no prompt for 'b.JPG' in"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, text: str, says: str) -> None:
    table, folder = tmp_path / "prompts.csv", tmp_path / "pictures"
    folder.mkdir()
    table.write_text(text)
    for name in ("a.png", "b.JPG"):
        picture(8, 8).save(folder / name)
    with pytest.raises(NullTTAError, match=says):
        read_prompts(table, folder)


@pytest.mark.parametrize(
    "name", ["../secret.png", "inner/secret.png", "..\\secret.png", "C:secret.png", "{outside}", "..", ".", "inner"]
)
def test_a_table_may_contain_names_but_not_paths(tmp_path: Path, name: str) -> None:
    """Even where there is such a file."""
    folder = tmp_path / "pictures"
    (folder / "inner").mkdir(parents=True)
    secret = picture(8, 8)
    for place in (tmp_path / "secret.png", folder / "inner" / "secret.png", folder / "..\\secret.png"):
        secret.save(place)
    table = tmp_path / "prompts.csv"
    table.write_text("file,prompt\n" + name.format(outside=tmp_path / "secret.png") + ",a cat\n")
    with pytest.raises(NullTTAError, match=r"line 2 asks for '.*(not a path|which is not in)"):
        read_prompts(table, folder)


def test_an_unreadable_table_is_named(tmp_path: Path) -> None:
    (tmp_path / "latin.csv").write_bytes("file,prompt\na.png,caf\xe9\n".encode("latin-1"))
    for name, says in (("absent", "No such file"), ("latin", "it is not UTF-8 text")):
        with pytest.raises(NullTTAError, match=rf"cannot read prompts from '.*{name}\.csv': {says}"):
            read_prompts(tmp_path / f"{name}.csv", tmp_path)


def test_what_is_transparent_is_scored_as_white_not_by_its_hidden_colour(tmp_path: Path) -> None:
    hidden = Image.new("RGBA", (8, 8), (255, 0, 0, 0))
    hidden.paste((0, 0, 255, 255), (0, 0, 8, 4))
    hidden.save(tmp_path / "hidden.png")
    half = Image.new("LA", (8, 8), (0, 51))
    half.save(tmp_path / "half.png")
    seen = read_image(tmp_path / "hidden.png")
    assert seen[:, 0, 0].tolist() == [0, 0, 1]
    assert seen[:, 7, 0].tolist() == [1, 1, 1]
    assert read_image(tmp_path / "half.png")[:, 0, 0].tolist() == pytest.approx([0.8] * 3, abs=0.01)
