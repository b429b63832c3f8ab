"""What makes a text usable as a prompt. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence

from nulltta.errors import InvalidValue


def require_prompts(prompts: Sequence[str]) -> None:
    """Check that there is a prompt, and each one.

    Raises:
        InvalidValue: if there is none, or `require_prompt` refuses one.
    """
    if not prompts:
        raise InvalidValue("no prompt: say what the picture should show")
    for prompt in prompts:
        require_prompt(prompt)


def require_prompt(prompt: object) -> None:
    """Check a prompt, which must be text that is not blank.

    Raises:
        InvalidValue: if it is not text, cannot be encoded, or is blank.
    """
    require_text(prompt, "a prompt")
    if not str(prompt).strip():
        raise InvalidValue("a prompt is empty: say what the picture should show")


def require_text(text: object, what: str) -> None:
    """Check that a value is text that can be tokenized and recorded.

    A command line can hand over bytes that are not UTF-8, and JSON can spell half a surrogate pair: Python keeps both
    in a string that no file or tokenizer takes.

    Args:
        text: the value.
        what: what it is, for the message: "a negative prompt".

    Raises:
        InvalidValue: if it is not text, or cannot be encoded as UTF-8.
    """
    if not isinstance(text, str):
        raise InvalidValue(f"{what} must be text, not {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"{what} is not UTF-8 text") from error
