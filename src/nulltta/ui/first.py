"""The first view: a run that was recorded earlier, examples, and the words that the embedded model knows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import torch
from markupsafe import Markup

from nulltta.contracts import Step
from nulltta.embedded.grammar import COUNTS, article, plural, vocabulary
from nulltta.ui.plots import reward_curve
from nulltta.ui.templates import render

ASSETS = Path(__file__).parent / "assets"
EXAMPLES = (
    "two foxes on a blue background, fluent style",
    "a cat face on a green background, noto style",
    "a rose and a castle on a yellow background, noto style",
    "an octopus on a pink background, fluent style",
)
"""Prompts of the embedded model. `studies/first_view.py` records the run of the first, and a thumbnail of each."""


def first_view(label: str) -> str:
    """Return the recorded run, which plays once.

    Args:
        label: the words on the button that starts the same run.
    """
    record: dict[str, Any] = json.loads((ASSETS / "first.json").read_text(encoding="utf-8"))
    trace = [
        Step(
            i, 0.0, torch.tensor(step["inner"]).view(-1, 1), torch.tensor([step["candidates"]]),
            torch.tensor([step["selected"]]), torch.zeros(1),
        )
        for i, step in enumerate(record["trace"])
    ]  # fmt: skip
    curve = Markup(reward_curve(trace, (), record["plain"], record["initial"]))
    shown = {name: record[name] for name in ("headline", "prompt", "reward", "frames")}
    return render("first.html", **shown, sheet=_embedded("first.webp"), curve=curve, label=label)


def starters() -> str:
    """Return the examples with their thumbnails, and pickers of the words that the embedded model knows."""
    vocab = vocabulary("cpu")
    return render(
        "prompts.html",
        examples=[(prompt, _embedded(f"example-{number}.webp")) for number, prompt in enumerate(EXAMPLES)],
        counts=COUNTS, things=[(article(name), plural(name), name) for name in vocab.objects],
        backgrounds=[article(name) for name in vocab.backgrounds], styles=vocab.styles,
    )  # fmt: skip


def _embedded(name: str) -> str:
    """Return a picture of the page's own as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode((ASSETS / name).read_bytes()).decode()}"
