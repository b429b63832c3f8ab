"""The examples of docs/server.md."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from .serving import KEY, Running
from .wire import ask, get

GUIDE = Path(__file__).parents[2] / "docs" / "server.md"


def test_the_guides_client(
    start: Callable[..., Running], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    at = start(name="embedded", rewards=("clip",))
    [code] = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S)
    [said] = re.findall(r"This printed, .*?```\n(.*?)```", GUIDE.read_text(), re.S)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(code.replace("http://127.0.0.1:8000", at.url).replace("15,", "4,"), names)  # short
    names["client"].close()
    shape = [re.sub(r"[0-9a-f]{32}|[\d.]+x?\d*", "#", text).split() for text in (said, capsys.readouterr().out)]
    assert shape[0] == shape[1]
    for picture in ("fox-0", "fox-1", "image_generation.partial_image", "image_generation.completed"):
        with Image.open(tmp_path / f"{picture}.png") as found:
            assert found.info["prompt"].startswith("two foxes")


def test_the_guides_mistakes(start: Callable[..., Running]) -> None:
    at = start(name="embedded", rewards=("clip",), keys=(KEY,))
    table = re.findall(r"^\| (.+) \| (\d{3}) \| `(.+)` \| (.+) \|$", GUIDE.read_text(), re.M)
    assert len(table) == 10
    for sent, status, code, message in table:
        found, answered, _ = answers(at, sent.strip("`"))
        assert (found, answered["error"]["code"], answered["error"]["message"]) == (int(status), code, message)
    assert at.metric("denoising_steps_total") == 0


def answers(at: Running, sent: str) -> tuple[int, Any, Any]:
    """Send what a cell of the table describes."""
    if sent == "10 MB":
        return ask(at, b" " * 10_000_000)
    if sent.endswith(" key"):
        return ask(at, b"{", headers={"Authorization": None if sent == "no key" else "Bearer wrong"})
    return get(at, sent.removeprefix("GET ")) if sent.startswith("GET ") else ask(at, sent.encode())
