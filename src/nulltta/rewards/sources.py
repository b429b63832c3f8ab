"""Where the files of a reward are: a file, a directory, or a repository of the hub, in its cache or downloaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nulltta.errors import InvalidValue

WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_INDEX = ".index.json"
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_SHARD = re.compile(r"\w[\w.-]*\.(safetensors|bin)")
_CHUNK = 1 << 24


def find(source: str | Path, names: Sequence[str], *, reward: str, sha256: str | None = None) -> Path:
    """The first of `names` that the source has, as a local path; a source that is a file is itself the answer.

    The hub's cache is asked first, so that what is cached needs no network.

    Raises:
        NullTTAError: none is there, and the message says which file is wanted; or its checksum is another.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return _verified(path, sha256)
    if path.is_dir():
        for name in names:
            if (path / name).is_file():
                return _verified(path / name, sha256)
        raise InvalidValue(f"reward '{reward}' needs {' or '.join(names)}: '{source}' has none")
    if not _HUB_ID.fullmatch(str(source)):
        raise InvalidValue(f"reward '{reward}' needs {' or '.join(names)}: there is no '{source}'")
    for name in names:
        if (cached := cached_file(str(source), name)) is not None:
            return _verified(cached, sha256)
    return _verified(_download(str(source), names, reward), sha256)


def cached_file(repository: str, name: str) -> Path | None:
    """A file of the hub, if it is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def shards(path: Path, source: str | Path, *, reward: str) -> list[Path]:
    """The files of the weights at `path`: itself, or those that it lists, where it is an index of `source`.

    Raises:
        NullTTAError: the index is none, or a file that it lists is missing: the message names it.
    """
    if not path.name.endswith(_INDEX):
        return [path]
    return [find(folder(source), [name], reward=reward) for name in _listed(path, reward)]


def is_cached(repository: str, names: Sequence[str]) -> bool:
    """Whether the first of `names` that the hub's cache has is there whole, shards included."""
    found = next((path for name in names if (path := cached_file(repository, name))), None)
    if found is None or not found.name.endswith(_INDEX):
        return found is not None
    return all(cached_file(repository, name) for name in _listed(found, repository))


def folder(source: str | Path) -> str:
    """Where a source's other files are: the directory of a file, else the source itself."""
    path = Path(source).expanduser()
    return str(path.parent) if path.is_file() else str(source)


def read_json(source: str | Path, name: str, *, reward: str) -> dict[str, Any]:
    """A JSON object of the source. Raises NullTTAError where it is missing or none."""
    return _object(find(folder(source), [name], reward=reward), reward)


def image_processor(source: str | Path, *, reward: str) -> dict[str, Any]:
    """The settings of a source's image processor: preprocessor_config.json, or the part of processor_config.json
    where transformers 5 puts them. Raises NullTTAError where both are missing."""
    settings = _object(find(folder(source), PROCESSOR, reward=reward), reward)
    inner = settings.get("image_processor", settings)
    return inner if isinstance(inner, dict) else settings


def tokenizer(kind: str, places: Sequence[str], *, reward: str, subfolder: str = "") -> Any:
    """transformers' tokenizer of class `kind` from the first place (a directory, a hub id) that has one.

    Raises:
        NullTTAError: none has; the message says where it was sought.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    files = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
    for place in (places := list(dict.fromkeys(places))):
        local = Path(place).is_dir()
        if local and not any((Path(place) / subfolder / name).is_file() for name in files):
            continue
        try:
            return getattr(transformers, kind).from_pretrained(place, subfolder=subfolder)
        except (OSError, ValueError, ImportError, LookupError, StrictDataclassError) as error:
            if local:
                raise InvalidValue(
                    f"reward '{reward}': the tokenizer in '{place}' does not load: {first_line(error)}"
                ) from error
    file = f"{subfolder}/tokenizer.json" if subfolder else "tokenizer.json"
    raise InvalidValue(f"reward '{reward}' needs a tokenizer ({file}): sought in {', '.join(places)}")


def first_line(error: Exception) -> str:
    """What an error says, on one line, at most 160 characters."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:160]


def _download(repository: str, names: Sequence[str], reward: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

    missing: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except (LocalEntryNotFoundError, OfflineModeIsEnabled) as error:
            raise InvalidValue(
                f"reward '{reward}' needs {name} of {repository}: it is not in the hub's cache and cannot be "
                "downloaded (offline); give source=, a directory or file that holds it"
            ) from error
        except EntryNotFoundError as error:
            missing = error
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise InvalidValue(f"reward '{reward}' needs {name} of {repository}: {first_line(error)}") from error
    raise InvalidValue(f"reward '{reward}' needs {' or '.join(names)}: {repository} has none") from missing


def _object(path: Path, reward: str) -> dict[str, Any]:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise InvalidValue(f"reward '{reward}': '{path}' is not JSON") from error
    if not isinstance(value, dict):
        raise InvalidValue(f"reward '{reward}': '{path}' is not a JSON object")
    return value


def _listed(path: Path, reward: str) -> list[str]:
    """The files that an index names, {"weight_map": {tensor: file}}; none of them a path out of its directory."""
    names = _object(path, reward).get("weight_map")
    if not isinstance(names, dict) or not names or not all(_SHARD.fullmatch(str(name)) for name in names.values()):
        raise InvalidValue(f"reward '{reward}': '{path}' is no index: its weight_map must name a file for each tensor")
    return sorted(set(names.values()))


def _verified(path: Path, sha256: str | None) -> Path:
    if sha256 is not None:
        if path.name.endswith(_INDEX):
            raise InvalidValue(f"'{path}' lists several files: a SHA-256 is of weights in one file")
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha256.lower():
            raise InvalidValue(f"'{path}' has SHA-256 {digest.hexdigest()}, not {sha256}")
    return path
