"""Clients as they are: the bodies that programs for OpenAI's API send, formats, uploads, and pages of other origins."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import struct
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from starlette.datastructures import FormData, UploadFile

import nulltta
from nulltta.server.edits import read_edit

from .serving import KEY, SHORT, Running, assert_same, picture, running
from .wire import ask, body, get

DEFAULTS = {name: value for name, value in SHORT.items() if name != "seed"}


@pytest.fixture(scope="module")
def at(tiny: nulltta.GuidedModel) -> Iterator[Running]:
    """A server for clients that know OpenAI's models only."""
    names = ("dall-e-2", "dall-e-3", "gpt-image-1")
    with running(tiny, keys=(KEY,), aliases=names, defaults=DEFAULTS, cors_origins=("https://app.example",)) as found:
        yield found


def test_a_plain_request_has_the_operators_defaults(at: Running) -> None:
    with at.client() as client:
        answer = client.images.generate(prompt="a")
        other = client.images.generate(prompt="a", extra_body={"nulltta": {"num_inference_steps": 3}})
    configs = [(each.model_extra or {})["nulltta"]["config"] for each in (answer, other)]
    assert [config["num_inference_steps"] for config in configs] == [4, 3]
    assert [config["inner_steps"] for config in configs] == [[1, 1]] * 2
    assert answer.usage is not None
    assert answer.usage.total_tokens == 0


BODIES: dict[str, tuple[dict[str, Any], str]] = {
    "LangChain's DallEAPIWrapper": ({"prompt": "a", "n": 1, "size": "1024x1024", "model": "dall-e-2"}, "url"),
    "LibreChat with DALL-E 3": (
        {"model": "dall-e-3", "quality": "standard", "style": "vivid", "size": "1024x1024", "prompt": "a", "n": 1},
        "url",
    ),
    "LibreChat with GPT Image": (
        {"model": "gpt-image-1", "prompt": "a", "n": 1, "background": "auto", "quality": "auto", "size": "auto"},
        "b64_json",
    ),
    "open-webui": (
        {"model": "dall-e-3", "prompt": "a", "n": 1, "size": "512x512", "response_format": "b64_json"},
        "b64_json",
    ),
    "high quality": ({"model": "dall-e-3", "prompt": "a", "quality": "hd", "size": "1792x1024"}, "url"),
}


@pytest.mark.parametrize("name", BODIES)
def test_what_clients_send_is_answered_as_they_expect(at: Running, name: str) -> None:
    sent, kind = BODIES[name]
    status, answered, _ = ask(at, sent)
    assert status == 200, answered
    [image] = answered["data"]
    assert answered["size"] == "16x16"  # what it is, not what was asked for
    if kind == "url":
        with urllib.request.urlopen(image["url"]) as response:
            assert response.read(4) == b"\x89PNG"
    else:
        picture(image["b64_json"])


def test_the_model_has_all_its_names(at: Running) -> None:
    with at.client() as client:
        assert [model.id for model in client.models.list()] == ["tiny", "dall-e-2", "dall-e-3", "gpt-image-1"]
        assert client.models.retrieve("dall-e-3").id == "dall-e-3"


def test_a_strict_server_refuses_what_has_no_effect(start: Callable[..., Running]) -> None:
    at = start(strict=True)
    for more, param in (({"style": "vivid"}, "style"), ({"quality": "hd"}, "quality"), ({"size": "512x512"}, "size")):
        status, answered, _ = ask(at, body() | more)
        assert (status, answered["error"]["param"]) == (400, param)


@pytest.mark.parametrize("kind", ["jpeg", "webp"])
def test_images_of_other_formats_have_their_record_too(at: Running, kind: str) -> None:
    asked = {"prompt": "größer", "output_format": kind, "nulltta": {"seed": 3}}
    sizes = []
    for quality in (100, 5):
        _, answered, _ = ask(at, asked | {"output_compression": quality, "response_format": "url"})
        assert answered["output_format"] == kind
        with urllib.request.urlopen(answered["data"][0]["url"]) as response:
            assert response.headers["content-type"] == f"image/{kind}"
            contents = response.read()
        sizes.append(len(contents))
        with Image.open(io.BytesIO(contents)) as found:
            assert found.format == kind.upper()
            exif = found.getexif()
            assert str(exif[0x010E]).encode("latin-1").decode() == "größer"
            made = json.loads(exif.get_ifd(0x8769)[0x9286].removeprefix(b"ASCII\0\0\0"))
            assert (made["seed"], made["model"]) == (3, "tiny")
    assert sizes[0] > sizes[1]


