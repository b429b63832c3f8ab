"""What the page does when something is pressed, moved or chosen: each handler returns what changes, by component."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import gradio as gr

from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.runs.request import AlignRequest, RunSettings
from nulltta.ui import history, page, show
from nulltta.ui.controls import settings
from nulltta.ui.engine import Engine
from nulltta.ui.history import Entry
from nulltta.ui.replays import replayed
from nulltta.ui.run import Finished, Progress, run
from nulltta.ui.weights import MOST, sliders, weighed, with_term

TO_THE_ANSWERS = """() => {
    const answers = document.getElementById("answers");
    if (answers.getBoundingClientRect().top > innerHeight / 2) answers.scrollIntoView();
}"""  # on a telephone they stand below the questions
Shown = dict[Any, Any]

_LIGHT: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
_HEAVY: dict[str, Any] = {
    "concurrency_limit": 1, "concurrency_id": "model", "show_progress": "hidden", "api_visibility": "private",
}  # fmt: skip


class Stops:
    """Whether each session's run is to stop."""

    def __init__(self) -> None:
        self._of: dict[str, threading.Event] = {}

    def of(self, request: gr.Request) -> threading.Event:
        return self._of.setdefault(str(request.session_hash), threading.Event())

    def gone(self, request: gr.Request) -> None:
        """Nobody looks any more."""
        if stop := self._of.pop(str(request.session_hash), None):
            stop.set()


def wire_run(engine: Engine, folder: Path, ask: page.Ask, outcome: page.Outcome, runs: gr.State) -> Stops:
    """The buttons that start a run and stop it."""
    stops = Stops()
    buttons = [ask.start, outcome.stop]

    def wait(request: gr.Request) -> Shown:
        stops.of(request).clear()
        return {
            ask.start: gr.Button(interactive=False), outcome.stop: gr.Button(visible=True, interactive=True),
            outcome.status: show.status("Waiting for the model."), outcome.live: "",
            outcome.results: gr.Column(visible=False),
        }  # fmt: skip

    def work(
        request: gr.Request, past: list[Entry], prompts: str, reward: str, seed: Any, model: str, negative: str,
        guard: str, form: Literal["small", "exact"], *values: Any,
    ) -> Iterator[Shown]:  # fmt: skip
        try:
            shared = RunSettings(
                config=settings(ask.controls, values, model), model=model, reward=reward,
                guard=None if guard == page.NO_GUARD else guard,
            )  # fmt: skip
            asked = AlignRequest(
                prompts=[line.strip() for line in prompts.splitlines() if line.strip()], settings=shared,
                seed=_whole(seed), negative_prompt=negative, save_null_text=form,
            )  # fmt: skip
            finished = yield from _followed(outcome, asked, run(engine, asked, stops.of(request)))
            past = history.added(past, history.keep(finished, folder))
            yield {
                outcome.status: show.done(finished), outcome.live: "", runs: past,
                outcome.past: gr.Gallery(history.thumbnails(past), visible=True), **_chosen(outcome, past[-1], 0),
            }  # fmt: skip
        except NullTTAError as error:
            yield {outcome.status: show.status(str(error), "error"), outcome.live: ""}

    def stop(request: gr.Request) -> Shown:
        stops.of(request).set()
        return {outcome.stop: gr.Button(interactive=False)}

    shown = [runs, *_answers(outcome), outcome.status, outcome.live, outcome.past]
    asked = [ask.prompts, ask.reward, ask.seed, ask.model, ask.negative, ask.guard, ask.form, *ask.settings]
    begun = ask.start.click(wait, None, [*buttons, *shown], **_LIGHT).then(None, js=TO_THE_ANSWERS)
    ended = begun.then(work, [runs, *asked], shown, **_HEAVY)
    ended.then(lambda: [gr.Button(interactive=True), gr.Button(visible=False)], None, buttons, **_LIGHT)
    outcome.stop.click(stop, None, outcome.stop, **_LIGHT)
    return stops


