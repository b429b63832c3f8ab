"""What the page shows: the curve, previews, scores and errors."""

from __future__ import annotations

import base64
import io
import math
import re
from collections.abc import Callable
from dataclasses import replace
from threading import Event

import pytest
import torch
from PIL import Image

from nulltta.contracts import Step
from nulltta.evaluation.comparison import Comparison, Score
from nulltta.runs.request import AlignRequest
from nulltta.ui import show
from nulltta.ui.engine import PageEngine
from nulltta.ui.history import ShownPicture
from nulltta.ui.plots import reward_curve
from nulltta.ui.run import PageRun
from nulltta.ui.wording import better, duration, file_name, headline

TRACE = [
    Step(0, 9.0, torch.tensor([[0.0], [1.0]]), torch.tensor([[2.0, 1.0]]), torch.tensor([0]), torch.zeros(1)),
    Step(1, 5.0, torch.tensor([[2.0], [3.0]]), torch.tensor([[4.0, 0.0]]), torch.tensor([0]), torch.zeros(1)),
]


def points(path: str) -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in re.findall(r"([\d.]+) ([\d.]+)", path)]


def test_the_curve_goes_through_the_rewards_and_leaves_room_for_later_steps() -> None:
    drawn = reward_curve(TRACE, ahead=[0, 3])
    line = points(re.findall(r'd="(M[^"]*)"', drawn)[-1])
    assert [x for x, _ in line] == [0, 12.5, 25, 37.5, 50]
    heights = [y for _, y in line]
    assert heights == sorted(heights, reverse=True)  # rewards 0 1 2 3 4, upwards
    assert (heights[0], heights[-1]) == (96, 4)
    assert "4 of 7 inner steps" in drawn


def test_plain_samplings_reward_is_a_line_of_its_own() -> None:
    drawn = reward_curve(TRACE, plain=8.0, initial=[0.0])
    assert 'd="M0 4.00H100"' in drawn  # the highest value
    assert "dashed: plain" in drawn
    assert "dashed" not in reward_curve(TRACE)


def test_the_curve_of_one_value_is_flat() -> None:
    flat = [Step(0, 9.0, torch.empty(0, 1), torch.ones(1, 1), torch.tensor([0]), torch.zeros(1))]
    assert points(re.findall(r'd="(M[^"]*)"', reward_curve(flat))[-1]) == [(100, 96)]


def test_previews_are_embedded_in_the_page_and_prompts_are_escaped(
    engine: PageEngine, request_of: Callable[..., AlignRequest]
) -> None:
    asked = request_of(prompts=["<script>alert(1)</script>", 'a "cat"'])
    progress = next(iter(PageRun(engine, asked, Event())))
    html = show.live(asked, progress)
    assert "<script" not in html
    sources = re.findall(r'src="([^"]*)"', html)
    assert len(sources) == 2
    with Image.open(io.BytesIO(base64.b64decode(sources[0].removeprefix("data:image/webp;base64,")))) as picture:
        assert picture.size == (256, 256)  # of 16×16, enlarged
    assert "Step 1 of 3" in show.under_way(progress)


def test_scores_show_gains_and_dashes() -> None:
    scores = {"clip": Score(0.5, 0.75, "target"), "<b>": Score(math.nan, math.nan)}
    shown = ShownPicture("a <cat>", 0, {}, scores, "", 0.25, "", [])
    table = show.scores(shown)
    assert "a &lt;cat&gt;" in table
    assert '<td class="up">+0.250</td>' in table
    assert "&lt;b&gt;" in table
    assert "<td>–</td>" in table


def test_the_headline_names_the_target_the_second_judge_and_the_facts() -> None:
    scores = {
        "0.7*clip + z": Score(0.888, 0.932, "target"), "clip": Score(0.9, 1.0, "component"),
        "clip-b": Score(0.8, 0.843), "facts": Score(0.75, 1.0), "other": Score(math.nan, math.nan),
    }  # fmt: skip
    image = torch.zeros(3, 1, 1)
    words = headline(Comparison("a cat", 0, image, image, scores, [], torch.empty(0)))
    assert words == "0.7*clip + z 0.888 → 0.932 · second judge clip-b +0.043 · facts 0.750 → 1.000"


def test_rewards_are_described_in_plain_words_where_there_are_some() -> None:
    assert all(better(name, "") for name in ("clip", "clip-b", "jpeg", "pickscore", "aesthetic"))
    assert better("brightness", "the mean pixel") == "lighter"
    assert better("mine:warmth", "a summary") == "a summary"


def test_files_are_saved_under_names_that_say_what_they_show() -> None:
    assert file_name("Two foxes, on a <blue> background", 7, ".png") == "two-foxes-on-a-blue-background-seed-7.png"
    assert file_name("../../etc", 0, ".png") == "etc-seed-0.png"
    assert file_name("…", 0, ".zip") == "nulltta-seed-0.zip"


def test_the_range_of_the_curve_is_that_of_the_curve_and_of_plain_sampling() -> None:
    first = Step(0, 9.0, torch.empty(0, 1), torch.tensor([[0.5, -90.0]]), torch.tensor([0]), torch.zeros(1))
    drawn = reward_curve([first, replace(TRACE[1], index=1)], plain=0.25, initial=[-50.0])
    assert "<span>4.000</span><span>0.250</span>" in drawn
    assert points(re.findall(r'd="(M[^"]*)"', drawn)[-1])[0][0] > 0  # steps that are not optimised are on the line
    assert all(0 <= y <= 100 for _, y in points(drawn))


@pytest.mark.parametrize(("seconds", "words"), [(0.4, "0 s"), (59, "59 s"), (125, "2 min 5 s"), (3780, "1 h 3 min")])
def test_durations_are_written_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_an_error_is_shown_in_one_line() -> None:
    assert "what was &lt;wrong&gt;" in show.status("what\n was <wrong>", "error")
    assert "&lt;wrong&gt;" in show.status("<wrong>")
