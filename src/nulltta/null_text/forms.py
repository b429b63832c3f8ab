"""The forms of a fitted null text: how φ'_t(c) = φ + Δ_t(c) depends on the denoising step t and on the prompt c.

constant   Δ            one shift for all steps and prompts, as ReNeg learns it (arXiv 2412.19637)
steps      Δ_t          one shift per denoising step
prompt     Δ_t(c)       a small position-wise network of the prompt's embedding and the denoising step
tokens     φ'           the encoding of N learnt input tokens, in the place of φ: a textual inversion
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from nulltta.algorithm.embeddings import free
from nulltta.config import FormName
from nulltta.contracts import Embedding
from nulltta.errors import DoesNotFit

Encoder: TypeAlias = Callable[[Mapping[str, Tensor]], Embedding]
"""Encodes learnt tokens (N, D), by the text encoder's name: φ' in one row."""
HIDDEN = 256
"""The width of the network of the form "prompt"."""


class Form(nn.Module, ABC):
    """Δ_t(c), zero before training.

    Args:
        shapes: the shape of each tensor of the null embedding that is optimised, without the batch dimension.
        steps: T, the number of denoising steps.
    """

    def __init__(self, shapes: Mapping[str, Sequence[int]], steps: int) -> None:
        super().__init__()
        self.shapes = {name: tuple(shape) for name, shape in shapes.items()}
        self.parts = nn.ModuleDict({_key(name): self.part(shape, steps) for name, shape in self.shapes.items()})

    @classmethod
    def of_weights(cls, shapes: Mapping[str, Sequence[int]], steps: int, weights: Mapping[str, Tensor]) -> Form:
        """Return the form whose weights these are.

        Raises:
            RuntimeError: if they are not its weights.
        """
        form = cls(shapes, steps)
        form.load_state_dict(weights)
        return form

    @abstractmethod
    def part(self, shape: Sequence[int], steps: int) -> nn.Module:
        """Return the part that shifts one tensor: (index of the step, its values under the prompt) -> Δ."""

    def require(self, null: Embedding) -> None:
        """Refuse null embeddings with other tensors than those that the form was made for.

        Raises:
            DoesNotFit: if their names or shapes differ.
        """
        if (found := free_shapes(null)) != self.shapes:
            raise DoesNotFit(
                f"the null text does not fit this model: its tensors are {self.shapes}, the model's {found}"
            )

    def forward(self, index: int, null: Embedding, cond: Embedding) -> dict[str, Tensor]:
        """Return φ' at a denoising step for B prompts.

        Args:
            index: the denoising step, 0 being the noisiest.
            null: φ, first dimension B.
            cond: c, likewise.
        """
        shifted = dict(null)
        for name in self.shapes:
            shifted[name] = null[name] + self.parts[_key(name)](index, cond[name].float()).to(null[name])
        return shifted


class ConstantForm(Form):
    """One Δ for all denoising steps and prompts."""

    def part(self, shape: Sequence[int], steps: int) -> nn.Module:  # noqa: ARG002 - the same at all steps
        return _Table(1, shape)


class StepsForm(Form):
    """One Δ per denoising step."""

    def part(self, shape: Sequence[int], steps: int) -> nn.Module:
        return _Table(steps, shape)


class PromptForm(Form):
    """Δ as a function of the prompt's embedding and the denoising step."""

    def part(self, shape: Sequence[int], steps: int) -> nn.Module:
        return _Network(shape, steps)