def _followed(
    outcome: page.Outcome, asked: AlignRequest, steps: Generator[Progress, None, Finished]
) -> Generator[Shown, None, Finished]:
    """What a run shows while it goes on; its value is what came of it."""
    while True:
        try:
            progress = next(steps)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]
        yield {outcome.status: show.under_way(progress), outcome.live: show.live(asked, progress)}


def wire_reward(ask: page.Ask) -> None:
    """The expression moves the sliders, a slider rewrites the expression."""

    def moved(expression: str, *weights: float) -> str:
        return weighed(expression, weights) if sliders(expression) else expression

    def shown(expression: str) -> list[gr.Slider]:
        found = sliders(expression)
        return [page.slider(found[i] if i < len(found) else None) for i in range(MOST)]

    ask.reward.change(shown, ask.reward, list(ask.weights), **_LIGHT)
    for weight in ask.weights:
        weight.release(moved, [ask.reward, *ask.weights], ask.reward, **_LIGHT)
    ask.add.input(
        lambda expression, name: [with_term(expression, name) if name else expression, ""],
        [ask.reward, ask.add], [ask.reward, ask.add], **_LIGHT,
    )  # fmt: skip


def wire_model(ask: page.Ask) -> None:
    """Another model brings its preset."""

    def preset(name: str) -> list[Any]:
        return [control.value(NullTTAConfig.preset(name)) for control in ask.controls]

    ask.model.change(preset, ask.model, list(ask.settings), **_LIGHT)


def wire_results(outcome: page.Outcome, runs: gr.State) -> None:
    """A thumbnail brings its run back; of several prompts, one is shown at a time."""
    shown_run = gr.State(-1)  # from the end of the history

    def bring(past: list[Entry], event: gr.SelectData) -> Shown:
        entry, b = history.place(past, int(event.index))
        return {shown_run: past.index(entry) - len(past), **_chosen(outcome, entry, b)}

    def choose(past: list[Entry], back: int, label: str) -> Shown:
        entry = past[back]
        return _chosen(outcome, entry, _labels(entry).index(label))

    outcome.past.select(bring, runs, [shown_run, *_answers(outcome)], **_LIGHT)
    outcome.which.input(choose, [runs, shown_run, outcome.which], _answers(outcome), **_LIGHT)
    runs.change(lambda: -1, None, shown_run, **_LIGHT)


def wire_replay(engine: Engine, replay: page.Replay) -> None:
    """The button that replays a file."""

    def work(file: str | None, prompt: str, seeds: str, exact: bool, model: str, reward: str) -> Iterator[Shown]:
        yield {replay.status: show.status("Sampling."), replay.pictures: ""}
        try:
            made = replayed(engine, file, model=model, prompt=prompt, seeds=seeds, exact=exact, reward=reward)
        except NullTTAError as error:
            yield {replay.status: show.status(str(error), "error")}
        else:
            yield {replay.status: show.status(made.words), replay.pictures: show.replays(made)}

    asked = [replay.file, replay.prompt, replay.seeds, replay.exact, replay.model, replay.reward]
    replay.start.click(work, asked, [replay.status, replay.pictures], **_HEAVY)


def _answers(outcome: page.Outcome) -> list[Any]:
    """What `_chosen` fills."""
    return [
        outcome.results, outcome.which, outcome.pair, outcome.scores, outcome.image, outcome.record, outcome.null_text,
        outcome.curve, outcome.candidates,
    ]  # fmt: skip


def _chosen(outcome: page.Outcome, entry: Entry, b: int) -> Shown:
    """One prompt of a run on display."""
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


def _labels(entry: Entry) -> Sequence[str]:
    """Prompts, numbered: two may be the same."""
    return [f"{b + 1}. {comparison.prompt}" for b, comparison in enumerate(entry.finished.comparisons)]


def _whole(seed: Any) -> int:
    if seed is None or float(seed) != int(seed):
        raise InvalidValue(f"a seed is a whole number, 0 or more, not {seed}")
    return int(seed)
