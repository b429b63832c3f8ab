"""What the handlers of the page share: the components, how events are run, and showing a run again."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr

from nulltta.ui import page, show
from nulltta.ui.engine import PageEngine
from nulltta.ui.history import HistoryEntry, RunLibrary, places, thumbnails

Updates = dict[Any, Any]
ID_LENGTH = 32
"""The number of characters in the id of a browser."""
LIGHT: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
"""How handlers run that need no model."""
IN_BROWSER: dict[str, Any] = {"show_progress": "hidden", "api_visibility": "private"}
"""How handlers run that the server does not hear of."""
HEAVY: dict[str, Any] = {
    "concurrency_limit": 1, "concurrency_id": "model", "show_progress": "minimal", "api_visibility": "private",
}  # fmt: skip
"""How handlers run that need the model: one at a time, with their place in the queue."""


@dataclass(frozen=True)
class PageWiring:
    """Everything that the handlers refer to.

    Attributes:
        engine: the models and rewards.
        library: the finished runs.
        ask: the controls of a request.
        outcome: the progress and the result of a run.
        browser: the secret id that a browser keeps, of which the library knows the runs of all its tabs.
        shown: what a tab shows: the places of the thumbnails, and that of the picture, as `history.places` has them.
        form: what the browser keeps of the form: the values of the controls.
    """

    engine: PageEngine
    library: RunLibrary
    ask: page.RequestPanel
    outcome: page.ResultPanel
    browser: gr.BrowserState
    shown: gr.BrowserState
    form: gr.BrowserState

    @property
    def fields(self) -> list[Any]:
        """The controls of the form."""
        return list(self.ask.fields.values())

    @property
    def answers(self) -> list[Any]:
        """The components that show the picture of a run."""
        out = self.outcome
        return [
            self.browser, self.shown, out.results, out.answer, out.scores, out.how, out.grid, out.replay, out.past,
            out.first,
        ]  # fmt: skip


def chosen(on: PageWiring, browser: str, entry: HistoryEntry, b: int) -> Updates:
    """Show one picture of a run, and the thumbnails of all runs of its browser."""
    out, entries = on.outcome, on.library.of_browser(browser)
    several = len(entry.pictures) > 1
    grid = [(picture.files["thumbnail"], f"{picture.gain:+.3f}") for picture in entry.pictures] if several else []
    return {
        on.browser: browser, on.shown: {"listed": places(entries), "picture": (entry.name, b)},
        out.results: gr.Column(visible=True), out.answer: show.answer(entry, b),
        out.scores: show.scores(entry.pictures[b]), out.how: show.how(entry, b),
        out.grid: gr.Gallery(grid, visible=several), out.first: "",
        out.replay: gr.Button(interactive="null text" in entry.pictures[b].files),
        out.past: gr.Gallery(thumbnails(entries), visible=True),
        out.status: show.status(entry.said, notes=tuple(entry.notes)),
    }  # fmt: skip


def filled(on: PageWiring, form: Mapping[str, Any]) -> Updates:
    """Fill in the form."""
    return {on.ask.fields[name]: value for name, value in form.items() if name in on.ask.fields}


def browser_of(kept: Any) -> str:
    """Return the id that a browser keeps, or a new one if what it sends is not an id."""
    return kept if isinstance(kept, str) and len(kept) == ID_LENGTH else secrets.token_hex(ID_LENGTH // 2)


def run_shown(on: PageWiring, shown: Any, index: int | None = None) -> tuple[HistoryEntry, int]:
    """Return a run and the index of its picture.

    Args:
        on: what the handlers refer to.
        shown: what the tab shows; what a browser sends is not trusted.
        index: which of the thumbnails; None for the picture.

    Raises:
        gr.Error: if the server does not keep it any longer.
    """
    try:
        name, b = shown["picture"] if index is None else shown["listed"][index]
    except (TypeError, KeyError, IndexError, ValueError):
        name, b = "", 0
    entry = on.library.find(name) if isinstance(name, str) else None
    if entry is None or b not in range(len(entry.pictures)):
        raise gr.Error("the server does not keep this run any longer", print_exception=False)
    return entry, b
