"""Results as HTML. Text from users is escaped, and images are embedded."""

from __future__ import annotations

import base64
import io
from html import escape

from torch import Tensor

from nulltta.algorithm.budget import planned
from nulltta.display.formatting import number, sign, signed
from nulltta.evaluation.comparison import Comparison, Score
from nulltta.images import to_pil
from nulltta.runs.request import AlignRequest
from nulltta.ui.plots import colour, legend, reward_curve
from nulltta.ui.replay import ReplayedImages
from nulltta.ui.run import FinishedRun, RunProgress

MAX_PREVIEW_SIZE = 512
"""The largest size in pixels of an embedded image, since previews are sent after every step."""


def status(words: str, kind: str = "", share: float | None = None) -> str:
    """Return one line of text.

    Args:
        words: the text.
        kind: "error" for an error.
        share: the length of a progress bar, from 0 to 1; None for no bar.
    """
    bar = "" if share is None else f'<progress max="1" value="{share:.3f}"></progress>'
    line = escape(" ".join(words.split()))
    role = "alert" if kind == "error" else "status"
    return f'<div class="status {kind}" role="{role}"><p>{line}</p>{bar}</div>'


def under_way(progress: RunProgress) -> str:
    """Return a line with the step, the reward and the time left."""
    first, now = progress.trace[0], progress.trace[-1]
    before, after = (float(s.selected_rewards.mean()) for s in (first, now))
    done = len(progress.trace)
    left = f"{duration(progress.seconds_left)} left" if done < progress.steps else "plain sampling follows"
    words = f"Step {done} of {progress.steps} · reward {number(before)} → {number(after)} · {left}"
    return status(words, share=done / progress.steps)


def live(request: AlignRequest, progress: RunProgress) -> str:
    """Return the clean estimate per prompt, and the curve of the reward."""
    ahead = planned(request.settings.config)[len(progress.trace) :]
    prompts = request.prompts
    pictures = "".join(
        f'<img src="{data_uri(progress.preview[b : b + 1])}" alt="{escape(prompt)}" '
        f'style="--c:{colour(b, len(prompts))}">'
        for b, prompt in enumerate(prompts)
    )
    return (
        f'<div class="live"><div class="previews">{pictures}</div>'
        f"<div>{reward_curve(progress.trace, ahead)}{legend(prompts)}</div></div>"
    )


def done(finished: FinishedRun) -> str:
    """Return the line at the end of a run."""
    kept = "" if finished.stopped_after is None else (
        f"Stopped after {finished.stopped_after} of {finished.request.settings.config.num_inference_steps} steps: "
        "the best clean estimate so far is kept, and there is no null text. "
    )  # fmt: skip
    return status(f"{kept}Done in {duration(finished.seconds)}.")


def curve_of(comparison: Comparison) -> str:
    """Return the curve of one prompt's reward over the whole run, with that of plain sampling."""
    plain = next(iter(comparison.scores.values())).plain
    return reward_curve(comparison.trace, (), plain, comparison.initial_rewards.tolist())


def candidates(finished: FinishedRun, b: int) -> str:
    """Return the last candidates of prompt b with their rewards, best first."""
    rewards, images = finished.candidate_rewards[b], finished.candidates[b]
    figures = (_figure(images[k], number(float(rewards[k]))) for k in rewards.argsort(descending=True).tolist())
    words = "the best clean estimate" if finished.stopped_after else "the last step's candidates and their rewards"
    return f'<p class="said">{words}</p><div class="candidates">{"".join(figures)}</div>'


def replays(made: ReplayedImages) -> str:
    """Return the images of plain sampling and of replay, in pairs."""
    figures = (
        _figure(image, caption)
        for images, captions in zip(zip(made.plain, made.images, strict=True), made.captions, strict=True)
        for image, caption in zip(images, captions, strict=True)
    )
    return f'<div class="replays">{"".join(figures)}</div>'


def _figure(image: Tensor, caption: str) -> str:
    return f'<figure><img src="{data_uri(image[None])}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'


def score_table(comparison: Comparison) -> str:
    """Return a table with one row per measure."""
    rows = "".join(_row(name, score) for name, score in comparison.scores.items())
    head = "<tr><th>measure</th><th>plain</th><th>aligned</th><th>gain</th></tr>"
    caption = f"<caption>{escape(comparison.prompt)}</caption>"
    return f'<table class="scores">{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>'


def _row(name: str, score: Score) -> str:
    direction, gained = ("", "up", "down")[sign(score.gain)], signed(score.gain)
    return (
        f'<tr class="{score.role.replace(" ", "-")}"><th>{escape(name)} <small>{score.role}</small></th>'
        f"<td>{number(score.plain)}</td><td>{number(score.aligned)}</td>"
        f'<td class="{direction}">{gained}</td></tr>'
    )


def duration(seconds: float) -> str:
    """Format a duration as "8 s", "2 min 5 s" or "1 h 3 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def data_uri(image: Tensor) -> str:
    """Encode an image (1, 3, H, W) as a data URI, which needs no request of its own."""
    picture = to_pil(image)[0]
    picture.thumbnail((MAX_PREVIEW_SIZE, MAX_PREVIEW_SIZE))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
