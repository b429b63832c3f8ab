"""`NullText`: what a run learnt for one prompt, a null embedding for each denoising step, and its file.

The file is safetensors. Tensors: "null.NAME" is φ; "difference.NAME" (T, ...) is φ'_t − φ in float16, or "left.NAME"
(L, r) and "right.NAME" (r, T, D) are its factors (`low_rank`); in a file that also holds the run's noise, instead,
"value.NAME" (T, ...) is φ'_t in float32, with "latents" (C, h, w), "noise" (T, C, h, w) and "image", the run's.
Metadata, all text: "format", and "about", a JSON object of prompt, timesteps, reward, config, scheduler, model
identity, versions, licence and, in a file of low rank, its rank and relative error.
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

from nulltta.algorithm.embeddings import is_free, transform
from nulltta.contracts import Embedding
from nulltta.errors import InvalidValue
from nulltta.files import atomic
from nulltta.null_text import low_rank

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
            "batch" (see `replay`), "versions", "licence".
        latents: (C, h, w), the initial latent x_T that was kept; None unless recorded.
        noise: T tensors (C, h, w), the noise of the candidates that were kept; None unless recorded.
        image: (3, H, W), the aligned image, for replay to be checked against; None unless recorded.
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
        """The index of the nearest of the timesteps it was learnt at; a tie goes to the noisier."""
        return min(range(len(self.values)), key=lambda i: abs(self.timesteps[i] - timestep))

    def at(self, timestep: float) -> Embedding:
        """φ' at the nearest timestep."""
        return self.values[self.nearest(timestep)]

    def mean(self) -> dict[str, Tensor]:
        """The average of φ' over the steps: for a pipeline that takes one negative embedding. An approximation."""
        return {name: torch.stack([value[name] for value in self.values]).mean(0) if is_free(tensor) else tensor
                for name, tensor in self.values[0].items()}  # fmt: skip

    def apply(self, pipeline: Any, *, exact: bool = False, **call: Any) -> AbstractContextManager[None]:
        """Use it in a stock diffusers pipeline: `with null_text.apply(pipe): pipe(prompt, ...)`.

        Errors: `NullTTAError` if it does not fit the pipeline, or the call inside used no classifier-free guidance.
        """
        from nulltta.null_text.apply import applied

        return applied(self, pipeline, exact=exact, **call)

    def require_fit(self, model: Any) -> None:
        """Refuse a model or pipeline for which it was not made, naming every difference."""
        from nulltta.null_text.identity import differences, identity

        if found := differences(self.about.get("model", {}), identity(model)):
            raise InvalidValue(f"the null text does not fit this model: {'; '.join(found)}")

    def save(self, path: str | Path, *, noise: bool = False, rank: int | None = None, licence: str = "") -> None:
        """Write the file, whole or not at all.

        noise: also the run's initial latent, step noise and image, and φ' in full precision: replay is then exact.
        rank: keep the differences as factors of this rank, an approximation whose relative error the file states.
        licence: under which the null text may be used, as you say.
        """
        from safetensors.torch import save

        about = {**self.about, "prompt": self.prompt, "timesteps": list(self.timesteps)}
        about |= {"licence": licence or self.about.get("licence", "")}
        tensors = {f"null.{name}": tensor for name, tensor in self.null.items()}
        if noise:
            tensors |= self._exact(rank)
        elif rank is None:
            tensors |= {f"difference.{name}": difference.half() for name, difference in self._differences().items()}
        else:
            factors, errors = self._low_rank(rank)
            tensors, about = tensors | factors, {**about, "low_rank": {"rank": rank, "relative_error": errors}}
        for key, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise InvalidValue(f"the null text's '{key}' is not finite: it cannot be saved")
        metadata = {"format": FORMAT, "about": json.dumps(about, ensure_ascii=False, default=str)}
        content = save({key: tensor.cpu().contiguous() for key, tensor in tensors.items()}, metadata)
        try:
            with atomic(Path(path)) as temporary:
                temporary.write_bytes(content)
        except OSError as error:
            raise InvalidValue(f"cannot write '{path}': {error.strerror or error}") from error

    @classmethod
    def load(cls, path: str | Path, model: Any = None) -> NullText:
        """Read a file written by `save`; with a model, or a diffusers pipeline, refuse it unless it fits.

        Errors: `NullTTAError`, in one line, for a file that is absent, truncated or no null text.
        """
        metadata, tensors = _read(Path(path))
        try:
            null_text = _assemble(cls, metadata, tensors)
        except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, AttributeError) as error:
            problem = str(error).strip().splitlines() or [type(error).__name__]
            raise InvalidValue(f"'{path}' is no null text that this version reads: {problem[0]}") from error
        if model is not None:
            null_text.require_fit(model)
        return null_text

    def _stacks(self) -> dict[str, Tensor]:
        """φ' of all steps, (T, ...) in float32, of each named tensor that is optimised."""
        free = (name for name, tensor in self.null.items() if is_free(tensor))
        return {name: torch.stack([value[name].float() for value in self.values]) for name in free}

    def _differences(self) -> dict[str, Tensor]:
        return {name: stack - self.null[name] for name, stack in self._stacks().items()}

    def _exact(self, rank: int | None) -> dict[str, Tensor]:
        """What exact replay needs, by the names that the file gives it."""
        if rank is not None:
            raise InvalidValue("exact replay needs φ' in full: leave out rank or noise")
        if self.latents is None or self.noise is None:
            raise InvalidValue("this null text holds no noise: only a fresh run's, or one saved with it, does")
        recorded = {"latents": self.latents, "noise": torch.stack(list(self.noise))}
        image = {} if self.image is None else {"image": self.image}
        return {f"value.{name}": stack for name, stack in self._stacks().items()} | recorded | image

    def _low_rank(self, rank: int) -> tuple[dict[str, Tensor], dict[str, float]]:
        """The factors, by the names that the file gives them, and each tensor's relative error once they are unfolded.
        A tensor without tokens (a pooled embedding) is small, and stays whole."""
        differences = self._differences()
        low_rank.require_rank(rank, max((len(d[0]) for d in differences.values() if d.dim() == 3), default=0))
        tensors, errors = {}, {}
        for name, difference in differences.items():
            if difference.dim() != 3:
                tensors[f"difference.{name}"] = difference.half()
                continue
            left, right = low_rank.factors(difference, rank)
            tensors |= {f"left.{name}": left, f"right.{name}": right}
            errors[name] = low_rank.relative_error(low_rank.unfold(left, right), difference)
        return tensors, errors


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
    except FileNotFoundError as error:
        raise InvalidValue(f"there is no file '{path}'") from error
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise InvalidValue(f"'{path}' is damaged or no safetensors file: {reason}") from error


