"""The stock call that is recorded, and what stands in for its denoiser where that need not compute."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from nulltta.errors import InvalidValue
from nulltta.models.conditioning import Conditioning
from nulltta.models.recording import (
    BESIDE,
    SCALE,
    Recording,
    StepRecord,
    Watch,
    accepts,
    call_parameters,
    record,
    returned_like,
)
from nulltta.models.tree import leaves, replaced
from nulltta.prompts import EncodedPrompt


@dataclass(frozen=True, slots=True)
class StockCall:
    """A pipeline and the caller's keyword arguments of its call.

    Attributes:
        none_for_empty: an empty negative prompt is given as None.
        conditioning: embeddings that stand for texts.
        second: the pipeline evaluates no null branch of its own: a second call, for the negative prompt, stands for it.
        rows: of how many prompts the recordings are that show what belongs to a prompt: two, or one where the call
            takes a single prompt, for instance because it takes one picture per prompt.
    """

    pipeline: Any
    options: Mapping[str, Any]
    none_for_empty: bool = False
    conditioning: Conditioning = Conditioning()
    second: bool = False
    rows: int = 2

    @property
    def scale_name(self) -> str:
        """The argument that sets the scale of classifier-free guidance."""
        return "true_cfg_scale" if accepts(self.pipeline, "true_cfg_scale") else "guidance_scale"

    @property
    def has_negative(self) -> bool:
        """Whether the call takes a negative prompt; if not, its null branch, if any, is one of its own."""
        return accepts(self.pipeline, "negative_prompt")

    @property
    def strength(self) -> float:
        """The share of the steps asked for that an image-to-image call takes; 1 for other calls."""
        parameter = call_parameters(type(self.pipeline)).get("strength")
        given = self.options.get("strength", 1.0 if parameter is None else parameter.default)
        return float(given) if isinstance(given, int | float) else 1.0

    def asked_for(self, count: int) -> int:
        """Return the number of steps to ask for so that `count` are taken.

        Raises:
            InvalidValue: if it is above that of the model's training.
        """
        if self.strength >= 1:
            return count
        trained = int(self.pipeline.scheduler.config.num_train_timesteps)
        if self.strength * trained < count:
            raise InvalidValue(
                f"must be {count / trained:g} or more for {count} steps: the model was trained on {trained}",
                field="strength",
            )
        return math.ceil(count / self.strength)

    def arguments(self, prompts: Sequence[str], negatives: Sequence[str], steps: int) -> dict[str, Any]:
        """Return the arguments of a call.

        Raises:
            InvalidValue: if a text cannot be encoded, or the call does not take embeddings under these names.
        """
        given = self.conditioning.arguments(self.pipeline, prompts, negatives, self.none_for_empty)
        if not self.has_negative:
            del given["negative_prompt"]
        if self.rows == 1:  # some calls take a text, and no list of texts
            given = {name: value[0] if _is_one_text(value) else value for name, value in given.items()}
        return {
            **given,
            "num_inference_steps": steps,
            # Of a pipeline without a null branch, the scale is an input of the denoiser: it keeps its default.
            **({self.scale_name: SCALE} if not self.second and accepts(self.pipeline, self.scale_name) else {}),
            "output_type": "pt",
            "generator": torch.Generator().manual_seed(0),
            **self.options,
        }

    def recorded(self, prompts: Sequence[str], negatives: Sequence[str], steps: int, watch: Watch) -> Recording:
        """Make the call and return what was seen of it, with a null branch at each step.

        Raises:
            InvalidValue: if the call cannot be watched.
        """
        if not self.second:
            return record(self.pipeline, self.arguments(prompts, negatives, steps), watch)
        null = record(self.pipeline, self.arguments(negatives, negatives, steps), watch)
        probes = [step.probe for step in null.steps]
        alike = replace(watch, on_step=None if watch.on_step is None else lambda i, _: probes[i])
        cond = record(self.pipeline, self.arguments(prompts, prompts, steps), alike)
        for step, other in zip(null.steps, cond.steps, strict=True):
            step.calls = [*step.calls, *other.calls]
            step.model_output = step.model_output + SCALE * (other.model_output - step.model_output)
        null.token_ids += cond.token_ids
        return null

    def require_negatives(self, negatives: Sequence[str]) -> None:
        """Refuse negative prompts where the call takes none.

        Raises:
            InvalidValue: if one of them is not empty.
        """
        texts = [negative for negative in negatives if not isinstance(negative, EncodedPrompt)]
        if any(texts) and not self.has_negative and not self.second:
            raise InvalidValue(
                f"must be empty: the call of {type(self.pipeline).__name__} takes none, its null text is its own",
                field="negative_prompt",
            )


def _is_one_text(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 1 and isinstance(value[0], str)


@dataclass(frozen=True, slots=True)
class Template:
    """What a pipeline's networks return for one prompt.

    Attributes:
        returned: by the denoiser.
        rows: how many rows that has.
        beside: returned by the network beside the denoiser; None if there is none.
    """

    returned: Any
    rows: int
    beside: Any = None


class StandIn:
    """Networks that compute nothing: they return zeros, or random numbers, shaped as the real ones' output.

    The random predictions of the two branches have much in common, at different sizes, so that the guided one is now
    longer and now shorter than the conditional one: pipelines that bring it to a length show how.

    Attributes:
        made: with `traced`, the first prediction (R, ...), with a gradient.
        further: with `random`, what was returned beside the predictions, such as that of a sound, with a gradient.
    """

    def __init__(self, template: Template, batch: int, random: bool = False, traced: bool = False) -> None:
        self.template, self.batch, self.traced = template, batch, traced
        self.generator = torch.Generator().manual_seed(1) if random else None
        self.made: Tensor | None = None
        self.further: list[Tensor] = []

    def __call__(self, name: str, arguments: dict[str, Any]) -> Any:
        del arguments
        if name == BESIDE:
            given = leaves(self.template.beside)
            tensors = {path: value for path, value in given.items() if isinstance(value, Tensor)}
            return replaced(self.template.beside, {path: self._repeated(value) for path, value in tensors.items()})
        returned = self.template.returned
        first = returned if isinstance(returned, Tensor) else returned[0]
        like = first[0] if isinstance(first, list | tuple) else first
        row = like.shape if isinstance(first, list | tuple) else like.shape[1:]
        made = torch.zeros((self.template.rows * self.batch, *row), dtype=torch.float32)
        if self.generator is not None:
            common = made[0].clone().normal_(generator=torch.Generator().manual_seed(2))  # torch.randn is overruled
            size = torch.rand((*made.shape[:-1], 1), generator=self.generator, dtype=torch.float32)
            made.normal_(generator=self.generator).mul_(0.1).add_(common * (0.5 + 2 * size))
        if self.traced and self.made is None:
            torch.set_grad_enabled(True)
            made = self.made = made.requires_grad_()
        return self._with_further(returned_like(returned, made.to(like, copy=self.traced)))

    def _with_further(self, returned: Any) -> Any:
        """What a denoiser returns, with a gradient in what stands beside the prediction."""
        if self.generator is None or not isinstance(returned, tuple):
            return returned
        tensors = {path: value for path, value in leaves(returned[1:]).items() if isinstance(value, Tensor)}
        beside = {
            path: self._repeated(value).clone().requires_grad_()
            for path, value in tensors.items()
            if value.is_floating_point()
        }
        if beside:
            torch.set_grad_enabled(True)
        self.further += beside.values()
        return (returned[0], *replaced(returned[1:], beside))

    def _repeated(self, value: Tensor) -> Tensor:
        return value.detach().repeat(self.batch, *[1] * (value.dim() - 1)) if value.dim() else value.detach()


def zero_probe(_: int, step: StepRecord) -> Tensor:
    """Return zeros with a gradient in place of the scheduler's result."""
    torch.set_grad_enabled(True)
    return torch.zeros(step.sample.shape, dtype=torch.float32, device=step.sample.device, requires_grad=True)
