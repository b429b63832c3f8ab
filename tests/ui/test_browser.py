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
from nulltta.embedded.grammar import unknown_words
from nulltta.ui.engine import PageEngine
from nulltta.ui.first import EXAMPLES, starters
from nulltta.ui.templates import asset

from . import fragile

pytest.importorskip("gradio", reason="needs the extra ui")
pytest.importorskip("playwright", reason="needs Playwright: pip install playwright")
screens = runpy.run_path(str(Path(__file__).parents[2] / "studies" / "screens.py"))
CHROMIUM = screens["CHROMIUM"]
browser, downloaded, served, visit = (screens[name] for name in ("browser", "downloaded", "served", "visit"))

pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt install chromium"),
    pytest.mark.filterwarnings("default"),  # Gradio's and uvicorn's own
]
SHORT = {"num inference steps": 3, "inner steps: n_min": 1, "inner steps: n_max": 1, "num particles": 2}
FAULTS = """() => {
    const luminance = ([r, g, b]) => [r, g, b].map(v => v / 255).map(v => v <= 0.04045 ? v / 12.92
        : ((v + 0.055) / 1.055) ** 2.4).reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const numbers = colour => (colour.match(/[\\d.]+/g) ?? []).map(Number);
    const behind = element => {
        for (let at = element; at; at = at.parentElement) {
            const [r, g, b, a = 1] = numbers(getComputedStyle(at).backgroundColor);
            if (a > 0.99 && r !== undefined) return [r, g, b];
        }
        return [255, 255, 255];
    };
    const seen = element => element.checkVisibility({checkOpacity: true, checkVisibilityCSS: true})
        && element.getBoundingClientRect().width > 1;
    const faults = [];
    for (const element of document.querySelectorAll(".gradio-container *")) {
        if (!seen(element)) continue;
        const text = [...element.childNodes].filter(node => node.nodeType === 3).map(node => node.data.trim()).join("");
        const [r, g, b] = numbers(getComputedStyle(element).color);
        if (text && !element.closest(":disabled, .disabled, svg")) {
            const [bright, dark] = [luminance([r, g, b]), luminance(behind(element))].sort((x, y) => y - x);
            const contrast = (bright + 0.05) / (dark + 0.05);
            if (contrast < 4.5) faults.push(`contrast ${contrast.toFixed(2)} of "${text.slice(0, 40)}"`);
        }
        const named = element.alt || element.closest("button");
        if (element.tagName === "IMG" && !named) faults.push("an image without alt text");
        const box = element.getBoundingClientRect();
        if (element.matches("#ask button, #answers button, a.button, select") && (box.height < 24 || box.width < 24)) {
            faults.push(`a target of ${box.width}×${box.height}: ${element.outerHTML.slice(0, 80)}`);
        }
    }
    return faults;
}"""


@pytest.fixture(scope="module")
def url(engine: PageEngine) -> Iterator[str]:
    with served(engine) as address:
        yield address


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    with browser() as started:
        yield started


@pytest.fixture(params=["laptop", "phone"])
def page(request: pytest.FixtureRequest, chromium: Any, url: str) -> Iterator[Any]:
    """Visit the page, and check that it raises no error, does not scroll sideways and asks no other server."""
    errors, asked = [], []
    with visit(chromium, "about:blank", request.param) as page:
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on("request", lambda sent: asked.append(sent.url))
        page.on("response", lambda got: errors.append(f"{got.status} {got.url}") if got.status >= 500 else None)
        page.set_default_timeout(45_000)
        page.goto(url)
        page.wait_for_selector(".better")
        page.wait_for_function("document.body.classList.contains('reward-as-text')")  # the test's reward has a source
        yield page
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
        assert errors == []
        assert [place for place in asked if not place.startswith((url, "data:", "blob:"))] == []


on_a_laptop = pytest.mark.parametrize("page", ["laptop"], indirect=True)


