"""The form: what it asks for, and how a picture restores it."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nulltta import NullTTAConfig, NullTTAError
from nulltta.images import save_png
from nulltta.ui.controls import controls
from nulltta.ui.form import form_of_picture, name_of, request_of

CONTROLS = controls()


def form(**changes: Any) -> dict[str, Any]:
    preset = NullTTAConfig.preset("embedded")
    settings = {name_of(control): control.value(preset) for control in CONTROLS}
    call = dict.fromkeys(("width", "height", "num_frames", "strength", "image", "mask"))
    own = {
        "prompts": "a fox\n\n a rose ", "reward": "clip", "seed": 3.0, "pictures": 1, "model": "embedded",
        "negative_prompt": "", "save_null_text": "exact",
    }  # fmt: skip
    return {**own, **call, **settings, **changes}


def test_a_form_asks_for_its_prompts_and_several_pictures_differ_by_their_seeds() -> None:
    asked = request_of(form(), CONTROLS)
    assert (asked.prompts, asked.seeds, asked.settings.config) == (
        ["a fox", "a rose"],
        [3, 3],
        NullTTAConfig.embedded(),
    )
    several = request_of(form(pictures=2), CONTROLS)
    assert several.prompts == ["a fox", "a fox", "a rose", "a rose"]
    assert several.seeds == [3, 4, 3, 4]


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": None}, "seed must be a whole number"), ({"seed": -1}, "seed must be"),
        ({"seed": 0.5}, "seed must be"),
        ({"pictures": 9}, "pictures must be 8 at most"), ({"prompts": " \n"}, "no prompt"),
        ({"strength": 7}, "strength must be"), ({"width": -8}, "width must be"), ({"image": "/etc/passwd"}, "uploaded"),
    ],
)  # fmt: skip
def test_values_out_of_range_are_refused_in_words(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(NullTTAError, match=says):
        request_of(form(**changes), CONTROLS)


def test_a_picture_restores_the_form_that_made_it(tmp_path: Path) -> None:
    filled = form(
        prompts="two foxes, \"quoted\"", reward="0.7*clip + 0.3*brightness", seed=11, negative_prompt="a ghost",
        num_inference_steps=7, kl_target=0.5, annealing="0.01", **{"inner_steps.0": 2, "inner_steps.1": 3},
    )  # fmt: skip
    asked = request_of(filled, CONTROLS)
    save_png(Image.new("RGB", (4, 4)), tmp_path / "ours.png", {"command": shlex.join(asked.command())})
    restored = form_of_picture(str(tmp_path / "ours.png"), CONTROLS)
    again = request_of({**form(), **restored}, CONTROLS)
    assert again == asked


def test_a_picture_that_is_not_ours_is_refused(tmp_path: Path) -> None:
    save_png(Image.new("RGB", (4, 4)), tmp_path / "holiday.png", {"command": "rm -rf 'unfinished"})
    save_png(Image.new("RGB", (4, 4)), tmp_path / "plain.png")
    (tmp_path / "text.png").write_text("no")
    for name in ("holiday.png", "plain.png", "text.png"):
        with pytest.raises(NullTTAError, match="picture"):
            form_of_picture(str(tmp_path / name), CONTROLS)