def _assemble(cls: type[NullText], metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> NullText:
    """The null text of a file's contents; raises whatever is wrong with them."""
    if metadata.get("format") != FORMAT:
        raise ValueError(f"its format is '{metadata.get('format', 'unnamed')[:40]}', not '{FORMAT}'")
    about = json.loads(metadata["about"])
    timesteps = [float(t) for t in about.pop("timesteps")]
    prompt = about.pop("prompt")
    if not all(map(math.isfinite, timesteps)):
        raise ValueError("a timestep is not finite")
    prompt.encode()  # refuses lone surrogates, which no tokenizer takes
    null = {key.removeprefix("null."): tensor for key, tensor in tensors.items() if key.startswith("null.")}
    null = transform(null, lambda tensor: tensor.float() if is_free(tensor) else tensor)
    if not null or not timesteps or not isinstance(about.get("model", {}), dict):
        raise ValueError("its prompt, timesteps or tensors are missing")
    steps = {name: _steps(tensors, name, null[name], len(timesteps)) for name in null if is_free(null[name])}
    latents, noise, image = (tensors.get(key) for key in ("latents", "noise", "image"))
    if latents is not None and noise is not None and noise.shape != (len(timesteps), *latents.shape):
        raise ValueError(f"its noise has shape {tuple(noise.shape)}: expected {(len(timesteps), *latents.shape)}")
    values = [{**null, **{name: stack[i] for name, stack in steps.items()}} for i in range(len(timesteps))]
    return cls(timesteps, values, prompt, null, about, latents, None if noise is None else list(noise), image)


def _steps(tensors: Mapping[str, Tensor], name: str, null: Tensor, count: int) -> Tensor:
    """φ' of all steps (T, ...), in whichever form the file holds it."""
    exact, left = tensors.get(f"value.{name}"), tensors.get(f"left.{name}")
    if exact is not None:
        stack = exact
    elif left is not None:
        stack = low_rank.unfold(left, tensors[f"right.{name}"])
    else:
        stack = tensors[f"difference.{name}"].float()
    if stack.shape != (count, *null.shape) or not bool(stack.isfinite().all()):
        raise ValueError(f"'{name}' has shape {tuple(stack.shape)}, or values that are not finite")
    return stack if exact is not None else stack + null