def align(page: Any, prompts: str = "a cat", reward: str = "brightness", **settings: float) -> None:
    page.locator("#prompts textarea").fill(prompts)
    page.locator("#reward textarea").fill(reward)
    if not page.get_by_label("num particles").first.is_visible():
        page.locator("#more button").first.click()
    for label, value in {**SHORT, **settings}.items():
        page.get_by_label(label).first.fill(str(value))
    page.locator("#prompts textarea").press("Control+Enter")


def done(page: Any) -> None:
    page.wait_for_selector("#status:has-text('Done'), #status .error")
    assert "Done" in page.locator("#status").inner_text()
    page.wait_for_selector("#align:enabled")


def test_a_run_its_files_its_replay_and_a_reload(page: Any, tmp_path: Path) -> None:
    boxes = [page.locator(f"#{name}").bounding_box() for name in ("prompts", "reward", "align", "status")]
    if page.viewport_size["width"] < 700:
        assert [box["y"] for box in boxes] == sorted(box["y"] for box in boxes)
    align(page, prompts="a cat\na dog", reward="0.7*brightness + 0.3*colourfulness", Seed=7)
    done(page)
    page.wait_for_selector("#history .thumbnail-item >> nth=1")
    assert page.locator("#scores tbody tr").count() == 3  # the sum, and its two parts
    assert page.locator("#how .candidates img").count() == 2
    assert page.locator("#status").bounding_box()["y"] < 300  # a phone has scrolled to it
    assert page.evaluate(FAULTS) == []

    with Image.open(downloaded(page, "image", tmp_path)) as image:
        assert image.text["prompt"] == "a cat"
        assert Path(image.filename).name == "a-cat-seed-7.png"
    file = downloaded(page, "null-text", tmp_path)
    assert NullText.load(file).prompt == "a cat"
    page.locator("#grid .thumbnail-item").nth(1).click()
    page.wait_for_selector("#answer p:has-text('a dog')")
    record = json.loads(downloaded(page, "record", tmp_path).read_text())
    assert [result["prompt"] for result in record["results"]] == ["a cat", "a dog"]

    page.locator("#replay-this").click()
    page.wait_for_selector("#replayed img >> nth=7")  # four seeds, plain and replay
    assert "“a dog”" in page.locator("#replay-status").inner_text()

    page.reload()
    page.wait_for_selector("#history .thumbnail-item >> nth=1")
    page.wait_for_function("document.querySelector('#prompts textarea').value === 'a cat\\na dog'")
    page.locator("#prompts textarea").fill("something else")
    page.locator("#history .thumbnail-item").first.click()
    page.wait_for_selector("#scores tbody tr")
    page.wait_for_function("document.querySelector('#prompts textarea').value === 'a cat\\na dog'")
    assert page.locator("#seed input").input_value() == "7"


def test_stop_keeps_the_best_so_far(page: Any) -> None:
    align(page, **{"num inference steps": 100})
    page.wait_for_selector("#live .previews img")
    assert "left" in page.locator("#status").inner_text()
    page.locator("#stop").click()
    page.wait_for_selector("#status:has-text('Stopped after')")
    page.wait_for_selector("#pair img")
    page.wait_for_selector("#stop", state="hidden")
    assert page.locator("#align").is_enabled()


