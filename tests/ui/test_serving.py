"""Serving the page: foreign requests, embedding, the login, and the end of the process."""

from __future__ import annotations

import gc
import json
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from nulltta.ui.engine import PageEngine

pytest.importorskip("gradio", reason="needs the extra ui")
pytestmark = pytest.mark.filterwarnings("default")  # Gradio's and uvicorn's own

HANGING = """
import threading, time
from pathlib import Path
from nulltta.ui.ending import end_on_signals

def hang():
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass

folder = Path({folder!r})
end_on_signals(folder, grace=0.2)
threading.Thread(target=hang).start()
print("ready", flush=True)
hang()
"""


@pytest.fixture(scope="module")
def url(engine: PageEngine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a page with a login, which one other site may embed."""
    from nulltta.ui.app import PageAccess, launch

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    access = PageAccess(
        port=port, password="secret", allowed_hosts=["page.example"], frame_ancestors="'self' https://frame.example"
    )
    made = launch(engine, tmp_path_factory.mktemp("page"), access)
    yield f"http://127.0.0.1:{port}"
    made.close(verbose=False)
    gc.collect()  # of what Gradio's server leaves behind


def status(url: str, **headers: str) -> int:
    try:
        with urlopen(Request(url, headers=headers)) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code


def test_foreign_hosts_and_origins_are_refused_and_allowed_ones_are_not(url: str) -> None:
    assert status(url) == status(url, Host="localhost") == status(url, Host="page.example:80") == 200
    assert status(url, Origin=url) == 200
    assert status(url, Host="evil.example") == 403
    assert status(url, Origin="https://evil.example") == 403
    assert status(f"{url}/gradio_api/upload", Origin="null") == 403


def test_who_may_embed_the_page_is_an_option_and_the_login_says_its_user(url: str) -> None:
    with urlopen(url) as answer:
        assert "frame-ancestors 'self' https://frame.example" in answer.headers["content-security-policy"]
        page = answer.read().decode()
    assert json.dumps("The user name is nulltta.") in page
    assert status(f"{url}/config") == 401


def test_sigterm_ends_a_process_whose_threads_hang_and_deletes_its_files(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    folder.mkdir()
    with subprocess.Popen(
        [sys.executable, "-c", HANGING.format(folder=str(folder))], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.terminate()
        assert process.wait(timeout=20) == 128 + signal.SIGTERM
    assert not folder.exists()
