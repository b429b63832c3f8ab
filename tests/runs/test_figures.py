"""Pictures: what they show, and that any text can be drawn."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from nulltta.contracts import Step
from nulltta.evaluation.comparison import Comparison, Score
from nulltta.runs import figures

AWKWARD = ["a", "$x_{$ [b] <i> \\frac", "😀 猫 кот →", "word " * 80, "x" * 400, "two\nlines\ttab"]


def step(index: int, inner: list[float], drawn: list[float], selected: int, kl: float) -> Step:
    rewards = torch.tensor(inner).reshape(-1, 1)
    return Step(index, 900 - index, rewards, torch.tensor([drawn]), torch.tensor([selected]), torch.tensor([kl]))


def comparison(prompt: str = "a cat", size: tuple[int, int] = (64, 64)) -> Comparison:
    """Return a comparison of a red plain and a green aligned image of (height, width)."""
    plain, aligned = torch.zeros(2, 3, *size)
    plain[0], aligned[1] = 1, 1
    trace = [step(0, [0.1, 0.2], [0.3, 0.25], 0, 0.01), step(1, [], [0.2, 0.4], 1, 0.02)]
    scores = {"clip": Score(0.1, 0.4), "facts": Score(math.nan, math.nan), "brightness": Score(0.5, 0.25)}
    return Comparison(prompt, 0, plain, aligned, scores, trace, torch.tensor([0.1, 0.05]))


def area(image: Image.Image, colour: tuple[int, int, int]) -> int:
    """Return the number of pixels of exactly one colour."""
    return sum(n for n, found in image.getcolors(maxcolors=2**24) if found == colour)


@pytest.mark.parametrize("size", [(64, 64), (48, 96), (300, 260), (256, 256)])
def test_comparison_shows_both_images_large(size: tuple[int, int]) -> None:
    picture = figures.comparison_picture(comparison(size=size))
    factor = max(1, 256 / min(size))
    pixels = round(size[0] * factor) * round(size[1] * factor)
    assert min(size) * factor >= 256
    assert area(picture, (255, 0, 0)) == area(picture, (0, 255, 0)) == pixels
    middle = picture.width // 2
    assert area(picture.crop((0, 0, middle, picture.height)), (255, 0, 0)) == pixels  # plain is on the left


def test_upscaling_keeps_the_colours_of_flat_areas_and_never_shrinks() -> None:
    image = Image.new("RGB", (64, 32), (70, 130, 220))
    assert figures.upscaled(image, 256).size == (512, 256)
    assert figures.upscaled(image, 256).getpixel((100, 100)) == (70, 130, 220)
    assert figures.upscaled(image, 16) is image


def test_gains_are_coloured_by_their_sign() -> None:
    picture = figures.comparison_picture(comparison())
    up, down = (tuple(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for colour in (figures.UP, figures.DOWN))
    assert area(picture, up) > 0
    assert area(picture, down) > 0
    flat = replace(comparison(), scores={"clip": Score(0.1, 0.1001), "facts": Score(math.nan, math.nan)})
    assert area(figures.comparison_picture(flat), up) == 0


@pytest.mark.filterwarnings("ignore:no installed font has")
@pytest.mark.parametrize("prompt", AWKWARD)
def test_any_prompt_can_be_drawn(prompt: str, tmp_path: Path) -> None:
    plain_width = figures.comparison_picture(comparison()).width
    assert figures.comparison_picture(comparison(prompt)).width == plain_width
    figures.save_figure(figures.trace_figure(comparison(prompt)), tmp_path / "trace.png")
    assert [p.name for p in tmp_path.iterdir()] == ["trace.png"]


def test_long_names_leave_room_for_their_numbers() -> None:
    scores = {"0.7*clip + 0.3*colourfulness - 0.1*brightness + 0.2*clip-b": Score(0.1, 0.9)}
    font = figures._font(16)
    [row] = figures._wrapped("y" * 500, font, 200, lines=3)
    assert font.getlength(row) <= 200
    picture = figures.comparison_picture(replace(comparison(), scores=scores))
    margin = picture.crop((picture.width - 8, 0, picture.width, picture.height))
    assert margin.getcolors() == [(8 * picture.height, (255, 255, 255))]


@pytest.mark.parametrize(("n", "columns", "rows"), [(1, 1, 1), (2, 2, 1), (3, 2, 2), (8, 2, 4), (32, 4, 8), (33, 4, 9)])
def test_sheet_holds_every_cell(n: int, columns: int, rows: int) -> None:
    cell = figures.contact_cell(comparison())
    sheet = figures.contact_sheet([cell] * n)
    assert sheet.size == (columns * cell.width, rows * cell.height)
    assert area(sheet, (255, 0, 0)) == n * area(cell, (255, 0, 0)) == n * figures.CELL_SIDE**2


def test_sheet_of_unequal_cells_and_of_too_many() -> None:
    short, tall = figures.contact_cell(comparison()), figures.contact_cell(comparison("word " * 30))
    assert figures.contact_sheet([short, tall, short]).height == tall.height + short.height
    assert figures.contact_sheet([short] * 500).height == figures.SHEET_ROWS * short.height


def test_trace_runs_through_the_selected_candidates() -> None:
    upper, lower = figures.trace_figure(comparison()).axes
    course, plain = upper.lines
    assert course.get_xydata() == pytest.approx(np.array([[0, 0.1], [1, 0.2], [3, 0.4]]))
    assert plain.get_ydata() == pytest.approx([0.1, 0.1])
    candidates, selected = (np.asarray(points.get_offsets()) for points in upper.collections)
    assert candidates == pytest.approx(np.array([[0, 0.1], [0, 0.05], [2, 0.3], [2, 0.25], [3, 0.2], [3, 0.4]]))
    assert selected == pytest.approx(np.array([[2, 0.3], [3, 0.4]]))
    assert lower.lines[0].get_xydata() == pytest.approx(np.array([[2, 0.01], [3, 0.02]]))
