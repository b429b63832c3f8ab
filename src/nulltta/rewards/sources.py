"""Where the files of a reward are: a file, a directory, or a repository of the hub, in its cache or downloaded."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nulltta.types import NullTTAError

_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
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
        raise NullTTAError(f"reward '{reward}' needs {' or '.join(names)}: '{source}' has none")
    if not _HUB_ID.fullmatch(str(source)):
        raise NullTTAError(f"reward '{reward}' needs {' or '.join(names)}: there is no '{source}'")
    for name in names:
        if (cached := cached_file(str(source), name)) is not None:
            return _verified(cached, sha256)
    return _verified(_download(str(source), names, reward), sha256)


def cached_file(repository: str, name: str) -> Path | None:
    """A file of the hub, if it is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def folder(source: str | Path) -> str:
    """Where a source's other files are: the directory of a file, else the source itself."""
    path = Path(source).expanduser()
    return str(path.parent) if path.is_file() else str(source)


def read_json(source: str | Path, name: str, *, reward: str) -> dict[str, Any]:
    """A JSON object of the source. Raises NullTTAError where it is missing or none."""
    path = find(folder(source), [name], reward=reward)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NullTTAError(f"reward '{reward}': '{path}' is not JSON") from error
    if not isinstance(value, dict):
        raise NullTTAError(f"reward '{reward}': '{path}' is not a JSON object")
    return value


def tokenizer(kind: str, places: Sequence[str], *, reward: str) -> Any:
    """transformers' tokenizer of class `kind` from the first place (a directory, a hub id) that has one.

    Raises:
        NullTTAError: none has; the message says where it was sought.
    """
    import transformers

    files = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
    for place in places:
        local = Path(place).is_dir()
        if local and not any((Path(place) / name).is_file() for name in files):
            continue
        try:
            return getattr(transformers, kind).from_pretrained(place)
        except (OSError, ValueError, ImportError) as error:
            if local:
                raise NullTTAError(
                    f"reward '{reward}': the tokenizer in '{place}' does not load: {first_line(error)}"
                ) from error
    raise NullTTAError(f"reward '{reward}' needs a tokenizer (tokenizer.json): sought in {', '.join(places)}")


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
            raise NullTTAError(
                f"reward '{reward}' needs {name} of {repository}: it is not in the hub's cache and cannot be "
                "downloaded (offline); give source=, a directory or file that holds it"
            ) from error
        except EntryNotFoundError as error:
            missing = error
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise NullTTAError(f"reward '{reward}' needs {name} of {repository}: {first_line(error)}") from error
    raise NullTTAError(f"reward '{reward}' needs {' or '.join(names)}: {repository} has none") from missing


def _verified(path: Path, sha256: str | None) -> Path:
    if sha256 is not None:
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha256.lower():
            raise NullTTAError(f"'{path}' has SHA-256 {digest.hexdigest()}, not {sha256}")
    return path
