"""The layout of the page. What happens on the page is in `events`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from nulltta.config import NullTTAConfig
from nulltta.embedded.worlds import draws_emoji
from nulltta.ui import presets
from nulltta.ui.controls import SettingControl, controls
from nulltta.ui.engine import PageEngine
from nulltta.ui.first import EXAMPLES, first_view, starters
from nulltta.ui.form import name_of
from nulltta.ui.templates import render
from nulltta.ui.wording import better, duration

WELCOME = "The picture appears here while it is sampled, beside plain sampling from the same noise when it is finished."
WELCOME_BACK = (
    "Drop the null text of a run of this page or of `nulltta align --save-null-text`. It is applied to new noise, "
    "without reward or gradient, and compared with plain sampling."
)


@dataclass(frozen=True)
class RequestPanel:
    """The controls of a request.

    Attributes:
        fields: the controls that make up the form, by name.
        controls: those of them that are settings of the method.
        start: begins a run.
        dice: draws a seed.
        chips: the rewards to choose from.
        starters: the examples.
        picture: where a picture is dropped to restore its settings.
    """

    fields: Mapping[str, Any]
    controls: Sequence[SettingControl]
    start: gr.Button
    dice: gr.Button
    chips: gr.HTML
    starters: gr.HTML
    picture: gr.File

    @property
    def settings(self) -> list[Any]:
        """The controls of the settings of the method, in the order of `controls`."""
        return [self.fields[name_of(control)] for control in self.controls]


@dataclass(frozen=True)
class ResultPanel:
    """The progress and the result of a run."""

    status: gr.HTML
    stop: gr.Button
    first: gr.HTML
    live: gr.HTML
    results: gr.Column
    answer: gr.HTML
    scores: gr.HTML
    replay: gr.Button
    reuse: gr.Button
    vary: gr.Button
    how: gr.HTML
    grid: gr.Gallery
    past: gr.Gallery


@dataclass(frozen=True)
class ReplayPanel:
    """The controls and the result of a replay."""

    file: gr.File
    prompt: gr.Textbox
    seeds: gr.Textbox
    exact: gr.Checkbox
    model: gr.Dropdown
    reward: gr.Textbox
    start: gr.Button
    status: gr.HTML
    pictures: gr.HTML


def request_panel(engine: PageEngine) -> RequestPanel:
    """Create the controls of a request: the prompt, what better means, how long to wait; the rest under Expert."""
    model, shown = engine.models[0], controls()
    config = NullTTAConfig.preset(model)
    fields: dict[str, Any] = {}
    with gr.Group(elem_id="prompt-box"):
        fields["prompts"] = gr.Textbox(
            EXAMPLES[0] if draws_emoji(model) else "", label="Prompt", lines=2, max_lines=8, elem_id="prompts",
            info="one per line; Ctrl+Enter aligns",
        )  # fmt: skip
    start = gr.Button("Align", variant="primary", elem_id="align")
    examples = gr.HTML(starters(), visible=draws_emoji(model), elem_id="starters")
    with gr.Group(elem_id="reward-box"):
        chips = gr.HTML(chips_of(engine, model), elem_id="chips", padding=True)
        fields["reward"] = gr.Textbox(
            engine.reward,
            label="Reward",
            info="a name, or a sum such as `0.7*clip + 0.3*colourfulness`",
            elem_id="reward",
        )
    with gr.Column(elem_id="more-box"):
        fields["preset"] = gr.Radio(
            presets.choices(model, engine.paces[model]), value=presets.USUAL, label="How long", elem_id="preset"
        )
        with gr.Row(elem_id="seed-row"):
            fields["seed"] = gr.Number(0, label="Seed", min_width=100, elem_id="seed")
            dice = gr.Button("⚄ Roll", elem_id="dice", min_width=80)
        fields["pictures"] = gr.Radio([1, 2, 4, 8], value=1, label="Pictures per prompt", elem_id="pictures")
        with gr.Accordion("Expert", open=False, elem_id="more"):
            fields |= _expert(engine, shown, config)
        picture = gr.File(
            label="Drop a picture of ours to restore its settings", file_types=[".png"], height=132, elem_id="restore"
        )
    return RequestPanel(fields, shown, start, dice, chips, examples, picture)


def chips_of(engine: PageEngine, model: str) -> str:
    """Return the rewards that a model can be aligned with, as chips."""
    rows = [row for row in engine.offered(model) if row.name != "target-colour"]
    return render("chips.html", rewards=[(row.name, better(row.name, row.summary), row.summary) for row in rows])


def first_label(engine: PageEngine) -> str:
    """Return the words on the button that starts the run of the first view."""
    seconds = engine.paces[engine.models[0]].predicted(NullTTAConfig.preset(engine.models[0]), 1)
    return "Try it" if seconds is None else f"Try it, about {duration(seconds)}"


def result_panel(engine: PageEngine) -> ResultPanel:
    """Create the progress and the result of a run."""
    embedded = draws_emoji(engine.models[0])
    status = gr.HTML("" if embedded else render("status.html", words=WELCOME, kind="", share=None, notes=()),
                     elem_id="status")  # fmt: skip
    stop = gr.Button("Stop, keep the best so far", visible=False, elem_id="stop")
    first = gr.HTML(first_view(first_label(engine)) if embedded else "", elem_id="first")
    live = gr.HTML(elem_id="live")
    with gr.Column(visible=False, elem_id="results") as results:
        answer = gr.HTML(elem_id="answer")
        with gr.Row(elem_id="actions"):
            replay = gr.Button("Replay this null text", size="sm", min_width=120, elem_id="replay-this")
            reuse = gr.Button("Reuse settings", size="sm", min_width=120, elem_id="reuse")
            vary = gr.Button("Variations", size="sm", min_width=120, elem_id="vary")
        grid = _gallery("This run", "grid")
        scores = gr.HTML(elem_id="scores")
        with gr.Accordion("How it got there", open=True, elem_id="how-box"):
            how = gr.HTML(elem_id="how")
    past = _gallery("Your runs", "history")
    return ResultPanel(status, stop, first, live, results, answer, scores, replay, reuse, vary, how, grid, past)


def replay_panel(engine: PageEngine) -> ReplayPanel:
    """Create the controls and the result of a replay."""
    models = list(engine.models)
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            file = gr.File(label="Null text (.safetensors)", file_types=[".safetensors"], height=120, elem_id="file")
            prompt = gr.Textbox("", label="Prompt", info="empty: the recorded prompt", elem_id="replay-prompt")
            seeds = gr.Textbox("0-3", label="Seeds", info="one image per seed: 0-7 or 0,3,5")
            exact = gr.Checkbox(False, label="Reproduce the aligned image from the noise in the file", elem_id="exact")
            model = gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1)
            reward = gr.Textbox("", label="Score with", info="a reward (optional)", elem_id="replay-reward")
            start = gr.Button("Replay", variant="primary", elem_id="replay")
        with gr.Column(scale=3, min_width=300):
            status = gr.HTML(
                render("status.html", words=WELCOME_BACK, kind="", share=None, notes=()), elem_id="replay-status"
            )
            pictures = gr.HTML(elem_id="replayed")
    return ReplayPanel(file, prompt, seeds, exact, model, reward, start, status, pictures)


def _gallery(label: str, elem_id: str) -> gr.Gallery:
    return gr.Gallery(
        label=label, elem_id=elem_id, columns=6, height="auto", object_fit="contain", fit_columns=False,
        allow_preview=False, interactive=False, buttons=[], visible=False,
    )  # fmt: skip


def _expert(engine: PageEngine, shown: Sequence[SettingControl], config: NullTTAConfig) -> dict[str, Any]:
    """Create the controls that a first visitor does not need."""
    models = list(engine.models)
    fields: dict[str, Any] = {
        "model": gr.Dropdown(models, value=models[0], label="Model", visible=len(models) > 1),
        "negative_prompt": gr.Textbox("", label="negative prompt", info="the text of the null embedding to start from"),
        "save_null_text": gr.Radio(
            ["exact", "small"], value="exact", label="null text", info="exact: with the noise, to reproduce the image"
        ),
    }
    with gr.Row(elem_classes="settings"):
        fields |= {name_of(control): _component(control, config) for control in shown}
    with gr.Row(elem_classes="settings"):
        fields |= {
            name: gr.Textbox("", label=label, info=info, min_width=120, elem_id=f"call-{name}")
            for name, label, info in (
                ("width", "width", "pixels; empty: the model's"), ("height", "height", "pixels; empty: the model's"),
                ("num_frames", "frames", "of a video"), ("strength", "strength", "share of noise, 0 to 1"),
            )
        }  # fmt: skip
    with gr.Row():
        fields |= {
            name: gr.File(label=label, file_types=["image"], type="binary", height=100, elem_id=f"call-{name}")
            for name, label in (("image", "Picture to start from"), ("mask", "Mask: white is painted anew"))
        }
    return fields


def _component(control: SettingControl, config: NullTTAConfig) -> Any:
    value, said = control.value(config), {"label": control.label, "info": control.help, "min_width": 140}
    if control.optional:  # an empty number would become 0 when it is shown
        return gr.Textbox("" if value is None else str(value), **said)
    match control.kind:
        case "words":
            return gr.Dropdown(list(control.choices), value=value, **said)
        case "text":
            return gr.Textbox(value, **said)
        case "whole":
            return gr.Number(value, **said)
        case "number":
            return gr.Number(value, step="any", **said)
