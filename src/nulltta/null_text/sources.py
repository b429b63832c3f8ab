"""Where the file of a null text is: on this machine, in this package, or in a repository of the Hugging Face Hub."""

from __future__ import annotations

from pathlib import Path

from nulltta import hub
from nulltta.embedded.worlds import WORLDS
from nulltta.errors import LoadError, first_line
from nulltta.rewards.checkpoint_files import cached_file

NAME = "null_text.safetensors"
"""The name of the file in a repository."""
BARE = (".bin", ".pt", ".pth")
"""How the names of files end that hold an embedding as torch saves it."""


def is_repository(source: str | Path) -> bool:
    """Return whether a source is a repository of the hub, as in "user/repo", and not a path of this machine."""
    is_file = Path(source).suffix in (".safetensors", *BARE) or Path(source).exists()
    return not is_file and hub.is_hub_id(str(source))


def located(source: str | Path) -> Path:
    """Return the local path of a null text, fetched from the hub where a repository is named that is not here yet.

    The name of an embedded model, as a string, stands for the null text that ships with it, as it stands for the
    model; a file of that name is "./embedded", and a `Path` is always a file.

    Raises:
        LoadError: if the repository holds no null text, or cannot be reached.
    """
    if isinstance(source, str) and source in WORLDS:
        return _shipped(source)
    if not is_repository(source):
        return Path(source)
    repository = str(source)
    if (cached := cached_file(repository, NAME)) is not None:
        return cached
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

    if not hub.reachable():
        raise LoadError(
            f"there is no file '{repository}', and {NAME} of the hub's repository of that name cannot be fetched "
            "(offline)"
        )
    try:
        return Path(hf_hub_download(repository, NAME))
    except EntryNotFoundError as error:
        raise LoadError(f"the hub's repository {repository} holds no null text: it has no {NAME}") from error
    except (HfHubHTTPError, OSError, ValueError) as error:
        raise LoadError(f"{NAME} of the hub's repository {repository} does not load: {first_line(error)}") from error


def _shipped(model: str) -> Path:
    path = WORLDS[model].null_text
    if path is None:
        fitted = [f"'{name}'" for name, world in WORLDS.items() if world.null_text is not None]
        raise LoadError(f"no null text ships for '{model}', only for {' and '.join(fitted)}: `nulltta fit` learns one")
    return path
