"""The Hugging Face Hub: which names are those of repositories, and whether the hub can be asked for their files."""

from __future__ import annotations

import re

_ID = re.compile(r"\w([\w.-]*\w)?/\w([\w.-]*\w)?")
_SECONDS = 5.0


def is_hub_id(text: str) -> bool:
    """Return whether a text has the form of a repository's id, "org/name", as the hub defines it."""
    return _ID.fullmatch(text) is not None and ".." not in text and "--" not in text


def reachable() -> bool:
    """Return whether the hub answers.

    It is asked once, and is given a few seconds. The hub's own functions ask for each file again and again before they
    give up, which takes a minute on a machine without a network. With HF_HUB_OFFLINE=1 it is not asked.
    """
    from huggingface_hub import constants, get_session

    try:
        return bool(get_session().head(constants.ENDPOINT, timeout=_SECONDS).status_code < 500)
    except Exception:  # which library's exceptions they are depends on the version of huggingface_hub
        return False
