"""A null text that was dropped on the page, replayed beside plain sampling."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nulltta.algorithm.memory import is_out_of_memory
from nulltta.errors import InvalidValue, NullTTAError
from nulltta.null_text.replay import replay
from nulltta.null_text.value import NullText
from nulltta.runs.figures import number
from nulltta.runs.replay_folder import difference
from nulltta.runs.seeds import parse_seeds
from nulltta.scoring import score
from nulltta.ui.engine import LONGEST_PROMPT, Engine

MOST_SEEDS = 8


@dataclass(frozen=True, slots=True)
class Replayed:
    """Plain sampling's images and replay's, both (N, 3, H, W), with a caption each, and a line on what they are."""

    plain: Tensor
    images: Tensor
    captions: list[tuple[str, str]]
    words: str


def replayed(
    engine: Engine, file: str | None, *, model: str, prompt: str, seeds: str, exact: bool, reward: str
) -> Replayed:
    """What a null text's file makes of a prompt, its own if none is given.

    Raises:
        NullTTAError: there is no file, it is no null text, it does not fit the model, or a word is wrong.
    """
    if file is None:
        raise InvalidValue("no null text: drop a .safetensors file that a run of this page, or `nulltta align`, wrote")
    if len(prompt) > LONGEST_PROMPT:
        raise InvalidValue(f"a prompt of {len(prompt)} characters is too long: {LONGEST_PROMPT} at most")
    null_text = _load(file)
    chosen = [0] if exact else parse_seeds(seeds)
    if len(chosen) > MOST_SEEDS:
        raise InvalidValue(f"{len(chosen)} seeds are too many for a page: {MOST_SEEDS} at most")
    if exact and prompt.strip() not in ("", null_text.prompt):
        raise InvalidValue("the aligned picture again is of its own prompt: leave the prompt empty")
    denoiser, shown = engine.model(model), prompt.strip() or null_text.prompt
    try:
        plain, images = (
            replay(denoiser, null_text, prompt=shown, seeds=chosen, exact=exact, plain=is_plain).cpu()
            for is_plain in (True, False)
        )
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise InvalidValue("out of memory: give fewer seeds") from error
    of = ["recorded noise"] if exact else [f"seed {seed}" for seed in chosen]
    scores = [_scores(engine, reward, pictures, shown) for pictures in (plain, images)]
    captions = [(f"plain, {noise}{p}", f"replay, {noise}{r}") for noise, p, r in zip(of, *scores, strict=True)]
    scored = f", scored by {reward}" if reward.strip() else ""
    words = f"“{shown}”, {len(null_text.timesteps)} steps{scored}{_exactness(null_text, images, exact)}"
    return Replayed(plain, images, captions, words)


def _load(file: str) -> NullText:
    """Errors name the file as its owner knows it, not where the page keeps it."""
    try:
        return NullText.load(file)
    except NullTTAError as error:
        raise InvalidValue(str(error).replace(file, Path(file).name)) from error


@torch.no_grad()
def _scores(engine: Engine, reward: str, images: Tensor, prompt: str) -> list[str]:
    """To stand after each caption."""
    if not reward.strip():
        return [""] * len(images)
    target = engine.reward_of(reward)
    values = score(target, images.to(engine.device), [prompt] * len(images))
    return [f": {number(value)}" for value in values.tolist()]


def _exactness(null_text: NullText, images: Tensor, exact: bool) -> str:
    if not exact or null_text.image is None:
        return ""
    off = difference(images[0], null_text.image)
    return f" · no pixel differs from the recorded picture by more than {off:.1e} of its range"
