"""Invalid and hostile requests. Each must get the right status and name what is wrong, in OpenAI's form."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

import nulltta
from nulltta.server.middleware import BodyLimit

from .serving import KEY, Running, running
from .wire import ask, body, get, send

MISTAKES: dict[str, tuple[Any, int, str | None, str, str]] = {
    "malformed JSON": (b'{"prompt": ', 400, None, "invalid_json", "not JSON"),
    "not UTF-8": (b'{"prompt": "\xff"}', 400, None, "", ""),
    "nested too deep": (b"[" * 60_000, 400, None, "bad_request", "parsing"),
    "no object": (b"[1]", 400, None, "invalid_body", "JSON object"),
    "nothing": (b"", 400, None, "invalid_body", "JSON object"),
    "10 MB": (b" " * 10_000_000, 413, None, "body_too_large", "65536 bytes"),
    "no prompt": ({}, 400, "prompt", "missing_required_parameter", "missing"),
    "empty prompt": (body(" \n"), 400, "prompt", "invalid_value", "'prompt': a prompt is empty"),
    "long prompt": (body("a" * 2001), 400, "prompt", "invalid_value", "at most 2000"),
    "half a character": (b'{"prompt": "\\ud800"}', 400, "prompt", "invalid_value", "not UTF-8 text"),
    "half a character as a name": (b'{"prompt": "a", "\\ud800": 1}', 400, None, "invalid_body", ""),
    "long negative prompt": (body(negative_prompt="a" * 2001), 400, "nulltta.negative_prompt", "invalid_value", ""),
    "unknown model": (body() | {"model": "gpt-image-2"}, 404, "model", "model_not_found", "'tiny'"),
    "n=1000": (body() | {"n": 1000}, 400, "n", "invalid_value", "at most 10"),
    "n=0": (body() | {"n": 0}, 400, "n", "invalid_value", "greater than or equal to 1"),
    "n as text": (body() | {"n": "2"}, 400, "n", "invalid_value", "integer"),
    "other size": (body() | {"size": "512x511"}, 400, "size", "invalid_value", "16x16"),
    "other format": (body() | {"output_format": "gif"}, 400, "output_format", "invalid_value", "png"),
    "unknown parameter": (body() | {"magic": 1}, 400, "magic", "unknown_parameter", "magic"),
    "empty reward": (body(reward=""), 400, "nulltta.reward", "invalid_value", "malformed"),
    "empty method": (body(method=""), 400, "nulltta.method", "invalid_value", "null-tta, plain"),
    "stream of several": (body() | {"stream": True, "n": 2}, 400, "n", "invalid_value", "one image"),
    "stream by url": (
        body() | {"stream": True, "response_format": "url"}, 400, "response_format", "invalid_value", "b64_json",
    ),
    "too many partial images": (body() | {"partial_images": 4}, 400, "partial_images", "invalid_value", "3"),
    "negative seed": (body(seed=-1), 400, "nulltta.seed", "invalid_value", "greater than or equal to 0"),
    "huge seed": (body(seed=2**63), 400, "nulltta.seed", "invalid_value", "less than"),
    "unknown option": (body(step=3), 400, "nulltta.step", "unknown_parameter", "step"),
    "too many steps": (body(num_inference_steps=101), 400, "nulltta.num_inference_steps", "invalid_value", "100"),
    "too many inner steps": (body(inner_steps=[1, 51]), 400, "nulltta.inner_steps", "invalid_value", "at most 50"),
    "too many candidates": (body(num_particles=9), 400, "nulltta.num_particles", "invalid_value", "at most 8"),
    "too many directions": (
        body(zeroth_order_samples=9), 400, "nulltta.zeroth_order_samples", "invalid_value", "at most 8",
    ),
    "no guidance": (body(guidance_scale=1), 400, "nulltta.guidance_scale", "invalid_value", "above 1"),
    "one inner step": (body(inner_steps=5), 400, "nulltta.inner_steps", "invalid_value", "tuple"),
    "neither number nor word": (body(annealing="slow"), 400, "nulltta.annealing", "invalid_value", "number"),
    "not a number": (b'{"prompt": "a", "nulltta": {"eta": NaN}}', 400, "nulltta.eta", "invalid_value", "not nan"),
    "endless budget": (
        b'{"prompt": "a", "nulltta": {"budget": Infinity}}', 400, "nulltta.budget", "invalid_value", "finite",
    ),
    "budget too small": (body(budget=3), 400, "nulltta.budget", "invalid_value", "does not cover"),
    "budget of time": (body(budget="20s"), 400, "nulltta.budget", "invalid_value", "integer"),
    "unknown reward": (body(reward="beauty"), 400, "nulltta.reward", "invalid_value", "choose among brightness"),
    "a reward's source": (body(reward="clipscore:/etc"), 400, "nulltta.reward", "invalid_value", "not offered"),
    "code as a reward": (body(reward="os:system"), 400, "nulltta.reward", "invalid_value", "not offered"),
    "colour as a path": (body(reward="target-colour:/etc"), 400, "nulltta.reward", "invalid_value", "#RRGGBB"),
    "malformed reward": (body(reward="0.7*"), 400, "nulltta.reward", "invalid_value", "malformed"),
    "unmeasured reward": (body(reward="z(brightness)"), 400, "nulltta.reward", "invalid_value", "z(reward, 0.2"),
    "long sum": (body(reward=" + ".join(["brightness"] * 9)), 400, "nulltta.reward", "invalid_value", "8 at most"),
    "long expression": (body(reward="1*" * 300), 400, "nulltta.reward", "invalid_value", "500 at most"),
    "scale of another guidance": (
        body(guidance_scale=9, guidance="nag"), 400, "nulltta.guidance_scale", "invalid_value", "the guidance is nag",
    ),
    "inner steps of plain sampling": (
        body(inner_steps=[1, 2], method="plain"), 400, "nulltta.inner_steps", "invalid_value", "the method plain",
    ),
    "unknown method": (body(method="dno"), 400, "nulltta.method", "invalid_value", "null-tta, plain"),
}  # fmt: skip


@pytest.mark.parametrize(("sent", "status", "param", "code", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_is_answered_with_its_status_field_and_code(
    shared: Running, sent: Any, status: int, param: str | None, code: str, says: str
) -> None:
    found, answered, headers = ask(shared, sent)
    assert found == status, answered
    assert set(answered["error"]) == {"message", "type", "param", "code"}
    assert answered["error"]["type"] == "invalid_request_error"
    assert answered["error"]["param"] == param
    assert answered["error"]["code"] == code or not code
    assert says in answered["error"]["message"]
    assert len(answered["error"]["message"].splitlines()) == 1
    assert headers["x-should-retry"] == "false"


def test_the_server_still_works_after_all_mistakes(shared: Running) -> None:
    assert ask(shared, body())[0] == 200
    assert shared.metric("requests_total", route="/v1/images/generations", status="500") == 0


def test_ten_megabytes_in_chunks_are_refused(shared: Running) -> None:
    chunks = (b" " * 100_000 for _ in range(100))
    status, answered, _ = ask(shared, chunks)
    assert (status, answered["error"]["code"]) == (413, "body_too_large")


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", None])
def test_a_body_without_the_content_type_of_json_is_refused(shared: Running, kind: str | None) -> None:
    """A web page can make a browser send such a body without asking."""
    status, answered, _ = ask(shared, b'{"prompt": "a"}', headers={"Content-Type": kind})
    assert (status, answered["error"]["code"]) == (400, "invalid_body")


@pytest.mark.parametrize(
    ("authorization", "code"),
    [
        (None, "missing_api_key"),
        ("Bearer wrong", "invalid_api_key"),
        ("Bearer ", "invalid_api_key"),
        (f"Basic {KEY}", "invalid_api_key"),
        (KEY, "invalid_api_key"),
    ],
)
@pytest.mark.parametrize("path", ["/v1/images/generations", "/v1/models", "/v1/rewards", "/metrics", "/nowhere"])
def test_a_request_without_the_right_key_is_refused(
    shared: Running, path: str, authorization: str | None, code: str
) -> None:
    status, answered, headers = ask(shared, b"{", "POST", path, {"Authorization": authorization})
    assert (status, answered["error"]["code"]) == (401, code)
    assert answered["error"]["type"] == "invalid_request_error"
    assert headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "path",
    ["/nowhere", "/images/00.png", "/images/..%2f..%2fetc%2fpasswd.png", "/images/../metrics", "/images/%00.png"],
)
def test_an_unknown_path_is_not_found(shared: Running, path: str) -> None:
    status, answered, _ = get(shared, path)
    assert (status, answered["error"]["code"]) == (404, "not_found")


def test_a_wrong_method_is_refused(shared: Running) -> None:
    status, answered, headers = ask(shared, None, "DELETE", "/v1/models")
    assert (status, answered["error"]["code"]) == (405, "method_not_allowed")
    assert headers["allow"] == "GET"


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/v1/models", "/v1/rewards", "/metrics"])
def test_head_is_answered_as_get_without_a_body(shared: Running, path: str) -> None:
    status, content, headers = ask(shared, None, "HEAD", path)
    assert (status, content) == (200, b"")
    assert int(headers["content-length"]) > 0


def test_a_server_without_keys_answers_only_to_loopback_hosts(start: Any) -> None:
    """Otherwise a web page could reach the server by rebinding its own name to 127.0.0.1."""
    at = start()
    usual = {"authorization": None}
    assert get(at, "/v1/models", **usual, host=f"localhost:{at.port}")[0] == 200
    assert get(at, "/v1/models", **usual, host="[::1]:80")[0] == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "[", ""):
        status, answered, _ = get(at, "/v1/models", **usual, host=host)
        assert (status, answered["error"]["code"]) == (403, "forbidden_host")


def test_a_server_without_keys_refuses_the_pages_of_other_sites(tiny: nulltta.GuidedModel) -> None:
    """A page can send a form to any address without asking, and its upload would be sampled."""
    given = {"authorization": None, "content-type": "multipart/form-data; boundary=x"}
    with running(tiny, cors_origins=("https://app.example",), allowed_hosts=("MyBox.local",)) as at:
        for origin in ("https://evil.example", "https://localhost.evil.example", "https://app.example.evil", "null"):
            status, answered, _ = ask(at, b"--x--", "POST", "/v1/images/edits", {**given, "origin": origin})
            assert (status, answered["error"]["code"]) == (403, "forbidden_origin")
        for origin in ("https://app.example", "http://localhost:3000", "http://[::1]", None):
            status, answered, _ = ask(at, b"--x--", "POST", "/v1/images/edits", {**given, "origin": origin})
            assert (status, answered["error"]["param"]) == (400, "image")
        assert get(at, "/v1/models", authorization=None, host="mybox.LOCAL:8000")[0] == 200


def test_a_limit_above_what_is_discarded_keeps_the_whole_body(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nulltta.server.middleware.MAX_DISCARDED", 4)
    chunks = iter([{"body": b"abc", "more_body": True}] * 3 + [{"body": b"d"}])
    found: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, send
        found.append(await receive())

    async def receive() -> Message:
        return {"type": "http.request", **next(chunks)}

    async def send(message: Message) -> None:
        raise AssertionError(message)

    limit = BodyLimit(app, 10, {})
    asyncio.run(limit({"type": "http", "method": "POST", "path": "/"}, receive, send))
    assert found[0]["body"] == b"abcabcabcd"


def test_a_truncated_body_is_not_sampled(start: Any) -> None:
    at = start()
    whole = json.dumps(body()).encode()
    sent = send(at, whole, headers={"Content-Length": str(len(whole) + 1)})
    sent.close()
    at.until(lambda: at.metric("requests_total", route="other", status="400") == 1)
    assert at.metric("denoising_steps_total") == 0


def test_many_headers_in_one_packet_are_refused(shared: Running) -> None:
    headers = b"".join(b"X-%d: 1\r\n" % i for i in range(10_000))
    with socket.create_connection(("127.0.0.1", shared.port), timeout=60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + headers + b"\r\n")
        assert connection.recv(64).startswith((b"HTTP/1.1 431", b"HTTP/1.1 400"))  # 400: it came in pieces


def test_an_endless_header_is_cut_off(shared: Running) -> None:
    """Even where httptools is installed (Ray needs it), which has no limit and which uvicorn would prefer."""
    with socket.create_connection(("127.0.0.1", shared.port), timeout=60) as connection:
        connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Endless: ")
        sent = 0
        try:
            while sent < 64 << 20:
                connection.sendall(b"a" * 65536)
                sent += 65536
        except OSError:  # the server has closed the connection
            pass
    assert sent < 16 << 20
    assert get(shared, "/healthz")[0] == 200
