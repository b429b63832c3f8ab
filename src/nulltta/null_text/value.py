"""`NullText`: what a run learnt for one prompt, a null embedding per denoising step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from nulltta.algorithm import embeddings, schedules
from nulltta.contracts import Embedding
from nulltta.display.notebook import image_html, table_html
from nulltta.images import to_pil
from nulltta.null_text import bare, file
from nulltta.null_text.apply import applied
from nulltta.null_text.identity import require_fit
from nulltta.null_text.sharing import Shareable
from nulltta.null_text.sources import located

_SHOWN = {"model": "model_name", "reward": "reward", "seed": "seed", "licence": "licence"}


@dataclass(frozen=True, slots=True)
class NullText(Shareable):
    """The learnt null text of one prompt.

    Attributes:
        timesteps: the timesteps of the T denoising steps, noisiest first.
        values: φ' at each of them, without a batch dimension. Stable Diffusion: {"tokens": (77, 768)}.
        prompt: the prompt for which it was learnt.
        null: φ, from which it started; same names and shapes as each of `values`.
        about: how it was made, in JSON's types: "model" (its identity), "reward", "config", "seed", "scheduler",
            "batch" (see `replay`), "versions", "licence".
        latents: (C, h, w), the initial latent x_T that was kept; None unless recorded.
        noise: T tensors (C, h, w), the noise of the candidates that were kept; None unless recorded.
        image: (3, H, W), the aligned image, to check a replay against; None unless recorded.
    """

    timesteps: Sequence[float]
    values: Sequence[Embedding]
    prompt: str
    null: Embedding = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    latents: Tensor | None = None
    noise: Sequence[Tensor] | None = None
    image: Tensor | None = None

    def nearest(self, timestep: float) -> int:
        """Return the index of the nearest timestep at which it was learnt; a tie goes to the noisier one."""
        return schedules.nearest(self.timesteps, timestep)

    def at(self, timestep: float) -> Embedding:
        """Return φ' at the nearest timestep."""
        return self.values[self.nearest(timestep)]

    def embedding(self, timestep: float, null: Embedding, cond: Embedding) -> dict[str, Tensor]:  # noqa: ARG002
        """Return φ' of B prompts at the nearest timestep: as many copies as `null` has rows, on its device."""
        count, device = embeddings.batch_size(null), next(iter(null.values())).device
        return embeddings.copies(self.at(timestep), count, device)

    @property
    def paths(self) -> Sequence[str]:
        """The names of the tensors of φ', which are the denoiser's argument paths."""
        return list(self.null)

    def rows(self, index: int, null: Mapping[str, Any], cond: Mapping[str, Any]) -> dict[str, Sequence[Tensor]]:  # noqa: ARG002
        """Return what replaces the null branch's rows of a denoiser's call: φ' at a step, for each row alike.

        Args:
            index: the denoising step.
            null: the null branch's rows of those tensors that the call has, by path.
            cond: the prompt's rows; not used.
        """
        value = self.values[index]
        return {path: [value[path]] * len(rows) for path, rows in null.items()}

    def mean(self) -> dict[str, Tensor]:
        """Return the average of φ' over the steps, an approximation for pipelines that take one negative embedding."""
        return embeddings.mean(self.values)

    def apply(self, pipeline: Any, *, exact: bool = False, **call: Any) -> AbstractContextManager[None]:
        """Use it in a stock diffusers pipeline: `with null_text.apply(pipe): pipe(prompt, ...)`.

        Args:
            pipeline: a pipeline of the kind for which it was made.
            exact: use the recorded noise too; see `nulltta.null_text.apply.applied`.
            call: with `exact`, keyword arguments of the calls inside; by default those that the run was given.

        Raises:
            DoesNotFit: if it does not fit the pipeline.
            InvalidValue: if the call inside used no classifier-free guidance.
        """
        return applied(self, pipeline, exact=exact, **call)

    def require_fit(self, model: Any) -> None:
        """Refuse a model or pipeline for which it was not made.

        Raises:
            DoesNotFit: if it was made for another; the message names every difference.
        """
        require_fit(self.about, model)

    def _repr_html_(self) -> str:
        """Show in a notebook what it was learnt for and how, with the picture that it made where that is recorded."""
        picture = "" if self.image is None else image_html(to_pil(self.image[None])[0], self.prompt)
        about = {name: self.about.get(key) for name, key in _SHOWN.items()}
        return picture + table_html({"prompt": self.prompt, **about, "steps": len(self.timesteps)})

    def save(self, path: str | Path, *, noise: bool = False, rank: int | None = None, licence: str = "") -> None:
        """Write the file completely or not at all.

        Args:
            path: the file.
            noise: also write the run's initial latent, step noise and image, and φ' in full precision, which makes
                replay exact.
            rank: keep the differences as factors of this rank, an approximation whose relative error the file states.
            licence: the licence under which the null text may be used.

        Raises:
            InvalidValue: if the rank is impossible, a value is not finite, or the file cannot be written.
            DoesNotFit: if the noise is wanted and the null text holds none.
        """
        file.write(self, Path(path), noise=noise, rank=rank, licence=licence)

    @classmethod
    def load(cls, path: str | Path, model: Any = None) -> NullText:
        """Read a file written by `save`; with a model, or a diffusers pipeline, refuse it unless it fits.

        Args:
            path: the file; a repository of the Hugging Face Hub, as in "user/repo", which is fetched unless it is in
                the hub's cache; or a bare negative embedding, such as ReNeg's: one tensor (1, L, D) in a safetensors
                file, or in one that torch saved.
            model: the model that it must fit. A bare embedding needs one, because it does not say its own.

        Raises:
            LoadError: if the file does not exist, is truncated or is not a null text.
            InvalidValue: if it is a bare embedding and no model is given.
            DoesNotFit: if it was made for another model.
        """
        path = located(path)
        if bare.is_bare(path):
            return cls(**bare.read(path, model))
        null_text = cls(**file.read(path))
        if model is not None:
            null_text.require_fit(model)
        return null_text
