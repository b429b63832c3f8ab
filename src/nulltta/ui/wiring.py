"""What the handlers of the page share: the components, how events are run, and showing a run again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from nulltta.ui import page, show
from nulltta.ui.engine import PageEngine
from nulltta.ui.history import MAX_RUNS, HistoryEntry, RunLibrary, thumbnails

Updates = dict[Any, Any]
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
        runs: what the browser keeps of its runs: their names, and which picture is shown.
        form: what the browser keeps of the form: the values of the controls.
    """

    engine: PageEngine
    library: RunLibrary
    ask: page.RequestPanel
    outcome: page.ResultPanel
    runs: gr.BrowserState
    form: gr.BrowserState

    @property
    def fields(self) -> list[Any]:
        """The controls of the form."""
        return list(self.ask.fields.values())

    @property
    def answers(self) -> list[Any]:
        """The components that show the picture of a run."""
        out = self.outcome
        return [self.runs, out.results, out.answer, out.scores, out.how, out.grid, out.replay, out.past, out.first]


def chosen(on: PageWiring, names: Sequence[str], entry: HistoryEntry, b: int) -> Updates:
    """Show one picture of a run."""
    out, entries = on.outcome, on.library.find(names[-MAX_RUNS:])
    several = len(entry.pictures) > 1
    grid = [(picture.files["thumbnail"], f"{picture.gain:+.3f}") for picture in entry.pictures] if several else []
    return {
        on.runs: {"names": [each.name for each in entries], "shown": [entry.name, b]},
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


def names_of(kept: Any) -> list[str]:
    """Return the names of the runs that the browser keeps; what it sends is not trusted."""
    names = kept.get("names") if isinstance(kept, dict) else None
    return [name for name in names if isinstance(name, str)][-MAX_RUNS:] if isinstance(names, list) else []


def shown_run(on: PageWiring, kept: Any) -> tuple[HistoryEntry, int]:
    """Return the run that is shown and the index of its picture.

    Raises:
        gr.Error: if the server does not keep it any longer.
    """
    name, b = kept["shown"] if isinstance(kept, dict) and isinstance(kept.get("shown"), list) else (None, 0)
    entries = on.library.find([name])
    if not entries:
        raise gr.Error("the server does not keep this run any longer", print_exception=False)
    return entries[0], min(int(b), len(entries[0].pictures) - 1)
