"""`NullText`: what a run learnt for one prompt, a null embedding for each denoising step, and its file.

The file is safetensors. Tensors: "null.NAME" is φ; "difference.NAME" (T, ...) is φ'_t − φ in float16, or, in a file
that also holds the run's noise, "value.NAME" (T, ...) is φ'_t in float32; "latents" (C, h, w) and "noise"
(T, C, h, w). Metadata, all text: "format", and "about", a JSON object of prompt, timesteps, reward, config, scheduler,
model identity, versions and licence.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nulltta.embedding import is_free
from nulltta.errors import NullTTAError
from nulltta.files import atomic
from nulltta.types import Embedding

FORMAT = "nulltta null text 1"


@dataclass(frozen=True, slots=True)
class NullText:
    """The learnt null text of one prompt.

    Attributes:
        timesteps: the T denoising steps', noisiest first.
        values: φ' at each of them, without a batch dimension. Stable Diffusion: {"tokens": (77, 768)}.
        prompt: the prompt it was learnt for.
        null: φ, from which it started; same names and shapes as each of `values`.
        about: how it was made, in JSON's types: "model" (its identity), "reward", "config", "seed", "scheduler",
            "versions", "licence".
        latents: (C, h, w), the initial latent x_T that was kept; None unless recorded.
        noise: T tensors (C, h, w), the noise of the candidates that were kept; None unless recorded.
    """

    timesteps: Sequence[float]
    values: Sequence[Embedding]
    prompt: str
    null: Embedding = field(default_factory=dict)
    about: Mapping[str, Any] = field(default_factory=dict)
    latents: Tensor | None = None
    noise: Sequence[Tensor] | None = None

    def at(self, timestep: float) -> Embedding:
        """φ' at the nearest of the timesteps it was learnt at; a tie goes to the noisier."""
        return self.values[min(range(len(self.values)), key=lambda i: abs(self.timesteps[i] - timestep))]

    def mean(self) -> dict[str, Tensor]:
        """The average of φ' over the steps: for a pipeline that takes one negative embedding. An approximation."""
        return {name: torch.stack([value[name] for value in self.values]).mean(0) if is_free(tensor) else tensor
                for name, tensor in self.values[0].items()}  # fmt: skip

    def apply(self, pipeline: Any, *, exact: bool = False, **options: Any) -> AbstractContextManager[None]:
        """Use it in a stock diffusers pipeline: `with null_text.apply(pipe): pipe(prompt, ...)`; see `nulltta.replay`.

        Errors: `NullTTAError` if it does not fit the pipeline, or the call inside used no classifier-free guidance.
        """
        from nulltta.replay import applied

        return applied(self, pipeline, exact=exact, **options)

    def require_fit(self, model: Any) -> None:
        """Refuse a model or pipeline for which it was not made, naming every difference."""
        from nulltta.models.identity import differences, identity

        if found := differences(self.about.get("model", {}), identity(model)):
            raise NullTTAError(f"the null text does not fit this model: {'; '.join(found)}")

    def save(self, path: str | Path, *, noise: bool = False, licence: str = "") -> None:
        """Write the file, whole or not at all.

        noise: also the run's initial latent and step noise, and φ' in full precision: replay is then exact.
        licence: under which the null text may be used, as you say.
        """
        from safetensors.torch import save_file

        if noise and (self.latents is None or self.noise is None):
            raise NullTTAError("this null text holds no noise: only a fresh run's, or one saved with it, does")
        tensors = {f"null.{name}": tensor for name, tensor in self.null.items()}
        for name in self._free():
            stack = torch.stack([value[name].float() for value in self.values])
            key, tensor = (
                (f"value.{name}", stack) if noise else (f"difference.{name}", (stack - self.null[name]).half())
            )
            if not bool(tensor.isfinite().all()):
                raise NullTTAError(f"the null text's '{name}' is not finite: it cannot be saved")
            tensors[key] = tensor
        if noise and self.latents is not None and self.noise is not None:
            tensors |= {"latents": self.latents, "noise": torch.stack(list(self.noise))}
        about = {**self.about, "prompt": self.prompt, "timesteps": list(self.timesteps)}
        about |= {"licence": licence or self.about.get("licence", "")}
        metadata = {"format": FORMAT, "about": json.dumps(about, ensure_ascii=False, default=str)}
        with atomic(Path(path)) as temporary:
            save_file({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, temporary, metadata)

    @classmethod
    def load(cls, path: str | Path, model: Any = None) -> NullText:
        """Read a file written by `save`; with a model, or a diffusers pipeline, refuse it unless it fits.

        Errors: `NullTTAError`, in one line, for a file that is absent, truncated or no null text.
        """
        metadata, tensors = _read(Path(path))
        try:
            null_text = _assemble(cls, metadata, tensors)
        except (KeyError, ValueError, TypeError, RuntimeError, RecursionError, AttributeError) as error:
            problem = str(error).strip().splitlines() or [type(error).__name__]
            raise NullTTAError(f"'{path}' is no null text that this version reads: {problem[0]}") from error
        if model is not None:
            null_text.require_fit(model)
        return null_text

    def _free(self) -> list[str]:
        return [name for name, tensor in self.null.items() if is_free(tensor)]


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError as error:
        raise NullTTAError(f"there is no file '{path}'") from error
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise NullTTAError(f"'{path}' is damaged or no safetensors file: {reason}") from error


def _assemble(cls: type[NullText], metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> NullText:
    """The null text of a file's contents; raises whatever is wrong with them."""
    if metadata.get("format") != FORMAT:
        raise ValueError(f"its format is '{metadata.get('format', 'unnamed')[:40]}', not '{FORMAT}'")
    about = json.loads(metadata["about"])
    timesteps = [float(t) for t in about.pop("timesteps")]
    prompt = about.pop("prompt")
    null = {key.removeprefix("null."): tensor for key, tensor in tensors.items() if key.startswith("null.")}
    if not all(map(math.isfinite, timesteps)):
        raise ValueError("a timestep is not finite")
    if not null or not timesteps or not isinstance(prompt, str) or not isinstance(about.get("model", {}), dict):
        raise ValueError("its prompt, timesteps or tensors are missing")
    steps: dict[str, Tensor] = {}
    for name, tensor in null.items():
        if not is_free(tensor):
            continue
        exact = tensors.get(f"value.{name}")
        steps[name] = tensors[f"difference.{name}"].float() + tensor if exact is None else exact
        if steps[name].shape != (len(timesteps), *tensor.shape) or not bool(steps[name].isfinite().all()):
            raise ValueError(f"'{name}' has shape {tuple(steps[name].shape)}, or values that are not finite")
    noise = tensors.get("noise")
    if noise is not None and len(noise) != len(timesteps):
        raise ValueError(f"it holds the noise of {len(noise)} steps for {len(timesteps)} timesteps")
    values = [{**null, **{name: stack[i] for name, stack in steps.items()}} for i in range(len(timesteps))]
    return cls(timesteps, values, prompt, null, about, tensors.get("latents"), None if noise is None else list(noise))
