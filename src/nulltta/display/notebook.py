"""HTML by which results show themselves in a notebook: pictures side by side with their scores, and tables."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from io import BytesIO
from typing import TYPE_CHECKING

from nulltta.display.formatting import number

if TYPE_CHECKING:
    from PIL.Image import Image

MOST_SHOWN = 16
"""The most prompts whose pictures are shown."""


@dataclass(frozen=True, slots=True)
class ShownPicture:
    """A picture with its name and its scores."""

    name: str
    image: Image
    scores: Mapping[str, float]


def pictures_html(rows: Sequence[tuple[str, Sequence[ShownPicture]]]) -> str:
    """Return a row per prompt with its pictures side by side, of the first `MOST_SHOWN` prompts."""
    blocks = [f"<p><b>{escape(prompt)}</b></p>{''.join(map(_figure, pictures))}" for prompt, pictures in rows]
    more = f"<p>and {len(rows) - MOST_SHOWN} more</p>" if len(rows) > MOST_SHOWN else ""
    return f"<div>{''.join(blocks[:MOST_SHOWN])}{more}</div>"


def table_html(rows: Mapping[str, object]) -> str:
    """Return a table with a name and a value per row; values that are None or empty are left out."""
    cells = (
        f"<tr><th>{escape(name)}</th><td>{escape(str(value))}</td></tr>"
        for name, value in rows.items()
        if value not in (None, "")
    )
    return f'<table style="text-align: left">{"".join(cells)}</table>'


def image_html(image: Image, about: str) -> str:
    """Return an image inside the HTML itself, at least 256 pixels high.

    Args:
        image: the image.
        about: what it shows, for those who do not see it.
    """
    file = BytesIO()
    image.save(file, format="PNG")
    data = base64.b64encode(file.getvalue()).decode()
    height = max(256, min(image.height, 512))
    return f'<img alt="{escape(about)}" style="height: {height}px" src="data:image/png;base64,{data}">'


def _figure(picture: ShownPicture) -> str:
    scores = ", ".join(f"{escape(name)} {number(value)}" for name, value in picture.scores.items())
    return (
        '<figure style="display: inline-block; margin: 0 1em 1em 0">'
        f"{image_html(picture.image, picture.name)}<figcaption>{escape(picture.name)}: {scores}</figcaption></figure>"
    )
