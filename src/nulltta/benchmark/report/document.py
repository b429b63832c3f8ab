"""A page as a list of blocks, written as Markdown and as HTML."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TypeAlias

from nulltta.files import atomic


@dataclass(frozen=True)
class Heading:
    text: str
    level: int = 2


@dataclass(frozen=True)
class Text:
    text: str


@dataclass(frozen=True)
class Items:
    """A list of short texts."""

    texts: Sequence[str]


@dataclass(frozen=True)
class Grid:
    """A table; the first column is of names, the others of numbers, if not of words."""

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: bool = False


@dataclass(frozen=True)
class Picture:
    """A PNG.

    name: of its file beside a Markdown page.
    """

    name: str
    png: bytes
    caption: str


Block: TypeAlias = Heading | Text | Items | Grid | Picture

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1f2328; max-width: 75rem; margin: 2rem auto; padding: 0 1rem }
table { border-collapse: collapse; display: block; overflow-x: auto; font-size: 14px }
th, td { border-bottom: 1px solid #d1d9e0; padding: .3rem .6rem; text-align: right; white-space: nowrap }
th:first-child, td:first-child, .words th, .words td { text-align: left }
img { max-width: 100%; height: auto } figcaption { color: #59636e; font-size: 14px } figure { margin: 1.5rem 0 }
"""


def write_html(page: Sequence[Block], path: Path) -> Path:
    """One file that needs no other."""
    title = next((block.text for block in page if isinstance(block, Heading)), path.stem)
    body = "\n".join(map(_html, page))
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    with atomic(path) as temporary:
        temporary.write_text(
            f'<!doctype html>\n<html lang="en"><head>{head}<style>{STYLE}</style></head>\n<body>\n{body}\n'
            "</body></html>\n",
            encoding="utf-8",
        )
    return path


def write_markdown(page: Sequence[Block], path: Path) -> Path:
    """A page, and its pictures beside it."""
    for block in page:
        if isinstance(block, Picture):
            with atomic(path.with_name(f"{block.name}.png")) as temporary:
                temporary.write_bytes(block.png)
    with atomic(path) as temporary:
        temporary.write_text("\n\n".join(map(_markdown, page)) + "\n", encoding="utf-8")
    return path


def _html(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"<h{level}>{escape(text)}</h{level}>"
        case Text(text):
            return f"<p>{escape(text)}</p>"
        case Items(texts):
            return "<ul>" + "".join(f"<li>{escape(text)}</li>" for text in texts) + "</ul>"
        case Grid(header, rows, words):
            kind, body = (" class=words" if words else ""), "".join(_row(row, "td") for row in rows)
            return f"<table{kind}><thead>{_row(header, 'th')}</thead><tbody>{body}</tbody></table>"
        case Picture(_, png, caption):
            source = f"data:image/png;base64,{base64.b64encode(png).decode()}"
            alt = escape(caption, quote=True)
            return f'<figure><img src="{source}" alt="{alt}"><figcaption>{escape(caption)}</figcaption></figure>'


def _row(cells: Sequence[str], tag: str) -> str:
    return "<tr>" + "".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in cells) + "</tr>"


def _markdown(block: Block) -> str:
    match block:
        case Heading(text, level):
            return f"{'#' * level} {_plain(text)}"
        case Text(text):
            return _plain(text)
        case Items(texts):
            return "\n".join(f"- {_plain(text)}" for text in texts)
        case Grid(header, rows, words):
            lines = [header, ["---", *["---" if words else "---:"] * (len(header) - 1)], *rows]
            return "\n".join(f"| {' | '.join(map(_plain, line))} |" for line in lines)
        case Picture(name, _, caption):
            return f"![{_plain(caption)}]({name}.png)\n\n*{_plain(caption)}*"


def _plain(text: str) -> str:
    """Text whose asterisks and brackets are no markup: a target is called 0.5*z(clip) + ..."""
    for sign in ("\\", "*", "_", "[", "]", "<", "`", "|"):
        text = text.replace(sign, f"\\{sign}")
    return text
