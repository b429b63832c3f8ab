"""The layout of the page. What happens on the page is in `events`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import gradio as gr

from nulltta.config import NullTTAConfig
from nulltta.rewards import catalogue
from nulltta.ui.controls import FIRST, SettingControl, controls
from nulltta.ui.weights import MAX_SLIDERS, sliders

EXAMPLES = (
    "two foxes on a blue background, fluent style",
    "a cat face on a green background, noto style",
    "a rose and a castle on a yellow background, twemoji style",
)
WELCOME = (
    '<p class="welcome">The image appears here while it is sampled, with a curve of its reward, and in the end next to '
    "the image of plain sampling from the same noise.</p>"
)
WELCOME_BACK = (
    '<p class="welcome">Drop the null text of a run of this page or of <code>nulltta align --save-null-text</code>. It '
    "is applied to new noise, without reward or gradient, and compared with plain sampling.</p>"
)


@dataclass(frozen=True)
class RequestPanel:
    """The controls of a request."""

    prompts: gr.Textbox
    reward: gr.Textbox
    add: gr.Dropdown
    weights: Sequence[gr.Slider]
    seed: gr.Number
    model: gr.Dropdown
    negative: gr.Textbox
    form: gr.Radio
    of_call: Sequence[Any]
    controls: Sequence[SettingControl]
    settings: Sequence[Any]
    start: gr.Button


@dataclass(frozen=True)
class ResultPanel:
    """The progress and the result of a run."""

    status: gr.HTML
    stop: gr.Button
    live: gr.HTML
    results: gr.Column
    which: gr.Dropdown
    pair: gr.ImageSlider
    scores: gr.HTML
    image: gr.DownloadButton
    record: gr.DownloadButton
    null_text: gr.DownloadButton
    curve: gr.HTML
    candidates: gr.HTML
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


def request_panel(models: Sequence[str], reward: str) -> RequestPanel:
    """Create the controls of a request: the most important ones first, the others in a fold."""
    prompts = gr.Textbox(label="Prompts", info="one per line", lines=2, max_lines=8, elem_id="prompts")
    if models[0] == "embedded":  # the examples follow its grammar
        prompts.value = EXAMPLES[0]
        gr.Examples(list(EXAMPLES), prompts, label="Examples")
    with gr.Group():
        names = [row.name for row in catalogue() if row.present]
        with gr.Row():
            expression = gr.Textbox(
                reward, label="Reward", info="a name, or a sum", min_width=200, scale=3, elem_id="reward"
            )
            add = gr.Dropdown(
                ["", *names],
                value="",
                label="Add a reward",
                info="to the sum",
                min_width=110,
                scale=2,
                elem_id="add-reward",
            )
        found = sliders(reward)
        weights = [slider(found[i] if i < len(found) else None, elem_id=f"weight-{i}") for i in range(MAX_SLIDERS)]
    start = gr.Button("Align", variant="primary", elem_id="align")
    config, shown = NullTTAConfig.preset(models[0]), controls()
    with gr.Row(elem_classes="settings"):
        seed = gr.Number(0, label="seed", info="seed of the noise", min_width=120)
        settings = [_component(control, config) for control in shown if control.name in FIRST]
    with gr.Accordion("More settings", open=False, elem_id="more"):
        model = gr.Dropdown(list(models), value=models[0], label="Model", visible=len(models) > 1)
        negative = gr.Textbox("", label="negative prompt", info="the text of the null embedding to start from")
        form = gr.Radio(
            ["exact", "small"],
            value="exact",
            label="null text",
            info="exact: with the noise, to reproduce the image",
        )
        of_call = _call_controls()
        with gr.Row(elem_classes="settings"):
            settings += [_component(control, config) for control in shown if control.name not in FIRST]
    return RequestPanel(
        prompts, expression, add, weights, seed, model, negative, form, of_call, shown, settings, start
    )  # fmt: skip


def result_panel() -> ResultPanel:
    """Create the progress and the result of a run."""
    status = gr.HTML(WELCOME, elem_id="status")
    stop = gr.Button("Stop, keep the best so far", visible=False, elem_id="stop")
    live = gr.HTML(elem_id="live")
    with gr.Column(visible=False, elem_id="results") as results:
        which = gr.Dropdown([], label="Prompt", visible=False, elem_id="which")
        with gr.Row():
            with gr.Column(min_width=260):
                pair = gr.ImageSlider(
                    label="plain | aligned", type="pil", format="png", interactive=False, elem_id="pair",
                    buttons=["fullscreen"], max_height=420,
                )  # fmt: skip
            with gr.Column(min_width=260):
                scores = gr.HTML(elem_id="scores")
                with gr.Row():
                    image, record, null_text = (
                        gr.DownloadButton(f"↓ {label}", size="sm", min_width=96, elem_id=f"download-{name}")
                        for name, label in (("image", "image"), ("record", "result.json"), ("null-text", "null text"))
                    )
        curve = gr.HTML(elem_id="curve")
        candidates = gr.HTML(elem_id="candidates")
    past = gr.Gallery(
        label="This session", elem_id="history", columns=6, height="auto", object_fit="contain", fit_columns=False,
        format="png", allow_preview=False, interactive=False, buttons=[], visible=False,
    )  # fmt: skip
    return ResultPanel(
        status, stop, live, results, which, pair, scores, image, record, null_text, curve, candidates, past
    )  # fmt: skip


def replay_panel(models: Sequence[str]) -> ReplayPanel:
    """Create the controls and the result of a replay."""
    with gr.Row():
        with gr.Column(scale=2, min_width=300):
            file = gr.File(label="Null text (.safetensors)", file_types=[".safetensors"], height=120, elem_id="file")
            prompt = gr.Textbox("", label="Prompt", info="empty: the recorded prompt", elem_id="replay-prompt")
            seeds = gr.Textbox("0-3", label="Seeds", info="one image per seed: 0-7 or 0,3,5")
            exact = gr.Checkbox(False, label="Reproduce the aligned image from the noise in the file", elem_id="exact")
            model = gr.Dropdown(list(models), value=models[0], label="Model", visible=len(models) > 1)
            reward = gr.Textbox("", label="Score with", info="a reward (optional)", elem_id="replay-reward")
            start = gr.Button("Replay", variant="primary", elem_id="replay")
        with gr.Column(scale=3, min_width=300):
            status = gr.HTML(WELCOME_BACK, elem_id="replay-status")
            pictures = gr.HTML(elem_id="replayed")
    return ReplayPanel(file, prompt, seeds, exact, model, reward, start, status, pictures)


def _call_controls() -> list[Any]:
    """Create the controls of the pipeline's own call, in the order of `events.CALL`; empty ones leave its defaults."""
    with gr.Row(elem_classes="settings"):
        numbers = [
            gr.Number(None, label=label, info=info, min_width=120, elem_id=f"call-{label}")
            for label, info in (
                ("width", "pixels; empty: the model's"), ("height", "pixels; empty: the model's"),
                ("frames", "of a video"), ("strength", "share of noise, 0 to 1"),
            )
        ]  # fmt: skip
    with gr.Row():
        files = [
            gr.File(label=label, file_types=["image"], type="binary", height=100, elem_id=f"call-{name}")
            for name, label in (("image", "Picture to start from"), ("mask", "Mask: white is painted anew"))
        ]
    return [*numbers, *files]


def slider(of: Any, **options: Any) -> gr.Slider:
    """Create the slider of a term; a hidden one where there is no term yet."""
    if of is None:
        return gr.Slider(0, 1, 0, visible=False, **options)
    return gr.Slider(of.low, of.high, of.weight, step=of.step, label=of.label, visible=True, **options)


def _component(control: SettingControl, config: NullTTAConfig) -> Any:
    value, said = control.value(config), {"label": control.label, "info": control.help, "min_width": 140}
    match control.kind:
        case "words":
            return gr.Dropdown(list(control.choices), value=value, **said)
        case "text":
            return gr.Textbox(value, **said)
        case "whole":
            return gr.Number(value, **said)
        case "number":
            return gr.Number(value, step="any", **said)
