"""What the page shows, as HTML: words of a user's are escaped, pictures are part of the text."""

from __future__ import annotations

import base64
import io
import math
from html import escape

from torch import Tensor

from nulltta.algorithm.budget import planned
from nulltta.evaluation.comparison import Comparison, Score
from nulltta.images import to_pil
from nulltta.runs.figures import number
from nulltta.runs.request import AlignRequest
from nulltta.ui.plots import colour, legend, reward_curve
from nulltta.ui.replays import Replayed
from nulltta.ui.run import Finished, Progress

LIVE_SIDE = 512  # pixels of a live preview at most: it is sent at every step


def status(words: str, kind: str = "", share: float | None = None) -> str:
    """One line, and a bar where something is under way. kind: "" or "error"."""
    bar = "" if share is None else f'<progress max="1" value="{share:.3f}"></progress>'
    line = escape(" ".join(words.split()))
    role = "alert" if kind == "error" else "status"
    return f'<div class="status {kind}" role="{role}"><p>{line}</p>{bar}</div>'


def under_way(progress: Progress) -> str:
    """Where a run is, how the reward stands, and how long it will take."""
    first, now = progress.trace[0], progress.trace[-1]
    before, after = (float(s.selected_rewards.mean()) for s in (first, now))
    done = len(progress.trace)
    left = f"{duration(progress.seconds_left)} left" if done < progress.steps else "now plain sampling, to compare"
    words = f"Step {done} of {progress.steps} · reward {number(before)} → {number(after)} · {left}"
    return status(words, share=done / progress.steps)


def live(request: AlignRequest, progress: Progress) -> str:
    """Each prompt's clean estimate, and the course of the reward."""
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


def done(finished: Finished) -> str:
    """What a run came to, in a line."""
    kept = "" if finished.stopped_after is None else (
        f"Stopped after {finished.stopped_after} of {finished.request.settings.config.num_inference_steps} steps: "
        "the best clean estimate so far was kept, and there is no null text. "
    )  # fmt: skip
    return status(f"{kept}Done in {duration(finished.seconds)}.")


def curve_of(comparison: Comparison) -> str:
    """The course of one prompt's reward over the whole run, with plain sampling's beside it."""
    plain = next(iter(comparison.scores.values())).plain
    return reward_curve(comparison.trace, (), plain, comparison.initial_rewards.tolist())


def candidates(finished: Finished, b: int) -> str:
    """The last candidates of a prompt with their rewards, best first."""
    rewards, images = finished.candidate_rewards[b], finished.candidates[b]
    figures = (_figure(images[k], number(float(rewards[k]))) for k in rewards.argsort(descending=True).tolist())
    words = "the best clean estimate" if finished.stopped_after else "the last step's candidates and their rewards"
    return f'<p class="said">{words}</p><div class="candidates">{"".join(figures)}</div>'


def replays(made: Replayed) -> str:
    """Plain sampling's picture of each seed, and replay's beside it."""
    figures = (
        _figure(image, caption)
        for images, captions in zip(zip(made.plain, made.images, strict=True), made.captions, strict=True)
        for image, caption in zip(images, captions, strict=True)
    )
    return f'<div class="replays">{"".join(figures)}</div>'


def _figure(image: Tensor, caption: str) -> str:
    return f'<figure><img src="{data_uri(image[None])}" alt=""><figcaption>{escape(caption)}</figcaption></figure>'


def score_table(comparison: Comparison) -> str:
    """A row a measure: plain, aligned, gain."""
    rows = "".join(_row(name, score) for name, score in comparison.scores.items())
    head = "<tr><th>measure</th><th>plain</th><th>aligned</th><th>gain</th></tr>"
    caption = f"<caption>{escape(comparison.prompt)}</caption>"
    return f'<table class="scores">{caption}<thead>{head}</thead><tbody>{rows}</tbody></table>'


def _row(name: str, score: Score) -> str:
    gain = score.gain
    sign = "" if math.isnan(gain) or gain == 0 else "up" if gain > 0 else "down"
    gained = f"+{number(gain)}" if gain > 0 else number(gain)
    return (
        f'<tr class="{score.role.replace(" ", "-")}"><th>{escape(name)} <small>{score.role}</small></th>'
        f"<td>{number(score.plain)}</td><td>{number(score.aligned)}</td>"
        f'<td class="{sign}">{gained}</td></tr>'
    )


def duration(seconds: float) -> str:
    """ "8 s", "2 min 5 s", "1 h 3 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def data_uri(image: Tensor) -> str:
    """An image (1, 3, H, W) in a form that needs no request of its own."""
    picture = to_pil(image)[0]
    picture.thumbnail((LIVE_SIDE, LIVE_SIDE))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=90)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"
