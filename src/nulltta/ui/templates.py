"""The pieces of HTML that the page is made of, rendered from the files beside this one. All text is escaped."""

from __future__ import annotations

from functools import cache
from importlib.resources import files

import jinja2

_FOLDER = files("nulltta.ui")


def render(template: str, **values: object) -> str:
    """Render a file in `templates`."""
    return _environment().get_template(template).render(values)


def asset(name: str) -> str:
    """Return the text of a file in `assets`."""
    return (_FOLDER / "assets" / name).read_text(encoding="utf-8")


@cache
def _environment() -> jinja2.Environment:
    loader = jinja2.FunctionLoader(lambda name: (_FOLDER / "templates" / name).read_text(encoding="utf-8"))
    return jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
