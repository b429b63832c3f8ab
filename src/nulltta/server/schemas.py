"""The request of `POST /v1/images/generations`: OpenAI's fields, and this package's own under `nulltta`.

Fields of OpenAI's that have no effect here accept OpenAI's values, which a strict server refuses. Other fields are
refused by name.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_type_hints

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, create_model, model_validator

from nulltta.config import NullTTAConfig
from nulltta.prompts import require_prompt, require_text

Whole = Annotated[int, Field(strict=True)]
"""An integer; "2", 2.0 and true are refused."""


def _is_text(text: str) -> str:
    """Refuse half of a surrogate pair, which JSON can spell but no tokenizer or response can hold."""
    require_text(text, "it")
    return text


def _is_prompt(text: str) -> str:
    require_prompt(text)
    return text


Text = Annotated[str, AfterValidator(_is_text)]


class StrictModel(BaseModel):
    """A model that refuses unknown fields and treats a field that is null as one that is absent."""

    model_config = ConfigDict(extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        return {name: value for name, value in data.items() if value is not None} if isinstance(data, dict) else data


class RequestOptions(StrictModel):
    """The options under `nulltta` that are not fields of `NullTTAConfig`.

    Attributes:
        reward: a name or an expression; None for the server's default.
        method: None for the server's default.
        seed: the seed of the first image, those of the others being the numbers that follow. If it is None, one is
            drawn and reported in the response.
        negative_prompt: the text of the null embedding that the optimisation starts from.
        num_frames: of a video; None for the model's default.
        image: a picture to start from, in base64 or as a data URL: PNG, JPEG or WebP.
        strength: how much of the picture is replaced by noise, above 0 and up to 1.
        mask: where the picture is painted anew, likewise; white is painted.
    """

    reward: Text | None = None
    method: Text | None = None
    seed: Annotated[Whole, Field(ge=0, lt=2**63)] | None = None
    negative_prompt: Text = ""
    num_frames: Annotated[Whole, Field(ge=1)] | None = None
    image: Text | None = None
    strength: float | None = None
    mask: Text | None = None

    def config_fields(self) -> dict[str, Any]:
        """Return the fields of `NullTTAConfig` that were given."""
        return self.model_dump(include={field.name for field in fields(NullTTAConfig)}, exclude_none=True)


if TYPE_CHECKING:
    Options = RequestOptions
else:  # one more field for each field of NullTTAConfig, which checks their values itself
    _hints = get_type_hints(NullTTAConfig)
    Options = create_model(
        "Options",
        __base__=RequestOptions,
        **{field.name: (_hints[field.name] | None, None) for field in fields(NullTTAConfig)},
    )

OPTIONS = frozenset(Options.model_fields)
"""The names of all fields under `nulltta`."""


class GenerationRequest(StrictModel):
    """A request for n images of a prompt. All fields but the last are OpenAI's."""

    prompt: Annotated[Text, AfterValidator(_is_prompt)]
    model: Text | None = None
    n: Annotated[Whole, Field(ge=1)] = 1
    size: Text = "auto"
    response_format: Literal["b64_json", "url"] | None = None
    stream: bool = False
    partial_images: Annotated[Whole, Field(ge=0, le=3)] = 0
    quality: Literal["auto", "standard", "hd", "low", "medium", "high"] = "auto"
    style: Literal["vivid", "natural"] | None = None
    background: Literal["auto", "opaque"] = "auto"
    output_format: Literal["png", "jpeg", "webp"] = "png"
    output_compression: Annotated[Whole, Field(ge=0, le=100)] = 100
    moderation: Literal["auto", "low"] = "auto"
    user: str | None = None
    safety_identifier: str | None = None
    nulltta: Options = Field(default_factory=Options)

    @property
    def by_url(self) -> bool:
        """Whether images are sent as URLs: by default for the names of OpenAI's models that do so."""
        if self.response_format is None:
            return (self.model or "").startswith("dall-e") and not self.stream
        return self.response_format == "url"
