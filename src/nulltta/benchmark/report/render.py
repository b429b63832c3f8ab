"""Rendering a report with the Jinja templates of this package."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import TYPE_CHECKING

from nulltta.benchmark.report.content import Report
from nulltta.errors import MissingExtra
from nulltta.files import atomic

if TYPE_CHECKING:
    from jinja2 import Environment


def write_html(report: Report, path: Path) -> Path:
    """Write one HTML file that needs no other file."""
    return _write(report, "report.html.j2", path)


def write_markdown(report: Report, path: Path) -> Path:
    """Write a Markdown file, and its pictures beside it."""
    for figure in report.figures:
        with atomic(path.with_name(f"{figure.name}.png")) as temporary:
            temporary.write_bytes(figure.png)
    return _write(report, "report.md.j2", path)


def _write(report: Report, template: str, path: Path) -> Path:
    """Render a template into a file."""
    text = _environment().get_template(template).render(report=report)
    with atomic(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


def _environment() -> Environment:
    """Return the templates, with HTML escaped and the filters `md` and `base64`."""
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError as error:
        raise MissingExtra("the report of a benchmark", "Jinja2", "bench") from error
    environment = Environment(
        loader=PackageLoader(__package__), autoescape=lambda name: name is not None and name.endswith(".html.j2"),
        undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    environment.filters |= {"md": _md, "base64": lambda data: base64.b64encode(data).decode()}
    return environment


def _md(text: str) -> str:
    """Return the text with Markdown's special characters escaped: a target may be called 0.5*z(clip) + ..."""
    for sign in ("\\", "*", "_", "[", "]", "<", "`", "|"):
        text = text.replace(sign, f"\\{sign}")
    return text