class TokensForm(Form):
    """φ' as the text encoders' output for N learnt input tokens, whatever the step, the prompt and φ are.

    Args:
        shapes: as for every form.
        tokens: the first vectors (N, D), by the text encoder's name.
        encoder: encodes them while they are learnt; None once they are, when the encoding that was last made counts.

    Attributes:
        tokens: the vectors, by the text encoder's name.
    """

    def __init__(
        self, shapes: Mapping[str, Sequence[int]], tokens: Mapping[str, Tensor], encoder: Encoder | None = None
    ) -> None:
        super().__init__(shapes, 1)
        self.tokens = nn.ParameterDict({name: nn.Parameter(vectors.clone()) for name, vectors in tokens.items()})
        self.encoder = encoder
        self._encoded_as: tuple[int, ...] = ()

    @classmethod
    def of_weights(cls, shapes: Mapping[str, Sequence[int]], steps: int, weights: Mapping[str, Tensor]) -> Form:
        del steps
        found = {name.removeprefix("tokens."): w for name, w in weights.items() if name.startswith("tokens.")}
        form = cls(shapes, found)
        form.load_state_dict(weights)
        return form

    def part(self, shape: Sequence[int], steps: int) -> nn.Module:  # noqa: ARG002 - the same at all steps
        return _Encoding(shape)

    def forward(self, index: int, null: Embedding, cond: Embedding) -> dict[str, Tensor]:  # noqa: ARG002
        encoding = self._encoding()
        return {**null, **{name: encoding[name].to(tensor).expand_as(tensor) for name, tensor in free(null).items()}}

    def _encoding(self) -> Embedding:
        """Return φ' in one row: encoded anew for a gradient, or if the tokens have changed since."""
        tokens = dict(self.tokens.items())
        kept = {name: self.get_buffer(f"parts.{_key(name)}.value") for name in self.shapes}
        now = tuple(vectors._version for vectors in tokens.values())
        learning = torch.is_grad_enabled() and any(vectors.requires_grad for vectors in tokens.values())
        if self.encoder is None or not (learning or now != self._encoded_as):
            return {name: value[None] for name, value in kept.items()}
        encoding = self.encoder(tokens)
        for name, value in kept.items():
            value.copy_(encoding[name][0].detach())
        self._encoded_as = now
        return encoding


FORMS: Mapping[FormName, type[Form]] = {
    "constant": ConstantForm, "steps": StepsForm, "prompt": PromptForm, "tokens": TokensForm,
}  # fmt: skip


def free_shapes(null: Embedding) -> dict[str, tuple[int, ...]]:
    """Return the shapes that a form is made for, from a null embedding with a batch dimension."""
    return {name: tuple(tensor.shape[1:]) for name, tensor in free(null).items()}


class _Table(nn.Module):
    """A learnt Δ per row; the last row serves all further steps."""

    def __init__(self, rows: int, shape: Sequence[int]) -> None:
        super().__init__()
        self.shift = nn.Parameter(torch.zeros(rows, *shape))

    def forward(self, index: int, cond: Tensor) -> Tensor:
        row = self.shift[min(index, len(self.shift) - 1)]
        return row.expand(len(cond), *row.shape)


class _Encoding(nn.Module):
    """φ' itself, for one tensor."""

    value: Tensor

    def __init__(self, shape: Sequence[int]) -> None:
        super().__init__()
        self.register_buffer("value", torch.zeros(*shape))


class _Network(nn.Module):
    """Δ_l = W_2 gelu(W_1 c_l + W_3 mean(c) + p_l + s_t) for each token l; for a vector, that without p_l and the mean.

    The last layer starts at zero. A prompt's embedding with fewer tokens than the null text's is filled up with zeros,
    and one with more is cut, for c_l; the mean is of all its tokens but zeros.
    """

    def __init__(self, shape: Sequence[int], steps: int) -> None:
        super().__init__()
        self.tokens, width = (shape[0] if len(shape) == 2 else None), shape[-1]
        self.of_token = nn.Linear(width, HIDDEN)
        self.step = nn.Parameter(torch.zeros(steps, HIDDEN))
        if self.tokens is not None:
            self.of_mean = nn.Linear(width, HIDDEN)
            self.position = nn.Parameter(torch.zeros(self.tokens, HIDDEN))
        self.out = nn.Linear(HIDDEN, width)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, index: int, cond: Tensor) -> Tensor:
        if self.tokens is None:
            hidden = self.of_token(cond) + self.step[index]
        else:
            fitting = cond[:, : self.tokens]
            fitting = nn.functional.pad(fitting, (0, 0, 0, self.tokens - fitting.shape[1]))
            real = (cond != 0).any(-1, keepdim=True).sum(1, keepdim=True).clamp(min=1)  # a batch is padded with zeros
            mean = self.of_mean(cond.sum(1, keepdim=True) / real)
            hidden = self.of_token(fitting) + mean + self.position + self.step[index]
        shift: Tensor = self.out(nn.functional.gelu(hidden))
        return shift


def _key(name: str) -> str:
    """Return a tensor's name without dots, which the names of modules cannot have."""
    return name.replace(".", "/")
