"""What makes a text usable as a prompt, and prompts that bring their own embeddings. Free of torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nulltta.errors import InvalidValue


class EncodedPrompt(str):
    """A prompt, or a negative prompt, with embeddings that the caller made, as compel or a freed text encoder did.

    It is accepted wherever a prompt is. The text is what rewards read and what is recorded; the model is given the
    embeddings. As a negative prompt, the names below are prefixed by "negative_".

    Attributes:
        embeds: the embeddings by the names of the pipeline's own arguments for the prompt, such as `prompt_embeds`,
            `pooled_prompt_embeds` or `prompt_attention_mask`; tensors, or lists of tensors, of one row each.
    """

    __slots__ = ("embeds",)
    embeds: Mapping[str, Any]

    def __new__(cls, text: str, **embeds: Any) -> EncodedPrompt:
        """Make a prompt of a text and its embeddings.

        Raises:
            InvalidValue: if there are no embeddings, or one of them has not exactly one row.
        """
        if not embeds:
            raise InvalidValue("an EncodedPrompt needs embeddings, such as prompt_embeds")
        for name, rows in embeds.items():
            if name.startswith("negative_"):
                raise InvalidValue(
                    f"belongs to the negative prompt: give that as another EncodedPrompt, by the name "
                    f"{name.removeprefix('negative_')}",
                    field=name,
                )
            if not hasattr(rows, "__len__") or len(rows) != 1:
                raise InvalidValue("must have one row, the first dimension, per prompt", field=name)
        prompt = super().__new__(cls, text)
        prompt.embeds = embeds
        return prompt

    def __getnewargs_ex__(self) -> tuple[tuple[str], dict[str, Any]]:
        return (str(self),), dict(self.embeds)


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
    if hasattr(text, "shape"):
        raise InvalidValue(
            f"{what} must be text, not a {type(text).__name__}: give embeddings as nulltta.EncodedPrompt, with the "
            "text that they stand for"
        )
    if not isinstance(text, str):
        raise InvalidValue(f"{what} must be text, not {text!r}")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"{what} is not UTF-8 text") from error
