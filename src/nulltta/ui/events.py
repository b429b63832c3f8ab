"""What happens on the page. Each handler returns the components that change, with their new values."""

from __future__ import annotations

import threading
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue, NullTTAError, first_line
from nulltta.runs.request import AlignRequest, RunSettings
from nulltta.ui import history, page, show
from nulltta.ui.controls import settings
from nulltta.ui.engine import PageEngine
from nulltta.ui.history import HistoryEntry
from nulltta.ui.replay import replayed
from nulltta.ui.run import PageRun
from nulltta.ui.weights import MAX_SLIDERS, sliders, weighed, with_term

SCROLL_TO_RESULTS = """() => {
    const answers = document.getElementById("answers");
    if (answers.getBoundingClientRect().top > innerHeight / 2) answers.scrollIntoView();
}"""  # on a telephone the results are below the controls
Updates = dict[Any, Any]
CALL = ("width", "height", "num_frames", "strength", "image", "mask")
"""The settings of the pipeline's own call, in the order of the page's controls for them."""

_LIGHT: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_HEAVY: dict[str, Any] = {
    "concurrency_limit": 1, "concurrency_id": "model", "show_progress": "hidden", "api_visibility": "private",
}  # fmt: skip


class StopSignals:
    """One signal per session, which is set to stop the session's run."""

    def __init__(self) -> None:
        self._signals: dict[str, threading.Event] = {}

    def of(self, request: gr.Request) -> threading.Event:
        """Return the signal of a request's session."""
        return self._signals.setdefault(str(request.session_hash), threading.Event())

    def close(self, request: gr.Request) -> None:
        """Stop the run of a session that has ended."""
        if stop := self._signals.pop(str(request.session_hash), None):
            stop.set()


def wire_run(
    engine: PageEngine, folder: Path, ask: page.RequestPanel, outcome: page.ResultPanel, runs: gr.State
) -> StopSignals:
    """Connect the buttons that start and stop a run; return the signals that stop runs."""
    stops = StopSignals()
    buttons = [ask.start, outcome.stop]

    def wait(request: gr.Request) -> Updates:
        stops.of(request).clear()
        return {
            ask.start: gr.Button(interactive=False), outcome.stop: gr.Button(visible=True, interactive=True),
            outcome.status: show.status("Waiting for the model."), outcome.live: "",
            outcome.results: gr.Column(visible=False),
        }  # fmt: skip

    def work(
        request: gr.Request, past: list[HistoryEntry], prompts: str, reward: str, seed: Any, model: str, negative: str,
        form: Literal["small", "exact"], *others: Any,
    ) -> Iterator[Updates]:  # fmt: skip
        try:
            of_call, values = others[: len(CALL)], others[len(CALL) :]
            config = settings(ask.controls, values, model)
            shared = RunSettings(config=config, model=model, reward=reward, **call_settings(of_call))
            asked = AlignRequest(
                prompts=[line.strip() for line in prompts.splitlines() if line.strip()], settings=shared,
                seed=_whole(seed), negative_prompt=negative, save_null_text=form,
            )  # fmt: skip
            page_run = PageRun(engine, asked, stops.of(request))
            for progress in page_run:
                yield {outcome.status: show.under_way(progress), outcome.live: show.live(asked, progress)}
            past = history.added(past, history.keep(page_run.finished, folder))
            yield {
                outcome.status: show.done(page_run.finished), outcome.live: "", runs: past,
                outcome.past: gr.Gallery(history.thumbnails(past), visible=True), **_chosen(outcome, past[-1], 0),
            }  # fmt: skip
        except Exception as error:
            yield {outcome.status: show.status(_message(error), "error"), outcome.live: ""}

    def stop(request: gr.Request) -> Updates:
        stops.of(request).set()
        return {outcome.stop: gr.Button(interactive=False)}

    shown = [runs, *_answers(outcome), outcome.status, outcome.live, outcome.past]
    asked = [ask.prompts, ask.reward, ask.seed, ask.model, ask.negative, ask.form, *ask.of_call, *ask.settings]
    begun = ask.start.click(wait, None, [*buttons, *shown], **_LIGHT).then(None, js=SCROLL_TO_RESULTS)
    ended = begun.then(work, [runs, *asked], shown, **_HEAVY)
    ended.then(lambda: [gr.Button(interactive=True), gr.Button(visible=False)], None, buttons, **_LIGHT)
    outcome.stop.click(stop, None, outcome.stop, **_LIGHT)
    return stops


def wire_reward(ask: page.RequestPanel) -> None:
    """Connect the expression with the sliders of its weights."""

    def moved(expression: str, *weights: float) -> str:
        return weighed(expression, weights) if sliders(expression) else expression

    def shown(expression: str) -> list[gr.Slider]:
        found = sliders(expression)
        return [page.slider(found[i] if i < len(found) else None) for i in range(MAX_SLIDERS)]

    ask.reward.change(shown, ask.reward, list(ask.weights), **_LIGHT)
    for weight in ask.weights:
        # `input` also hears of typed numbers and keys, which `release` does not.
        weight.input(moved, [ask.reward, *ask.weights], ask.reward, trigger_mode="always_last", **_LIGHT)
    ask.add.input(
        lambda expression, name: [with_term(expression, name) if name else expression, ""],
        [ask.reward, ask.add], [ask.reward, ask.add], **_LIGHT,
    )  # fmt: skip