@on_a_laptop
def test_a_mistake_is_shown_in_one_line_and_the_page_still_works(page: Any, tmp_path: Path) -> None:
    mistakes: list[tuple[dict[str, Any], str]] = [  # each message must differ from the one before
        ({"reward": "os:system"}, "not offered"), ({"reward": "clapp"}, "clapp"), ({"reward": "hpsv3"}, "hpsv3"),
        ({"reward": "clip +"}, "malformed"), ({"prompts": " "}, "no prompt"), ({"Seed": -1}, "seed must be"),
        ({"num particles": 2.5}, "num_particles must be"),
        ({"num particles": 2, "num inference steps": 9_999}, "at most on a page"),
        ({"prompts": "boom", "reward": fragile.NAME}, "LookupError"),
        ({"prompts": "exit", "reward": fragile.NAME}, "SystemExit"),
    ]  # fmt: skip
    for settings, says in mistakes:
        align(page, **{"Seed": 0, **settings})
        page.wait_for_selector(f"#status .error:has-text('{says}')")
        page.wait_for_selector("#align:enabled")
    (tmp_path / "holiday.safetensors").write_bytes(b"no")
    page.get_by_role("tab", name="Replay").click()
    page.locator("#file input[type=file]").set_input_files(tmp_path / "holiday.safetensors")
    page.wait_for_selector("#file .file-preview")
    page.locator("#replay").click()
    page.wait_for_selector("#replay-status .error:has-text('holiday.safetensors')")


@on_a_laptop
def test_chips_weights_and_the_text_of_the_reward_are_one(page: Any) -> None:
    text = page.locator("#reward textarea")
    text.fill("brightness")
    colour, bright = (page.locator(f"[data-reward={name}]") for name in ("colourfulness", "brightness"))
    assert bright.locator("[type=checkbox]").is_checked()
    colour.locator("[type=checkbox]").check()
    assert text.input_value() == "brightness + 0.3*colourfulness"
    bar, number = colour.locator("[type=range]"), colour.locator("[type=number]")
    bar.press("ArrowRight")
    bar.press("ArrowRight")
    assert (text.input_value(), number.input_value()) == ("brightness + 0.4*colourfulness", "0.4")
    number.fill("7")
    number.press("Tab")
    assert (text.input_value(), bar.input_value()) == ("brightness + 7*colourfulness", "7")
    number.fill("1e9")
    page.evaluate("window.nulltta.drawChips()")  # as Gradio does, some time after the text has changed
    assert "between -100 and 100" in page.locator(".refused").inner_text()
    number.press("Tab")
    page.wait_for_function("document.querySelector('[data-reward=colourfulness] [type=number]').value === '7'")
    assert text.input_value() == "brightness + 7*colourfulness"
    text.fill("z(brightness)")
    assert "written as text" in page.locator(".refused").inner_text()
    colour.locator("[type=checkbox]").check()  # what was written stays
    assert text.input_value() == "z(brightness) + 0.3*colourfulness"
    number.fill("2")
    assert text.input_value() == "z(brightness) + 2*colourfulness"
    colour.locator("[type=checkbox]").uncheck()
    assert text.input_value() == "z(brightness)"
    text.fill("brightness - 0.5*colourfulness")
    assert (number.input_value(), page.locator(".refused").is_visible()) == ("-0.5", False)
    colour.locator("[type=checkbox]").uncheck()
    assert text.input_value() == "brightness"


@on_a_laptop
def test_several_pictures_are_compared_by_keyboard_varied_and_restored(page: Any, tmp_path: Path) -> None:
    align(page, Seed=3)
    done(page)
    page.locator("#vary").click()  # four pictures, of the seeds that follow
    page.wait_for_selector("#grid .thumbnail-item >> nth=3")
    done(page)
    assert "of 4 (Vendi score)" in page.locator("#diversity").inner_text()
    record = json.loads(downloaded(page, "record", tmp_path).read_text())
    assert [result["seed"] for result in record["results"]] == [4, 5, 6, 7]

    plain, aligned = page.locator("#pair .plain"), page.locator("#pair .aligned")
    assert plain.bounding_box()["x"] + plain.bounding_box()["width"] <= aligned.bounding_box()["x"]
    page.locator("[name=compare]").first.press("ArrowRight")
    assert plain.bounding_box()["x"] == aligned.bounding_box()["x"]
    page.locator("#pair .at").press("Home")
    assert "100%" in plain.locator("img").evaluate("image => getComputedStyle(image).clipPath")
    page.locator("[name=compare]").nth(1).press("ArrowRight")
    assert not plain.is_visible()
    page.locator("#pair .hold").focus()
    page.keyboard.down("Space")
    assert plain.is_visible()
    page.keyboard.up("Space")
    assert not plain.is_visible()

    picture = downloaded(page, "image", tmp_path)
    page.locator("#prompts textarea").fill("something else")
    page.locator("#restore input[type=file]").set_input_files(picture)
    page.wait_for_function("document.querySelector('#prompts textarea').value === 'a cat'")
    assert page.locator("#seed input").input_value() == "4"


