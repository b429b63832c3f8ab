"""How does the web page look? Screenshots of it in a real browser, before, during and after a run, and replaying.

They are taken on a phone, a laptop, a wide screen and in the dark.

    python studies/screens.py

The script writes docs/images/ui-*.png. It needs Gradio, Playwright and Chromium: pip install 'nulltta[ui]' playwright,
apt install chromium. The page's tests visit it in the same way.
"""

from __future__ import annotations

import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from playwright.sync_api import sync_playwright

from nulltta.ui.app import PageAccess, launch
from nulltta.ui.engine import PageEngine

IMAGES = Path(__file__).parent.parent / "docs" / "images"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
DEVICES: dict[str, dict[str, Any]] = {
    "laptop": {"viewport": {"width": 1366, "height": 768}},
    "wide": {"viewport": {"width": 1920, "height": 1080}},
    "dark": {"viewport": {"width": 1366, "height": 768}, "color_scheme": "dark"},
    "phone": {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True},
}
PATIENCE = 120_000  # milliseconds


@contextmanager
def served(engine: PageEngine) -> Iterator[str]:
    """Serve the page inside the block; yields its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder:
        made = launch(engine, Path(folder), PageAccess(port=port))
        yield f"http://127.0.0.1:{port}/"
        made.close(verbose=False)


@contextmanager
def browser() -> Iterator[Any]:
    """Start Chromium without a window."""
    with sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@contextmanager
def visit(browser: Any, url: str, device: str) -> Iterator[Any]:
    """Open the page on a device."""
    context = browser.new_context(**DEVICES[device])
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    page.goto(url)
    yield page
    context.close()


def downloaded(page: Any, name: str, folder: Path) -> Path:
    """Download the file behind a button: image, record or null-text."""
    with page.expect_download() as coming:
        page.locator(f"#download-{name}").click()
    path = folder / str(coming.value.suggested_filename)
    coming.value.save_as(path)
    return path


def shoot(page: Any, device: str) -> None:
    """Take screenshots before, during and after a run and, on a laptop, of a replay of its null text."""

    def keep(moment: str, **options: Any) -> None:
        page.screenshot(path=IMAGES / f"ui-{device}-{moment}.png", **options)

    page.wait_for_selector(".first")
    page.wait_for_timeout(6000)  # the recorded run has been played
    keep("before")
    page.locator("#align").click()
    page.wait_for_selector("#status:has-text('Step 20')")
    keep("during")
    page.wait_for_selector("#status:has-text('Done')")
    page.wait_for_timeout(1500)  # until animations have ended
    keep("after", full_page=True, **({"clip": _from(page, "#answer")} if device == "phone" else {}))
    if device == "laptop":
        page.locator("#replay-this").click()
        page.wait_for_selector("#replayed img >> nth=7")
        page.wait_for_timeout(1500)
        keep("replay")


def _from(page: Any, selector: str) -> dict[str, float]:
    """Return the rectangle of the page's full width from an element down, with a small margin above."""
    top, width, height = page.evaluate(
        "selector => [document.querySelector(selector).getBoundingClientRect().top + scrollY, innerWidth,"
        " document.documentElement.scrollHeight]",
        selector,
    )
    return {"x": 0, "y": top - 8, "width": width, "height": height - top + 8}


def main(devices: Annotated[list[str] | None, typer.Argument(help="All of them by default.")] = None) -> None:
    """Take the screenshots that the documentation shows."""
    with served(PageEngine(["embedded"], "clip")) as url, browser() as chromium:
        for device in devices or DEVICES:
            with visit(chromium, url, device) as page:
                shoot(page, device)


if __name__ == "__main__":
    typer.run(main)
