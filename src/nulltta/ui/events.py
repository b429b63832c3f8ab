"""Running and replaying. Each handler returns the components that change, with their new values."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator
from typing import Any

import gradio as gr

from nulltta.errors import NullTTAError, first_line
from nulltta.ui import page, presets, show
from nulltta.ui.form import UPLOADS, request_of
from nulltta.ui.replay import replayed
from nulltta.ui.run import PageRun
from nulltta.ui.wiring import HEAVY, LIGHT, PageWiring, Updates, browser_of, chosen, run_shown

SCROLL_TO_RESULTS = """() => {
    const status = document.getElementById("status");
    if (status.getBoundingClientRect().top > innerHeight / 2) status.scrollIntoView();
}"""  # on a telephone the results are below the controls


class StopSignals:
    """One signal per visitor, which is set to stop the visitor's run."""

    def __init__(self) -> None:
        self._signals: dict[str, threading.Event] = {}

    def renewed(self, request: gr.Request) -> threading.Event:
        """Return a fresh signal for a request's visitor."""
        signal = self._signals[str(request.session_hash)] = threading.Event()
        return signal

    def of(self, request: gr.Request) -> threading.Event:
        """Return the signal of a request's visitor."""
        return self._signals.get(str(request.session_hash)) or self.renewed(request)

    def forget(self, request: gr.Request) -> None:
        """Forget a visitor whose run has ended."""
        self._signals.pop(str(request.session_hash), None)


def wire_run(on: PageWiring) -> None:
    """Connect the buttons that start and stop a run."""
    ask, outcome, stops = on.ask, on.outcome, StopSignals()
    buttons = [ask.start, outcome.stop, ask.fields["preset"]]

    def wait(request: gr.Request) -> Updates:
        stops.renewed(request)
        return {
            ask.start: gr.Button(interactive=False), outcome.stop: gr.Button(visible=True, interactive=True),
            outcome.status: show.status("Waiting for the model."), outcome.live: "", outcome.first: "",
            outcome.results: gr.Column(visible=False),
        }  # fmt: skip

    def work(request: gr.Request, kept: Any, *given: Any) -> Iterator[Updates]:
        try:
            form = dict(zip(ask.fields, given, strict=True))
            asked = request_of(form, ask.controls)
            page_run = PageRun(on.engine, asked, stops.of(request))
            for progress in page_run:
                yield {outcome.status: show.under_way(progress), outcome.live: show.live(asked, progress)}
            finished, said = page_run.finished, show.done(page_run.finished)
            browser = browser_of(kept)
            entry = on.library.keep(finished, {k: v for k, v in form.items() if k not in UPLOADS}, said, browser)
            yield {outcome.live: "", **chosen(on, browser, entry, 0)}
        except (Exception, SystemExit) as error:  # whatever a reward raises, the page goes on
            yield {outcome.status: show.status(_message(error), "error"), outcome.live: ""}
        finally:
            stops.forget(request)

    def end(model: str, pictures: Any) -> Updates:
        return {
            ask.start: gr.Button(interactive=True), outcome.stop: gr.Button(visible=False),
            ask.fields["preset"]: gr.Radio(choices=presets.choices(model, on.engine.paces[model], int(pictures or 1))),
        }  # fmt: skip

    def stop(request: gr.Request) -> Updates:
        stops.of(request).set()
        return {
            outcome.stop: gr.Button(interactive=False),
            outcome.status: show.status("Stopping after this denoising step; the best picture so far is kept."),
        }

    shown = [*on.answers, outcome.status, outcome.live]
    begun = ask.start.click(wait, None, [*buttons, *shown], **LIGHT).then(None, js=SCROLL_TO_RESULTS)
    ended = begun.then(work, [on.browser, *on.fields], shown, show_progress_on=outcome.status, **HEAVY)
    ended.then(end, [ask.fields["model"], ask.fields["pictures"]], buttons, **LIGHT)
    outcome.stop.click(stop, None, [outcome.stop, outcome.status], **LIGHT)


def wire_replay(on: PageWiring, replay: page.ReplayPanel, tabs: gr.Tabs) -> None:
    """Connect the buttons that replay a file, and the null text of the run that is shown."""

    def work(file: str | None, prompt: str, seeds: str, exact: bool, model: str, reward: str) -> Iterator[Updates]:
        yield {replay.status: show.status("Sampling."), replay.pictures: ""}
        try:
            made = replayed(on.engine, file, model=model, prompt=prompt, seeds=seeds, exact=exact, reward=reward)
        except (Exception, SystemExit) as error:
            yield {replay.status: show.status(_message(error), "error")}
        else:
            yield {replay.status: show.status(made.words), replay.pictures: show.replays(made)}

    def bring(shown_here: Any) -> Updates:
        entry, b = run_shown(on, shown_here)
        return {
            tabs: gr.Tabs(selected="replay"), replay.file: entry.pictures[b].files.get("null text"),
            replay.model: entry.form["model"], replay.prompt: "", replay.exact: False,
        }  # fmt: skip

    asked = [replay.file, replay.prompt, replay.seeds, replay.exact, replay.model, replay.reward]
    shown = [replay.status, replay.pictures]
    heavy = {**HEAVY, "show_progress_on": replay.status}
    replay.start.click(work, asked, shown, **heavy)
    filled = [tabs, replay.file, replay.model, replay.prompt, replay.exact]
    on.outcome.replay.click(bring, on.shown, filled, **LIGHT).then(work, asked, shown, **heavy)


def _message(error: BaseException) -> str:
    """Return one line on an error. An unexpected one, which a model or a reward may raise, is also printed in full."""
    if isinstance(error, NullTTAError):
        return str(error)
    traceback.print_exception(error)
    return f"the run failed: {type(error).__name__}: {first_line(error)}"