def test_two_visitors_take_turns_and_the_tabs_of_one_share_a_history(chromium: Any, url: str) -> None:
    with visit(chromium, url, "laptop") as first, visit(chromium, url, "laptop") as second:
        for page in first, second:
            page.wait_for_selector(".better")
        align(first, **{"num inference steps": 100})
        first.wait_for_selector("#live .previews img")
        align(second, prompts="a dog")
        second.wait_for_selector("#status:has-text('queue')")  # its place
        first.locator("#stop").click()
        done(second)
        first.wait_for_selector("#history .thumbnail-item")

        tab = second.context.new_page()  # another one of the second visitor's
        tab.goto(url)
        tab.wait_for_selector("#history .thumbnail-item")
        assert tab.locator("#history .thumbnail-item").count() == 1
        align(tab, prompts="a fox")
        done(tab)
        tab.wait_for_selector("#history .thumbnail-item >> nth=1")
        second.locator("#history .thumbnail-item").first.click()  # drawn before the other tab's run
        second.wait_for_selector("#answer p:has-text('a dog')")
        second.wait_for_selector("#history .thumbnail-item >> nth=1")
        assert first.locator("#history .thumbnail-item").count() == 1


@on_a_laptop
def test_the_dice_draw_a_seed(page: Any) -> None:
    seed, drawn = page.locator("#seed input"), set()
    for _ in range(2):
        before = seed.input_value()
        page.locator("#dice").click()
        page.wait_for_function("before => document.querySelector('#seed input').value !== before", arg=before)
        drawn.add(int(seed.input_value()))
    assert len(drawn) == 2
    assert all(0 <= number < 2**31 for number in drawn)


def test_words_and_examples_write_the_prompt(chromium: Any) -> None:
    """The pickers are shown with the embedded model only, which these tests do not load."""
    with visit(chromium, "about:blank", "laptop") as page:
        page.set_content(f"<div id=prompts><textarea></textarea></div>{starters()}<script>{asset('page.js')}</script>")
        prompt = page.locator("#prompts textarea")
        page.locator("[data-prompt]").nth(1).click()
        assert prompt.input_value() == EXAMPLES[1]
        page.locator(".words summary").click()
        page.get_by_label("background").select_option(label="on a blue background")
        thing, second = page.get_by_label("thing", exact=True), page.get_by_label("second thing")
        thing.select_option(label="fox")
        second.select_option("a rose")
        assert prompt.input_value().startswith("a fox and a rose on a blue background, ")
        page.get_by_label("number of things").select_option(index=1)
        assert prompt.input_value().startswith("two foxes on a blue background, ")
        assert second.is_disabled()
        page.get_by_label("style").select_option("noto")
        assert prompt.input_value() == "two foxes on a blue background, noto style"
        assert unknown_words(prompt.input_value(), "cpu") == []


def test_texts_stand_out_in_the_dark_too_and_idle_tabs_hold_no_connection(chromium: Any, url: str) -> None:
    open_streams = []
    with visit(chromium, "about:blank", "dark") as page:
        page.on("request", lambda sent: open_streams.append(sent.url) if "heartbeat" in sent.url else None)
        page.goto(url)
        page.wait_for_selector(".better")
        page.wait_for_timeout(500)
        assert page.evaluate(FAULTS) == []
        assert open_streams == []  # six idle tabs would use up the browser's connections to one server
