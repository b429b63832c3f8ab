from __future__ import annotations

from pathlib import Path

import pytest
from pictures import picture, tensor

from nulltta import NullTTAError
from nulltta.rewards import load
from nulltta.rewards.files import read_image, read_prompts, score_files


def test_pictures_of_a_folder_are_scored_in_order_with_their_parts(tmp_path: Path) -> None:
    sizes = [(20, 30), (20, 30), (16, 16)]
    for seed, size in enumerate(sizes):
        picture(*size, seed=seed).save(tmp_path / f"{seed}.png")
    (tmp_path / "prompts.csv").write_text("prompt,file\n" + "".join(f'"a cat, {k}",{k}.png\n' for k in (2, 0, 1)))
    pictures = read_prompts(tmp_path / "prompts.csv", tmp_path)
    assert pictures[0] == (tmp_path / "2.png", "a cat, 2")
    reward = load("brightness - jpeg")
    rows = list(score_files([reward], pictures, batch_size=2))
    assert [path.name for path, _, _ in rows] == ["2.png", "0.png", "1.png"]
    for path, prompt, scores in rows:
        seed = int(path.stem)
        image = tensor(picture(*sizes[seed], seed=seed))
        assert prompt == f"a cat, {seed}"
        assert list(scores) == [reward.name, "brightness", "jpeg"]
        assert scores[reward.name] == pytest.approx(reward(image, [""]).item(), rel=1e-5)
        assert scores["jpeg"] == pytest.approx(load("jpeg")(image, [""]).item())


def test_an_unreadable_picture_is_named_in_one_line(tmp_path: Path) -> None:
    picture(64, 64).save(tmp_path / "whole.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:200])
    (tmp_path / "text.png").write_text("hello")
    for name, says in (("cut", "cut short"), ("text", "no picture"), ("absent", "no such file")):
        with pytest.raises(NullTTAError, match=rf"cannot read image '.*{name}\.png': .*{says}"):
            read_image(tmp_path / f"{name}.png")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("name,text\na.png,cat\n", "needs the columns file and prompt, not name, text"),
        ("file,prompt\na.png,cat\n,dog\n", "line 3 lacks"),
        ("file,prompt\n", "lists no pictures"),
        ("", "needs the columns"),
    ],
)
def test_a_bad_table_is_named(tmp_path: Path, text: str, says: str) -> None:
    table = tmp_path / "prompts.csv"
    table.write_text(text)
    picture(8, 8).save(tmp_path / "a.png")
    with pytest.raises(NullTTAError, match=says):
        read_prompts(table, tmp_path)
    with pytest.raises(NullTTAError, match="cannot read prompts"):
        read_prompts(tmp_path / "absent.csv", tmp_path)
