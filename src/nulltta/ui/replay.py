"""Replaying a null text that a visitor uploaded, next to plain sampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nulltta.display.formatting import number
from nulltta.errors import InvalidValue, NullTTAError, out_of_memory_as_error
from nulltta.null_text import loading
from nulltta.null_text.loading import AnyNullText
from nulltta.null_text.replay import replay
from nulltta.runs.replay_writer import difference
from nulltta.runs.seeds import parse_seeds
from nulltta.scoring import require_pictures, score
from nulltta.ui.engine import MAX_PROMPT_LENGTH, PageEngine

MAX_SEEDS = 8


@dataclass(frozen=True, slots=True)
class ReplayedImages:
    """The images of plain sampling and of replay.

    Attributes:
        plain: (N, 3, H, W), by plain sampling.
        images: (N, 3, H, W), with the null text.
        captions: those of each pair, plain and replay.
        words: one line on what they are.
    """

    plain: Tensor
    images: Tensor
    captions: list[tuple[str, str]]
    words: str


def replayed(
    engine: PageEngine, file: str | None, *, model: str, prompt: str, seeds: str, exact: bool, reward: str
) -> ReplayedImages:
    """Sample with a null text from a file, and plainly.

    Args:
        engine: the models and rewards.
        file: the path of the uploaded file; None if there is none.
        model: the name of the model.
        prompt: the prompt; "" for the one that the null text was learnt for. A fitted null text needs one.
        seeds: such as "0-7" or "0,3,5".
        exact: whether to reproduce the aligned image from the noise in the file.
        reward: an expression to score the images with; "" for none.

    Raises:
        InvalidValue: if there is no file, or an argument is invalid.
        LoadError: if the file is not a null text.
        DoesNotFit: if the null text was learnt with another model.
        OutOfMemory: if memory runs out.
    """
    if file is None:
        raise InvalidValue("no null text: drop a .safetensors file that a run of this page, or `nulltta align`, wrote")
    if len(prompt) > MAX_PROMPT_LENGTH:
        raise InvalidValue(f"a prompt of {len(prompt)} characters is too long: {MAX_PROMPT_LENGTH} at most")
    null_text = _load(file)
    if reward.strip():
        require_pictures(engine.reward_of(reward), "a replay")
    chosen = [0] if exact else parse_seeds(seeds)
    if len(chosen) > MAX_SEEDS:
        raise InvalidValue(f"{len(chosen)} seeds are too many for a page: {MAX_SEEDS} at most")
    if exact and prompt.strip() not in ("", null_text.prompt):
        raise InvalidValue("the aligned image can only be reproduced with its own prompt: leave the prompt empty")
    denoiser, shown = engine.model(model), prompt.strip() or null_text.prompt
    if not shown:
        raise InvalidValue("is needed: the null text was fitted for all prompts", field="prompt")
    with out_of_memory_as_error("give fewer seeds"):
        plain, images = (
            replay(denoiser, null_text, prompt=shown, seeds=chosen, exact=exact, plain=is_plain).cpu()
            for is_plain in (True, False)
        )
    of = ["recorded noise"] if exact else [f"seed {seed}" for seed in chosen]
    scores = [_scores(engine, reward, pictures, shown) for pictures in (plain, images)]
    captions = [(f"plain, {noise}{p}", f"replay, {noise}{r}") for noise, p, r in zip(of, *scores, strict=True)]
    scored = f", scored by {reward}" if reward.strip() else ""
    words = f"“{shown}”, {len(null_text.timesteps)} steps{scored}{_exactness(null_text, images, exact)}"
    return ReplayedImages(plain, images, captions, words)


def _load(file: str) -> AnyNullText:
    """Load a null text; error messages use the file's own name, not the server's path of it."""
    try:
        return loading.load(file)
    except NullTTAError as error:
        raise InvalidValue(str(error).replace(file, Path(file).name)) from error


@torch.no_grad()
def _scores(engine: PageEngine, reward: str, images: Tensor, prompt: str) -> list[str]:
    """Return the ends of the captions."""
    if not reward.strip():
        return [""] * len(images)
    target = engine.reward_of(reward)
    values = score(target, images.to(engine.device), [prompt] * len(images))
    return [f": {number(value)}" for value in values.tolist()]


def _exactness(null_text: AnyNullText, images: Tensor, exact: bool) -> str:
    if not exact or null_text.image is None:
        return ""
    off = difference(images[0], null_text.image)
    return f" · no pixel differs from the recorded picture by more than {off:.1e} of its range"
