"""Hooks of the documentation's build: links out of `docs/`, pages that live in the root, settings, and mathematics.

The pages are also read as they are, in the repository. There, a link to a source file is relative, equations stand
between dollar signs, and the changelog lies in the root. The functions below turn these into what a site needs.
"""

from __future__ import annotations

import re
from dataclasses import fields
from html import unescape
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert
from mkdocs.exceptions import PluginError

from nulltta.config import NullTTAConfig

ROOT = Path(__file__).parents[1]
REPOSITORY = "https://github.com/nulltta/nulltta/blob/main"
FROM_ROOT = {"changelog.md": "CHANGELOG.md", "contributing.md": "CONTRIBUTING.md"}

_LINK = re.compile(r"\]\((?P<target>[^)#\s:]+)(?P<anchor>#[^)\s]*)?\)")
_CODE = re.compile(r"(^```.*?^```|`[^`\n]+`)", re.M | re.S)
_MATHS = re.compile(r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<tex>.*?)\\[)\]]</(?P=tag)>', re.S)


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Take pages of the root from there, and point links to files outside `docs/` at the repository."""
    name = page.file.src_uri
    source = ROOT / FROM_ROOT[name] if name in FROM_ROOT else ROOT / "docs" / name
    if name in FROM_ROOT:
        markdown = source.read_text(encoding="utf-8")
    parts = _CODE.split(markdown)  # code stands at the odd places
    parts[::2] = [_LINK.sub(lambda link: _site_link(link, source), part) for part in parts[::2]]
    return "".join(parts).replace("<!-- settings -->", _settings())


def on_page_content(html: str, **_: Any) -> str:
    """Turn TeX into MathML, which browsers show without any script."""
    return _MATHS.sub(_mathml, html)


def _site_link(link: re.Match[str], source: Path) -> str:
    target, anchor = (source.parent / link["target"]).resolve(), link["anchor"] or ""
    if target.is_relative_to(ROOT / "docs"):
        if source.parent == ROOT:
            return f"]({target.relative_to(ROOT / 'docs').as_posix()}{anchor})"
        return link[0]
    if not target.exists():
        raise PluginError(f"{source.relative_to(ROOT)}: there is no {link['target']}")
    for page, name in FROM_ROOT.items():
        if target == ROOT / name:
            return f"]({'../' * (len(source.relative_to(ROOT).parts) - 2)}{page}{anchor})"
    return f"]({REPOSITORY}/{target.relative_to(ROOT).as_posix()}{anchor})"


def _settings() -> str:
    """Return a table of the configuration's fields, with the help texts of their flags."""
    rows = (f"| `{field.name}` | `{field.default!r}` | {field.metadata['help']} |" for field in fields(NullTTAConfig))
    return "\n".join(["| setting | default | what it is |", "|---|---|---|", *rows])


def _mathml(maths: re.Match[str]) -> str:
    """Return a formula as MathML; TeX that the converter does not know is an error."""
    tex = re.sub(r"\\tag\{(\w+)\}", r"\\qquad\\text{(\1)}", unescape(maths["tex"]))
    mathml = str(convert(tex, display="block" if maths["tag"] == "div" else "inline"))
    if "\\" in mathml:
        raise PluginError(f"not understood in {tex}")
    return mathml
