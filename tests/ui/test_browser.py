"""The page in a real browser, as wide as on a laptop and on a phone."""

from __future__ import annotations

import json
import runpy
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from nulltta import NullText
from nulltta.ui.engine import PageEngine

from . import fragile

pytest.importorskip("gradio", reason="needs the extra ui")
pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
screens = runpy.run_path(str(Path(__file__).parents[2] / "studies" / "screens.py"))
CHROMIUM, DEVICES = screens["CHROMIUM"], screens["DEVICES"]
browser, downloaded, served, visit = (screens[name] for name in ("browser", "downloaded", "served", "visit"))

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium"),
    pytest.mark.filterwarnings("default"),  # Gradio's and uvicorn's own
]
SHORT = {"num inference steps": 3, "inner steps: n_min": 1, "inner steps: n_max": 1, "num particles": 2}


@pytest.fixture(scope="module")
def url(engine: PageEngine) -> Iterator[str]:
    with served(engine) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(params=list(DEVICES))
def page(request: pytest.FixtureRequest, chromium: Any, url: str) -> Iterator[Any]:
    """Visit the page, and check that it raises no error, does not scroll sideways and asks no other server."""
    errors, asked = [], []
    with visit(chromium, "about:blank", request.param) as page:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda sent: asked.append(sent.url))
        page.goto(url)
        page.wait_for_selector("#align")
        yield page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        assert errors == []
        assert [place for place in asked if not place.startswith((url, "data:", "blob:"))] == []


def align(page: Any, prompts: str = "a cat", reward: str = "brightness", **settings: float) -> None:
    page.locator("#prompts textarea").fill(prompts)
    page.locator("#reward textarea").fill(reward)
    for label, value in {**SHORT, **settings}.items():
        page.get_by_label(label).first.fill(str(value))
    page.locator("#align").click()


def drop(page: Any, file: Path) -> None:
    page.get_by_role("tab", name="Replay").click()
    page.locator("#file input[type=file]").set_input_files(file)
    page.wait_for_selector("#file .file-preview")
    page.locator("#replay").click()


def test_a_run_its_files_and_its_replay(page: Any, tmp_path: Path) -> None:
    align(page, prompts="a cat\na dog", reward="0.7*brightness + 0.3*colourfulness")
    page.wait_for_selector("#history .thumbnail-item >> nth=1")
    assert page.locator("#weight-0").is_visible()
    assert page.locator("#scores tbody tr").count() == 3  # the sum, and its two parts
    assert page.locator("#candidates img").count() == 2
    assert "Done" in page.locator("#status").inner_text()
    assert page.locator("#status").bounding_box()["y"] < 300  # a phone has scrolled to it

    with Image.open(downloaded(page, "image", tmp_path)) as image:
        assert image.text["prompt"] == "a cat"
    file = downloaded(page, "null-text", tmp_path)
    assert NullText.load(file).prompt == "a cat"
    page.locator("#history .thumbnail-item").nth(1).click()
    page.wait_for_selector("#scores caption:has-text('a dog')")
    record = json.loads(downloaded(page, "record", tmp_path).read_text())
    assert [result["prompt"] for result in record["results"]] == ["a cat", "a dog"]

    drop(page, file)
    page.wait_for_selector("#replayed img >> nth=7")  # four seeds, plain and replay
    assert "“a cat”" in page.locator("#replay-status").inner_text()


def test_stop_keeps_the_best_so_far(page: Any) -> None:
    align(page, **{"num inference steps": 100})
    page.wait_for_selector("#live .previews img")
    assert "left" in page.locator("#status").inner_text()
    page.locator("#stop").click()
    page.wait_for_selector("#status:has-text('Stopped after')")
    page.wait_for_selector("#pair img")
    assert not page.locator("#stop").is_visible()
    assert page.locator("#align").is_enabled()


def test_a_mistake_is_shown_in_one_line_and_the_page_still_works(page: Any, tmp_path: Path) -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [  # each message must differ from the one before
        ({"reward": "os:system"}, "not offered"), ({"reward": "clapp"}, "clapp"),
        ({"reward": "clip +"}, "malformed"), ({"prompts": " "}, "no prompt"), ({"seed": -1}, "seed must be"),
        ({"num particles": 2.5}, "num_particles must be"),
        ({"num particles": 2, "num inference steps": 10**9}, "at most on a page"),
        ({"prompts": "boom", "reward": fragile.NAME}, "LookupError"),
    ]  # fmt: skip
    for settings, says in mistakes:
        align(page, **{"seed": 0, **settings})
        page.wait_for_selector(f"#status .error:has-text('{says}')")
        page.wait_for_selector("#align:enabled")
    (tmp_path / "holiday.safetensors").write_bytes(b"no")
    drop(page, tmp_path / "holiday.safetensors")
    page.wait_for_selector("#replay-status .error:has-text('holiday.safetensors')")


def test_moving_a_slider_rewrites_the_expression(page: Any) -> None:
    page.locator("#reward textarea").fill("0.7*brightness + 0.3*colourfulness")
    number = page.locator("#weight-1 input[type=number]")
    number.wait_for()
    number.fill("0.5")
    number.press("Tab")
    page.wait_for_function("document.querySelector('#reward textarea').value.endsWith('0.5*colourfulness')")