def encoded(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def test_an_edit_starts_from_the_uploaded_picture(at: Running) -> None:
    contents = encoded(Image.linear_gradient("L").resize((16, 16)).convert("RGB"))
    options = {"seed": 1, "strength": 0.9, "inner_steps": [1, 2], "reward": "colourfulness"}
    with at.client() as client:
        edited = client.images.edit(
            image=("cat.png", contents, "image/png"),
            prompt="a",
            model="gpt-image-1",
            n=1,
            size="1024x1024",
            quality="high",
            extra_body={"nulltta": options},
        )  # type: ignore[call-overload]
        uploaded = {"nulltta": {**options, "image": base64.b64encode(contents).decode()}}
        expected = client.images.generate(prompt="a", extra_body=uploaded)
    assert_same(picture(edited.data[0].b64_json), picture((expected.data or [])[0].b64_json))
    assert edited.nulltta["call"] == {"strength": 0.9}
    assert edited.nulltta["config"]["inner_steps"] == [1, 2]


def test_the_transparent_parts_of_an_edits_mask_are_white() -> None:
    mask = Image.new("RGBA", (16, 16), (0, 0, 0, 255))
    mask.paste((0, 0, 0, 0), (0, 0, 8, 16))
    white = Image.new("L", (16, 16), 0)
    white.paste(255, (0, 0, 8, 16))
    files = {"image": encoded(Image.new("RGB", (16, 16))), "mask": encoded(mask)}
    form = FormData([("prompt", "a"), *((name, UploadFile(io.BytesIO(file))) for name, file in files.items())])
    asked = asyncio.run(read_edit(form))
    assert asked.prompt == "a"
    assert_same(picture(asked.nulltta.mask), white)


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"image": b"no picture"}, "nulltta.image"),
        ({"image": [encoded(Image.new("RGB", (8, 8)))] * 2}, "image"),
        ({"image": encoded(Image.new("RGB", (8, 8))), "mask": encoded(Image.new("RGB", (8, 8)))}, "mask"),
        ({"image": encoded(Image.new("RGB", (8, 8))), "extra_body": {"magic": 1}}, "magic"),
        ({"image": encoded(Image.new("RGB", (8, 8))), "extra_body": {"nulltta": {"magic": 1}}}, "nulltta.magic"),
        ({"image": b" " * (17 << 20)}, None),
    ],
)
def test_a_mistaken_edit_is_refused_by_name(at: Running, given: dict[str, Any], param: str | None) -> None:
    with at.client() as client, pytest.raises(openai.APIStatusError) as refused:
        client.images.edit(prompt="a", **given)
    assert refused.value.status_code == (400 if param else 413)
    assert refused.value.param == param


def test_a_malformed_form_is_refused_by_name(at: Running) -> None:
    huge = bytearray(encoded(Image.new("RGBA", (8, 8))))
    huge[16:24] = struct.pack(">II", 60_000, 60_000)
    huge[29:33] = struct.pack(">I", zlib.crc32(huge[12:29]))
    for fields, param in (
        ({"mask": ("m.png", bytes(huge))}, "mask"),
        ({"nulltta[seed]": (None, b"5"), "nulltta[seed][]": (None, b"6")}, "nulltta.seed"),
        ({"nulltta": (None, b"[" * 200_000)}, "nulltta"),
    ):
        files = {"prompt": (None, b"a"), "image": ("i.png", encoded(Image.new("RGB", (8, 8)))), **fields}
        sent = httpx.post(f"{at.url}/v1/images/edits", files=files, headers={"authorization": f"Bearer {KEY}"})
        assert (sent.status_code, sent.json()["error"]["param"]) == (400, param)


def test_a_page_of_an_allowed_origin_may_use_the_server(at: Running) -> None:
    asked = {"access-control-request-method": "POST", "access-control-request-headers": "authorization,content-type"}
    for origin, status in (("https://app.example", 200), ("https://evil.example", 400)):
        found, _, headers = ask(
            at, None, "OPTIONS", "/v1/images/generations", {"Authorization": None, "origin": origin, **asked}
        )
        assert found == status
        assert headers.get("access-control-allow-origin") == (origin if status == 200 else None)
    assert get(at, "/v1/models", origin="https://app.example")[2]["access-control-allow-origin"]


def test_an_allowed_host_needs_no_key(start: Callable[..., Running]) -> None:
    at = start(allowed_hosts=("pictures.lan",))
    assert get(at, "/v1/models", authorization=None, host="pictures.lan:8000")[0] == 200
    assert get(at, "/v1/models", authorization=None, host="evil.example")[0] == 403
