"""What is known of a pipeline once its call has been watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nulltta.models.affine import Affine
from nulltta.models.stock_call import Template
from nulltta.models.tree import grouped, rows_first


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found.

    Attributes:
        joint: both branches are rows of one denoiser call; otherwise each branch has a call.
        null_first: the null branch is the first half of the rows, or the first call.
        rows: paths of the arguments that have rows of each latent.
        axes: by path, the dimension that holds an argument's rows, where that is not the first.
        repeats: by path, how many equal rows of an argument belong to one latent, where that is more than one.
        frames: by path, how many different rows of an argument belong to one latent: a ControlNet's frames of a video.
        latents: how latents, in the model's layout, enter at each path.
        moving: paths that otherwise change from step to step, such as the time.
        text: paths that hold the null text, or the prompt.
        aliases: paths of a network beside the denoiser that hold the same text as a path of the denoiser's.
        masks: those paths of `text` that hold only zeros and ones, of whatever dtype.
        alone: texts have different lengths, so each must be encoded by itself.
        rule, sign: of guidance.
        sample: the shape of one latent as the scheduler sees it.
        predicted: which elements of a row of the denoiser's output are the prediction, in the scheduler's order; None
            where that follows from the shapes.
        to_sample: the index that rearranges the model's layout to the scheduler's; None if they agree.
        from_sample: the reverse.
        initial: the map of the drawn noise to the first latent (in the scheduler's layout).
        drawn: the shape of one latent's noise.
        place: of that noise among the call's draws, from 1.
        shape: of one latent in the model's layout: the decoder's or, where that holds more than the latents, such as a
            first frame that is kept, the scheduler's.
        decoder_input: the map of latents in the model's layout to what is decoded.
        decoder_rows: how many rows of the decoder's input are one latent's, one for each frame.
        decoder_call: the decoder's other arguments.
        branch: paths whose rows differ between the branches, whatever the texts.
        template: what the networks returned for one prompt.
        steps: the number of steps that was asked for.
        singly: the call takes a single prompt, so that prompts are encoded, predicted and decoded one by one.
        upcasts: the decoder is used in a higher precision than it is kept in.
    """

    joint: bool
    null_first: bool
    rows: frozenset[str]
    axes: Mapping[str, int]
    repeats: Mapping[str, int]
    frames: Mapping[str, int]
    latents: Mapping[str, Affine]
    moving: frozenset[str]
    text: tuple[str, ...]
    aliases: Mapping[str, str]
    masks: frozenset[str]
    alone: bool
    rule: str
    sign: int
    sample: tuple[int, ...]
    predicted: Tensor | None
    to_sample: Tensor | None
    from_sample: Tensor | None
    initial: Affine
    drawn: tuple[int, ...]
    place: int
    shape: tuple[int, ...]
    decoder_input: Affine
    decoder_rows: int
    decoder_call: tuple[tuple[Any, ...], dict[str, Any]]
    branch: frozenset[str]
    template: Template
    steps: int
    singly: bool
    upcasts: bool

    def by_latent(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return a call's arguments with all that belongs to a latent in one row, in the first dimension."""
        moved: dict[str, Any] = grouped(rows_first(arguments, self.axes), self.frames)
        return moved

    def as_called(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Return the reverse of `by_latent`."""
        moved: dict[str, Any] = rows_first(grouped(arguments, self.frames, back=True), self.axes, back=True)
        return moved