def wire_model(ask: page.RequestPanel) -> None:
    """Show the preset of another model when it is chosen."""

    def preset(name: str) -> list[Any]:
        return [control.value(NullTTAConfig.preset(name)) for control in ask.controls]

    ask.model.change(preset, ask.model, list(ask.settings), **_LIGHT)


def wire_results(outcome: page.ResultPanel, runs: gr.State) -> None:
    """Show the run of a thumbnail that is clicked, and the prompt that is chosen."""
    shown_run = gr.State(-1)  # counted from the end of the history

    def bring(past: list[HistoryEntry], event: gr.SelectData) -> Updates:
        entry, b = history.place(past, int(event.index))
        return {shown_run: past.index(entry) - len(past), **_chosen(outcome, entry, b)}

    def choose(past: list[HistoryEntry], back: int, label: str) -> Updates:
        entry = past[back]
        return _chosen(outcome, entry, _labels(entry).index(label))

    outcome.past.select(bring, runs, [shown_run, *_answers(outcome)], **_LIGHT)
    outcome.which.input(choose, [runs, shown_run, outcome.which], _answers(outcome), **_LIGHT)
    runs.change(lambda: -1, None, shown_run, **_LIGHT)


def wire_replay(engine: PageEngine, replay: page.ReplayPanel) -> None:
    """Connect the button that replays a file."""

    def work(file: str | None, prompt: str, seeds: str, exact: bool, model: str, reward: str) -> Iterator[Updates]:
        yield {replay.status: show.status("Sampling."), replay.pictures: ""}
        try:
            made = replayed(engine, file, model=model, prompt=prompt, seeds=seeds, exact=exact, reward=reward)
        except Exception as error:
            yield {replay.status: show.status(_message(error), "error")}
        else:
            yield {replay.status: show.status(made.words), replay.pictures: show.replays(made)}

    asked = [replay.file, replay.prompt, replay.seeds, replay.exact, replay.model, replay.reward]
    replay.start.click(work, asked, [replay.status, replay.pictures], **_HEAVY)


def _answers(outcome: page.ResultPanel) -> list[Any]:
    """Return the components that `_chosen` fills."""
    return [
        outcome.results, outcome.which, outcome.pair, outcome.scores, outcome.image, outcome.record, outcome.null_text,
        outcome.curve, outcome.candidates,
    ]  # fmt: skip


def _chosen(outcome: page.ResultPanel, entry: HistoryEntry, b: int) -> Updates:
    """Show one prompt of a run."""
    comparison, labels = entry.finished.comparisons[b], _labels(entry)
    return {
        outcome.results: gr.Column(visible=True),
        outcome.which: gr.Dropdown(labels, value=labels[b], visible=len(labels) > 1),
        outcome.pair: gr.ImageSlider(entry.pair(b)),
        outcome.scores: show.score_table(comparison),
        outcome.image: _download(entry.file(b, "aligned.png")),
        outcome.record: _download(entry.result()),
        outcome.null_text: _download(entry.file(b, "null-text.safetensors")),
        outcome.curve: show.curve_of(comparison),
        outcome.candidates: show.candidates(entry.finished, b),
    }


def _download(file: str | None) -> gr.DownloadButton:
    return gr.DownloadButton(value=file, interactive=file is not None)


def _labels(entry: HistoryEntry) -> Sequence[str]:
    """Return the prompts of a run, numbered because two may be the same."""
    return [f"{b + 1}. {comparison.prompt}" for b, comparison in enumerate(entry.finished.comparisons)]


def call_settings(given: Sequence[Any]) -> dict[str, Any]:
    """Return the settings of the pipeline's call that were given, in the order of `CALL`.

    A browser has one kind of number.

    Raises:
        InvalidValue: if a picture is not one that was uploaded.
    """
    found = {name: value for name, value in zip(CALL, given, strict=True) if value not in (None, "", b"")}
    for name in ("image", "mask"):
        if not isinstance(found.get(name, b""), bytes):  # a visitor may not name a file
            raise InvalidValue("must be an uploaded picture", field=name)
    whole = {name: int(found[name]) for name in CALL[:3] if name in found and float(found[name]).is_integer()}
    return found | whole


def _whole(seed: Any) -> int:
    """Return a seed from a browser, which has one kind of number."""
    if seed is None or not 0 <= float(seed) < 2**63 or float(seed) != int(seed):
        raise InvalidValue(f"must be a whole number, 0 or more and below 2^63, not {seed}", field="seed")
    return int(seed)


def _message(error: Exception) -> str:
    """Return one line on an error. An unexpected one, which a model or a reward may raise, is also printed in full."""
    if isinstance(error, NullTTAError):
        return str(error)
    traceback.print_exception(error)
    return f"the run failed: {type(error).__name__}: {first_line(error)}"
