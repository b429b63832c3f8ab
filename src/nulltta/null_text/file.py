"""The file of a null text, in safetensors format.

Tensors: "null.NAME" is φ; "difference.NAME" (T, ...) is φ'_t − φ in float16, or "left.NAME" (L, r) and "right.NAME"
(r, T, D) are its factors (`low_rank`). A file that also holds the run's noise has instead "value.NAME" (T, ...), φ'_t
in float32, with "latents" (C, h, w), "noise" (T, C, h, w) and "image", the run's. The first tensor is `GUARD`'s.
Metadata, all text: "format", and "about", a JSON object of prompt, timesteps, reward, config, scheduler, model
identity, versions, licence and, in a file of low rank, its rank and relative error.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import torch
from torch import Tensor

from nulltta.algorithm.embeddings import is_free, transform
from nulltta.contracts import Embedding
from nulltta.errors import DoesNotFit, InvalidValue, LoadError, first_line
from nulltta.files import atomic
from nulltta.null_text import low_rank

if TYPE_CHECKING:
    from nulltta.null_text.value import NullText

FORMAT = "nulltta null text 1"
FITTED = "nulltta fitted null text 1"
"""The format of null texts for all prompts (`FittedNullText`)."""
GUARD = {"not_a_textual_inversion": torch.zeros(1, dtype=torch.int64)}
"""What the file of every null text begins with.

ComfyUI takes the first tensor of any file among its embeddings for token vectors, unless its width is another, and its
files begin with the numbers of most bytes.
"""


class NullTextFields(TypedDict):
    """The fields of a `NullText` as read from a file."""

    timesteps: Sequence[float]
    values: Sequence[Embedding]
    prompt: str
    null: Embedding
    about: Mapping[str, Any]
    latents: Tensor | None
    noise: Sequence[Tensor] | None
    image: Tensor | None


def write(null_text: NullText, path: Path, *, noise: bool, rank: int | None, licence: str) -> None:
    """Write the file completely or not at all (`NullText.save`).

    Raises:
        InvalidValue: if the rank is impossible, a value is not finite, or the file cannot be written.
        DoesNotFit: if the noise is wanted and the null text holds none.
    """
    from safetensors.torch import save

    about = {**null_text.about, "prompt": null_text.prompt, "timesteps": list(null_text.timesteps)}
    about |= {"licence": licence or null_text.about.get("licence", "")}
    tensors = {f"null.{name}": tensor for name, tensor in null_text.null.items()}
    if noise:
        tensors |= _exact(null_text, rank)
    elif rank is None:
        tensors |= {f"difference.{name}": difference.half() for name, difference in _differences(null_text).items()}
    else:
        factors, errors = _low_rank(null_text, rank)
        tensors, about = tensors | factors, {**about, "low_rank": {"rank": rank, "relative_error": errors}}
    for key, tensor in tensors.items():
        if not bool(tensor.isfinite().all()):
            raise InvalidValue(f"the null text's '{key}' is not finite: it cannot be saved")
    metadata = {"format": FORMAT, "about": json.dumps(about, ensure_ascii=False, default=str)}
    content = save({key: tensor.cpu().contiguous() for key, tensor in (GUARD | tensors).items()}, metadata)
    try:
        with atomic(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        raise InvalidValue(f"cannot write '{path}': {first_line(error)}") from error


def read(path: Path) -> NullTextFields:
    """Read a file that `write` wrote.

    Raises:
        LoadError: if the file does not exist, is damaged or is not a null text.
    """
    metadata, tensors = read_tensors(path)
    if metadata.get("format") == FITTED:
        raise LoadError(f"'{path}' is a null text for all prompts: nulltta.null_text.loading.load reads it")
    try:
        return _fields(metadata, tensors)
    except (LookupError, ValueError, TypeError, ArithmeticError, RuntimeError, AttributeError) as error:
        raise LoadError(f"'{path}' is not a null text that this version reads: {first_line(error)}") from error


def _stacks(null_text: NullText) -> dict[str, Tensor]:
    """Stack φ' of all steps, (T, ...) in float32, per named tensor that is optimised."""
    free = (name for name, tensor in null_text.null.items() if is_free(tensor))
    return {name: torch.stack([value[name].float() for value in null_text.values]) for name in free}


def _differences(null_text: NullText) -> dict[str, Tensor]:
    return {name: stack - null_text.null[name] for name, stack in _stacks(null_text).items()}


def _exact(null_text: NullText, rank: int | None) -> dict[str, Tensor]:
    """Return what exact replay needs, by the names that the file gives it."""
    if rank is not None:
        raise InvalidValue("exact replay needs φ' in full: leave out rank or noise")
    if null_text.latents is None or null_text.noise is None:
        raise DoesNotFit("this null text holds no noise: only that of a fresh run, or one saved with it, does")
    recorded = {"latents": null_text.latents, "noise": torch.stack(list(null_text.noise))}
    image = {} if null_text.image is None else {"image": null_text.image}
    return {f"value.{name}": stack for name, stack in _stacks(null_text).items()} | recorded | image


def _low_rank(null_text: NullText, rank: int) -> tuple[dict[str, Tensor], dict[str, float]]:
    """Return the factors, by the names that the file gives them, and each tensor's relative error.

    A tensor without tokens (a pooled embedding) is small and stays whole.
    """
    differences = _differences(null_text)
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


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Return a safetensors file's metadata and tensors.

    Raises:
        LoadError: if the file does not exist, is a folder or is damaged.
    """
    from safetensors import SafetensorError, safe_open

    if path.is_dir():
        raise LoadError(f"'{path}' is a folder: give the null text in it, as in '{path / 'null-text.safetensors'}'")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = dict(file.metadata() or {})
            return metadata, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    except FileNotFoundError as error:
        raise LoadError(f"there is no file '{path}'") from error
    except (SafetensorError, OSError, ValueError, RuntimeError, MemoryError) as error:
        raise LoadError(f"'{path}' is damaged or not a safetensors file: {first_line(error)}") from error


def _fields(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> NullTextFields:
    """Return the fields of a file's contents, raising whatever is wrong with them."""
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
    return {
        "timesteps": timesteps, "values": values, "prompt": prompt, "null": null, "about": about,
        "latents": latents, "noise": None if noise is None else list(noise), "image": image,
    }  # fmt: skip


def _steps(tensors: Mapping[str, Tensor], name: str, null: Tensor, count: int) -> Tensor:
    """Return φ' of all steps (T, ...), in whichever form the file holds it."""
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
