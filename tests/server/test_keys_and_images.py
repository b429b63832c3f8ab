"""API keys, addresses, and images by URL."""

from __future__ import annotations

import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nulltta.errors import InvalidValue, NullTTAError
from nulltta.runs.network import is_loopback
from nulltta.server.auth import VARIABLE, APIKeys, read_keys
from nulltta.server.image_store import TemporaryImages
from nulltta.server.settings import ServerSettings

from .serving import KEY, Running
from .wire import ask, body, get

OTHER = "sk-other-0123456789abcd"


def test_keys_come_from_a_file_or_else_the_environment(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n\n  {OTHER}  \n")
    assert read_keys(file, {VARIABLE: "ignored-0123456789"}) == (KEY, OTHER)
    assert read_keys(None, {VARIABLE: KEY}) == (KEY,)
    assert read_keys(None, {}) == ()


@pytest.mark.parametrize("content", ["", "\n", "short\n", "with a space 0123456789\n", "ключ-0123456789abcdef\n"])
def test_a_source_without_a_usable_key_is_refused(tmp_path: Path, content: str) -> None:
    file = tmp_path / "keys"
    file.write_text(content)
    with pytest.raises(NullTTAError, match="API key"):
        read_keys(file, {})
    with pytest.raises(NullTTAError, match=VARIABLE):
        read_keys(None, {VARIABLE: content})
    with pytest.raises(NullTTAError, match="No such file"):
        read_keys(tmp_path / "none", {})


def test_each_of_several_keys_is_accepted(start: Callable[..., Running]) -> None:
    at = start(keys=(KEY, OTHER))
    for key in (KEY, OTHER):
        assert get(at, "/v1/models", authorization=f"Bearer {key}")[0] == 200
    assert get(at, "/v1/models", authorization=f"Bearer {KEY}{OTHER}")[0] == 401
    assert KEY not in repr(at.engine.settings)


def test_malformed_authorization_headers_are_refused() -> None:
    keys = APIKeys([KEY])
    assert keys.accept(f"bearer  {KEY}".encode())
    assert not keys.accept(b"Bearer \xff\xfe")
    assert not keys.accept(b"")
    assert not APIKeys([]).accept(b"Bearer ")


def test_an_open_server_answers_without_a_key(start: Callable[..., Running]) -> None:
    at = start()
    assert ask(at, body(), headers={"Authorization": None})[0] == 200
    assert get(at, "/metrics", authorization=None)[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "server.example", ""])
def test_only_a_server_with_keys_listens_beyond_this_machine(host: str) -> None:
    with pytest.raises(NullTTAError, match="without an API key"):
        ServerSettings(host=host)
    assert ServerSettings(host=host, keys=(KEY,)).host == host


def test_loopback_addresses_are_recognised() -> None:
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "::1", "[::1]", "localhost")))
    assert not any(map(is_loopback, ("0.0.0.0", "localhost.example", "", "1.2.3.4")))


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_images": 0}, {"max_images": 9}, {"queue_size": 0}, {"timeout": 0}, {"timeout": float("inf")},
        {"port": 70000}, {"methods": ()}, {"grace": -1},
    ],
)  # fmt: skip
def test_an_invalid_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as refused:
        ServerSettings(**wrong)
    name = "batch_size" if wrong == {"max_images": 9} else next(iter(wrong))
    assert str(refused.value).startswith(f"{name} must ")


def test_images_expire_and_make_room() -> None:
    now = 0.0
    images = TemporaryImages(lifetime=10, capacity=2, now=lambda: now)
    folder = images.folder
    assert folder.stat().st_mode & 0o777 == 0o700
    first, second = images.add(b"1"), images.add(b"2")
    assert (images.find(first), images.find(second)) == (b"1", b"2")
    third = images.add(b"3")
    assert (images.find(first), images.find(third)) == (None, b"3")
    assert len(list(folder.iterdir())) == 2
    now = 10.0
    assert images.find(third) is None
    images.sweep()
    assert list(folder.iterdir()) == []
    images.close()
    assert not folder.exists()


def test_the_url_of_a_deleted_image_is_not_found(start: Callable[..., Running]) -> None:
    at = start(max_urls=1)
    urls = [ask(at, body(str(i)) | {"response_format": "url"})[1]["data"][0]["url"] for i in range(2)]
    with pytest.raises(urllib.error.HTTPError, match="404") as gone:
        urllib.request.urlopen(urls[0])
    gone.value.close()
    with urllib.request.urlopen(urls[1]) as kept:
        assert kept.read(4) == b"\x89PNG"
