"""`FittedNullText`: a null text that was learnt once for a model and a reward, for all prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta.algorithm import schedules
from nulltta.contracts import Embedding
from nulltta.errors import DoesNotFit, InvalidValue, LoadError, first_line
from nulltta.files import as_error, atomic
from nulltta.null_text import file
from nulltta.null_text.apply import applied
from nulltta.null_text.forms import FORMS, Form
from nulltta.null_text.identity import require_fit
from nulltta.null_text.sharing import Shareable
from nulltta.null_text.sources import located

MAX_NUMBERS = 2**31
"""The most numbers that a file's shapes may claim: more would ask for memory, not for a null text."""


@dataclass(frozen=True, slots=True)
class FittedNullText(Shareable):
    """A null text for all prompts: φ'_t(c) = φ + Δ_t(c).

    Attributes:
        timesteps: the timesteps of the T denoising steps for which it was fitted, noisiest first.
        form: Δ.
        between: (first, end), the denoising steps at which φ' differs from φ.
        about: how it was made, in JSON's types: "model" (its identity), "form", "reward", "config", "prompts" (a hash
            and their number), "fit" (the settings), "validation" (gains with intervals), "versions", "licence".
        null: the φ at which it was fitted, without a batch dimension, where the pipeline takes zeros in the place of φ
            when it is called without a negative prompt, as SDXL's does; empty where it does not.
    """

    timesteps: Sequence[float]
    form: Form
    between: tuple[int, int]
    about: Mapping[str, Any]
    null: Embedding = field(default_factory=dict)

    @property
    def prompt(self) -> str:
        """The prompt for which it was learnt: none."""
        return ""

    @property
    def image(self) -> None:
        """The recorded image: none."""
        return

    def nearest(self, timestep: float) -> int:
        """Return the index of the nearest timestep for which it was fitted; a tie goes to the noisier one."""
        return schedules.nearest(self.timesteps, timestep)

    @torch.no_grad()
    def embedding(self, timestep: float, null: Embedding, cond: Embedding) -> dict[str, Tensor]:
        """Return φ' of B prompts.

        Args:
            timestep: the denoising step's; the nearest fitted one counts.
            null: φ, first dimension B.
            cond: c, likewise.

        Raises:
            DoesNotFit: if the embeddings have other tensors than those that it was fitted for.
        """
        return self.at(self.nearest(timestep), null, cond)

    def at(self, index: int, null: Embedding, cond: Embedding) -> dict[str, Tensor]:
        """Return φ' of B prompts at a denoising step by its index, with the gradient of Δ.

        Δ's weights move to the embeddings' device, where they stay. Rows of φ that are zeros are those of a pipeline
        that was given no negative prompt: Δ is counted from the φ at which it was fitted.
        """
        self.form.require(null)
        self.form.to(next(iter(null.values())).device)
        if self.null:
            null = self._without_zeros(null)
        first, end = self.between
        return self.form(index, null, cond) if first <= index < end else dict(null)

    def _without_zeros(self, null: Embedding) -> Embedding:
        """Return φ with the φ of the fit in the rows in which all tensors are zeros."""
        given = torch.stack([null[name].flatten(1).any(1) for name in self.null]).any(0)  # (B,)

        def mended(name: str, rows: Tensor) -> Tensor:
            kept = given.view(-1, *[1] * (rows.dim() - 1))
            return torch.where(kept, rows, self.null[name].to(rows))

        return {name: mended(name, rows) if name in self.null else rows for name, rows in null.items()}

    @property
    def paths(self) -> Sequence[str]:
        """The names of the tensors of φ', which are the denoiser's argument paths."""
        return list(self.form.shapes)

    @torch.no_grad()
    def rows(self, index: int, null: Mapping[str, Any], cond: Mapping[str, Any]) -> dict[str, Sequence[Tensor]]:
        """Return what replaces the null branch's rows of a denoiser's call.

        Args:
            index: the denoising step.
            null: the null branch's rows, by path.
            cond: the prompt's rows, by path.

        Raises:
            DoesNotFit: if the call has other tensors than those that it was fitted for, or the null branch is called
                before the prompt's.
        """
        if any(rows is None for rows in cond.values()):
            raise DoesNotFit("the pipeline evaluates the null branch before the prompt is known: fit another form")
        null, cond = ({name: _stacked(rows) for name, rows in each.items()} for each in (null, cond))
        shifted = self.at(index, null, cond)
        return {path: list(rows) for path, rows in shifted.items()}

    def apply(self, pipeline: Any) -> AbstractContextManager[None]:
        """Use it in a stock diffusers pipeline: `with null_text.apply(pipe): pipe(any_prompt, ...)`.

        The call's own negative prompt is φ, from which Δ is counted.

        Raises:
            DoesNotFit: if it does not fit the pipeline.
            InvalidValue: if the call inside used no classifier-free guidance.
        """
        if "where" not in self.about:
            raise DoesNotFit("the null text was fitted for a model without a pipeline")
        return applied(self, pipeline)

    def require_fit(self, model: Any) -> None:
        """Refuse a model or pipeline for which it was not made.

        Raises:
            DoesNotFit: if it was made for another; the message names every difference.
        """
        require_fit(self.about, model)

    def save(self, path: str | Path, *, licence: str = "") -> None:
        """Write the file completely or not at all: Δ's weights, φ if it is held, and "about" as JSON in the metadata.

        Args:
            path: the file.
            licence: the licence under which the null text may be used; what `about` says by default.

        Raises:
            InvalidValue: if a weight is not finite, or the file cannot be written.
        """
        from safetensors.torch import save

        path = Path(path)
        tensors = {f"shift.{name}": tensor.cpu().contiguous() for name, tensor in self.form.state_dict().items()}
        tensors |= {f"null.{name}": tensor.cpu().contiguous() for name, tensor in self.null.items()}
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise InvalidValue(f"the fitted null text's '{name}' is not finite: it cannot be saved")
        licence = licence or self.about.get("licence", "")
        made = {
            "licence": licence,
            "timesteps": list(self.timesteps),
            "between": list(self.between),
            "shapes": self.form.shapes,
        }
        metadata = {"format": file.FITTED, "about": json.dumps({**self.about, **made}, ensure_ascii=False, default=str)}
        with as_error(path), atomic(path) as temporary:
            temporary.write_bytes(save(file.GUARD | tensors, metadata))

    @classmethod
    def load(cls, path: str | Path, model: Any = None) -> FittedNullText:
        """Read a file written by `save`; with a model, or a diffusers pipeline, refuse it unless it fits.

        Args:
            path: the file, or a repository of the Hugging Face Hub, as in "user/repo".
            model: the model that it must fit; None to read it for any.

        Raises:
            LoadError: if the file does not exist, is damaged or is not a fitted null text.
            DoesNotFit: if it was made for another model.
        """
        metadata, tensors = file.read_tensors(located(path))
        if metadata.get("format") != file.FITTED:
            raise LoadError(f"'{path}' is not a fitted null text: its format is '{metadata.get('format', 'unnamed')}'")
        try:
            fitted = cls._read(json.loads(metadata["about"]), tensors)
        except (LookupError, ValueError, TypeError, AttributeError, RuntimeError) as error:
            raise LoadError(
                f"'{path}' is not a fitted null text that this version reads: {first_line(error)}"
            ) from error
        if model is not None:
            fitted.require_fit(model)
        return fitted

    @classmethod
    def _read(cls, about: dict[str, Any], tensors: Mapping[str, Tensor]) -> FittedNullText:
        timesteps = [float(t) for t in about.pop("timesteps")]
        first, end = (int(index) for index in about.pop("between"))
        shapes = {str(name): tuple(map(int, shape)) for name, shape in about.pop("shapes").items()}
        if not shapes or sum(map(_numbers, shapes.values())) * max(1, len(timesteps)) > MAX_NUMBERS:
            raise ValueError("its shapes make no sense")
        weights, null = (
            {name.removeprefix(part): tensor.float() for name, tensor in tensors.items() if name.startswith(part)}
            for part in ("shift.", "null.")
        )
        if not all(bool(tensor.isfinite().all()) for tensor in (*weights.values(), *null.values())):
            raise ValueError("it holds numbers that are not finite")
        if null and {name: tuple(tensor.shape) for name, tensor in null.items()} != shapes:
            raise ValueError("the null embedding has other tensors than the shifts")
        form = FORMS[about["form"]].of_weights(shapes, len(timesteps), weights)
        return cls(timesteps, form.eval().requires_grad_(False), (first, end), about, null)


def _stacked(rows: Any) -> Tensor:
    return rows if isinstance(rows, Tensor) else torch.stack(list(rows))


def _numbers(shape: Sequence[int]) -> int:
    if not 1 <= len(shape) <= 2 or min(shape) < 1:
        raise ValueError("a shape makes no sense")
    return int(torch.tensor(shape).prod())
