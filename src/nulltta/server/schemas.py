"""The request of `POST /v1/images/generations`: OpenAI's fields, and ours under `nulltta`.

A field of OpenAI's that would change nothing here may only ask for what happens anyway; others are refused by name.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from nulltta.config import NullTTAConfig

Whole = Annotated[int, Field(strict=True)]


def _encodable(text: str) -> str:
    """JSON can spell half a surrogate pair, which is no text: no tokenizer or answer could hold it."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError("it is not Unicode text") from error
    return text


def _spoken(text: str) -> str:
    if not text.strip():
        raise ValueError("it is empty: say what the picture should show")
    return text


Text = Annotated[str, AfterValidator(_encodable)]


class Strict(BaseModel):
    """Unknown fields are errors; a field of null is a field not given."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class Chosen(Strict):
    """What is asked for beside the configuration.

    seed: of the first image; the next ones' are the numbers that follow. None: drawn, and told in the answer.
    """

    reward: Text | None = None
    guard: Text | None = None
    method: Text | None = None
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] | None = None
    negative_prompt: Text = ""

    def settings(self) -> dict[str, Any]:
        """The fields of `NullTTAConfig` that were given."""
        return self.model_dump(include={field.name for field in fields(NullTTAConfig)}, exclude_none=True)


if TYPE_CHECKING:
    Options = Chosen
else:  # and a field a setting of NullTTAConfig, which checks their values itself
    _hints = get_type_hints(NullTTAConfig)
    Options = create_model(
        "Options", __base__=Chosen, **{field.name: (_hints[field.name] | None, None) for field in fields(NullTTAConfig)}
    )


class Generation(Strict):
    """A request for n images of a prompt; all fields but the last are OpenAI's."""

    prompt: Annotated[Text, AfterValidator(_spoken)]
    model: Text | None = None
    n: Annotated[Whole, Field(ge=1)] = 1
    size: Text = "auto"
    response_format: Literal["b64_json", "url"] = "b64_json"
    stream: bool = False
    partial_images: Annotated[Whole, Field(ge=0, le=3)] = 0
    quality: Literal["auto"] = "auto"
    background: Literal["auto", "opaque"] = "auto"
    output_format: Literal["png"] = "png"
    output_compression: Literal[100] = 100
    moderation: Literal["auto", "low"] = "auto"
    user: str | None = None
    safety_identifier: str | None = None
    nulltta: Options = Field(default_factory=Options)
