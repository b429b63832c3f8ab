"""API keys, addresses, and images by URL."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nulltta.errors import InvalidValue, NullTTAError
from nulltta.runs.network import is_loopback
from nulltta.server.app import _repeat
from nulltta.server.auth import VARIABLE, APIKeys, read_keys
from nulltta.server.image_store import StoredImages
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
    file.write_text(f"alice  {KEY}\n")
    assert read_keys(file, {}) == (f"alice {KEY}",)


@pytest.mark.parametrize(
    "content",
    [
        "",
        "\n",
        "short\n",
        "with a space 0123456789\n",
        "bob/eve 0123456789abcdef\n",
        "bob short\n",
        "ключ-0123456789abcdef\n",
    ],
)
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


def test_a_changed_file_of_keys_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"alice {KEY}\n")
    keys = APIKeys(read_keys(file, {}), file)
    file.write_text(f"alice {KEY}\nbob {OTHER}\n")
    assert [keys.accept(f"Bearer {key}".encode()) for key in (KEY, OTHER)] == ["alice", "bob"]
    file.write_text("short\n")  # half written: the keys before stay
    assert keys.accept(f"Bearer {OTHER}".encode()) == "bob"
    file.write_text(f"bob {OTHER}\n")
    assert [keys.accept(f"Bearer {key}".encode()) for key in (KEY, OTHER)] == [None, "bob"]


def test_a_key_withdrawn_between_reading_and_starting_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEY}\n{OTHER}\n")
    read = read_keys(file, {})
    file.write_text(f"{OTHER}\n")
    keys = APIKeys(read, file)
    assert [bool(keys.accept(f"Bearer {key}".encode())) for key in (KEY, OTHER)] == [False, True]


def test_a_request_is_logged_under_its_own_id_and_the_name_of_its_key(
    start: Callable[..., Running], caplog: pytest.LogCaptureFixture
) -> None:
    at = start(keys=(f"alice {KEY}",))
    with caplog.at_level(logging.INFO, "nulltta.server"):
        _, _, headers = get(at, "/v1/models", **{"x-request-id": "trace-1:a.b"})
        _, _, others = get(at, "/v1/models", **{"x-request-id": "two words"})
    assert headers["x-request-id"] == "trace-1:a.b"
    assert others["x-request-id"].startswith("req_")
    logged = [record.fields for record in caplog.records if record.getMessage() == "request"]  # type: ignore[attr-defined]
    assert next((each["request_id"], each["key"]) for each in logged) == ("trace-1:a.b", "alice")
    assert KEY not in str(logged)


def test_malformed_authorization_headers_are_refused() -> None:
    keys = APIKeys([KEY])
    assert keys.accept(f"bearer  {KEY}".encode()) == hashlib.sha256(KEY.encode()).hexdigest()[:8]
    assert APIKeys([f"alice {KEY}"]).accept(f"Bearer {KEY}".encode()) == "alice"
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
        {"max_images": 0}, {"max_images": 11}, {"queue_size": 0}, {"timeout": 0}, {"timeout": float("inf")},
        {"port": 70000}, {"methods": ()}, {"grace": -1},
        {"stall": 0}, {"public_url": "javascript:alert(1)"}, {"public_url": "pictures.example"}, {"aliases": ("",)},
    ],
)  # fmt: skip
def test_an_invalid_setting_is_named(wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidValue) as refused:
        ServerSettings(**wrong)
    name = "batch_size" if wrong == {"max_images": 11} else next(iter(wrong))
    assert str(refused.value).startswith(f"{name} must ")


def test_images_expire_and_make_room() -> None:
    now = 0.0
    images = StoredImages(lifetime=10, capacity=2, now=lambda: now)
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


def test_images_in_a_folder_survive_a_kill(tmp_path: Path) -> None:
    now = time.time()
    folder = tmp_path / "new" / "images"
    kept = [StoredImages(60, 10, folder).add(content) for content in (b"1", b"2")]
    (folder / ".cut.partial").write_bytes(b"half")
    (folder / "notes.txt").write_text("somebody else's")
    again = StoredImages(60, 10, folder, now=lambda: now)
    assert [again.find(name) for name in kept] == [b"1", b"2"]
    again.close()
    now += 61
    assert again.find(kept[0]) is None
    again.sweep()
    assert [path.name for path in folder.iterdir()] == ["notes.txt"]


def test_expired_images_are_deleted_although_an_earlier_sweep_failed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, swept = StoredImages(10, 2), threading.Event()
    errors = iter([OSError("the disk is gone")])

    def sweep() -> None:
        if error := next(errors, None):
            raise error
        swept.set()

    async def sweep_twice() -> None:
        sweeper = asyncio.create_task(_repeat("sweep", 0, lambda: asyncio.to_thread(store.sweep)))
        assert await asyncio.to_thread(swept.wait, 30)
        sweeper.cancel()

    monkeypatch.setattr(store, "sweep", sweep)
    with caplog.at_level(logging.ERROR, "nulltta.server"):
        asyncio.run(sweep_twice())
    assert [record.getMessage() for record in caplog.records] == ["sweep"]
    store.close()


def test_the_url_of_a_deleted_image_is_not_found(start: Callable[..., Running]) -> None:
    at = start(max_urls=1)
    urls = [ask(at, body(str(i)) | {"response_format": "url"})[1]["data"][0]["url"] for i in range(2)]
    with pytest.raises(urllib.error.HTTPError, match="404") as gone:
        urllib.request.urlopen(urls[0])
    gone.value.close()
    with urllib.request.urlopen(urls[1]) as kept:
        assert kept.read(4) == b"\x89PNG"
