"""Runs as HTML. Text from users is escaped by the templates."""

from __future__ import annotations

import base64
import io
from urllib.parse import quote

from markupsafe import Markup
from torch import Tensor

from nulltta.display.formatting import number, sign, signed
from nulltta.evaluation.comparison import Score
from nulltta.images import to_pil
from nulltta.runs.figures import upscaled
from nulltta.runs.request import AlignRequest
from nulltta.ui.history import HistoryEntry, ShownPicture
from nulltta.ui.plots import colour, legend, reward_curve
from nulltta.ui.replay import ReplayedImages
from nulltta.ui.run import FinishedRun, RunProgress
from nulltta.ui.templates import render
from nulltta.ui.wording import duration, file_name

MAX_PREVIEW_SIZE = 512
"""The largest size in pixels of an embedded image, since previews are sent after every step."""


def status(words: str, kind: str = "", share: float | None = None, notes: tuple[str, ...] = ()) -> str:
    """Return one line of text.

    Args:
        words: the text.
        kind: "error" for an error.
        share: the length of a progress bar, from 0 to 1; None for no bar.
        notes: lines below, on what the visitor should know.
    """
    return render("status.html", words=" ".join(words.split()), kind=kind, share=share, notes=notes)


def under_way(progress: RunProgress) -> str:
    """Return a line with the step, the reward and the time left."""
    first, now = progress.trace[0], progress.trace[-1]
    before, after = (float(s.selected_rewards.mean()) for s in (first, now))
    words = (
        f"Step {len(progress.trace)} of {len(progress.counts)} · reward {number(before)} → {number(after)} · "
        f"{duration(progress.seconds_left)} left"
    )
    return status(words, share=progress.share, notes=tuple(progress.notes))


def live(request: AlignRequest, progress: RunProgress) -> str:
    """Return the clean estimate of each picture, and the curve of the reward."""
    ahead = progress.counts[len(progress.trace) :]
    prompts = request.prompts
    return render(
        "live.html",
        pictures=[
            (data_uri(progress.preview[b : b + 1]), prompt, colour(b, len(prompts)))
            for b, prompt in enumerate(prompts)
        ],
        step=len(progress.trace), curve=Markup(reward_curve(progress.trace, ahead)), legend=Markup(legend(prompts)),
    )  # fmt: skip


def done(finished: FinishedRun) -> str:
    """Return the words at the end of a run."""
    kept = "" if finished.stopped_after is None else (
        f"Stopped after {finished.stopped_after} of {finished.request.settings.config.num_inference_steps} steps: "
        "the best clean estimate so far is kept, and there is no null text. "
    )  # fmt: skip
    return f"{kept}Done in {duration(finished.seconds)}."


def answer(entry: HistoryEntry, b: int) -> str:
    """Return the result of one picture: the headline, both images and the downloads."""
    shown = entry.pictures[b]
    downloads = [
        ("image", "Download", shown.files["aligned"], file_name(shown.prompt, shown.seed, ".png")),
        ("null-text", "Null text", shown.files.get("null text"), file_name(shown.prompt, shown.seed, ".safetensors")),
        ("record", "result.json", entry.record, file_name(shown.prompt, shown.seed, ".json")),
        ("all", "Everything (zip)", entry.archive, f"nulltta-{entry.name}.zip"),
    ]
    return render(
        "answer.html", shown=shown, plain=address(shown.files["plain"]), aligned=address(shown.files["aligned"]),
        diversity=_diversity(entry, shown.prompt),
        downloads=[(name, label, address(path), saved) for name, label, path, saved in downloads if path],
    )  # fmt: skip


def scores(shown: ShownPicture) -> str:
    """Return a table with one row per measure."""
    rows = [_row(name, score) for name, score in shown.scores.items()]
    return render("scores.html", prompt=shown.prompt, rows=rows)


def how(entry: HistoryEntry, b: int) -> str:
    """Return the curve of one picture's reward over the whole run, and the last candidates, best first."""
    shown = entry.pictures[b]
    stopped = entry.said.startswith("Stopped")
    return render(
        "how.html", curve=Markup(shown.curve), prompt=shown.prompt,
        words="the best clean estimate" if stopped else "the last step's candidates and their rewards",
        candidates=[(address(path), number(reward)) for path, reward in shown.candidates],
    )  # fmt: skip


def replays(made: ReplayedImages) -> str:
    """Return the images of plain sampling and of replay, in pairs."""
    figures = [
        (data_uri(image[None]), caption)
        for images, captions in zip(zip(made.plain, made.images, strict=True), made.captions, strict=True)
        for image, caption in zip(images, captions, strict=True)
    ]
    return render("replays.html", figures=figures)


def address(path: str) -> str:
    """Return the URL of a file of the page, relative to the page."""
    return f"./gradio_api/file={quote(path)}"


def data_uri(image: Tensor) -> str:
    """Encode an image (1, 3, H, W) as a data URI, which needs no request of its own."""
    picture = upscaled(to_pil(image)[0], MAX_PREVIEW_SIZE // 2)
    picture.thumbnail((MAX_PREVIEW_SIZE, MAX_PREVIEW_SIZE))
    buffer = io.BytesIO()
    picture.save(buffer, format="WEBP", quality=85)
    return f"data:image/webp;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _row(name: str, score: Score) -> dict[str, str]:
    return {
        "name": name, "role": score.role, "plain": number(score.plain), "aligned": number(score.aligned),
        "gain": signed(score.gain), "direction": ("", "up", "down")[sign(score.gain)],
    }  # fmt: skip


def _diversity(entry: HistoryEntry, prompt: str) -> str:
    """Return a line on how different the pictures of a prompt are; "" if there is one picture."""
    if prompt not in entry.diversity:
        return ""
    plain, aligned = entry.diversity[prompt]
    count = sum(picture.prompt == prompt for picture in entry.pictures)
    return f"{aligned:.1f} different pictures of {count} (Vendi score); plain {plain:.1f}"
