"""Sizes and pictures that clients ask for: with the same checks as on the command line, and never a path."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import nulltta
from nulltta import InvalidValue
from nulltta.runs.call import CallSettings
from nulltta.server.encoding import encode, require_encodable
from nulltta.server.engine import ServerEngine
from nulltta.server.errors import APIError
from nulltta.server.limits import PictureSize, check_call
from nulltta.server.settings import ServerSettings

from ..tiny_families import save_wan
from .serving import SHORT, Running, assert_same, config, options, picture
from .wire import ask, body, get


def _uploaded(size: tuple[int, int] = (16, 16), mode: str = "RGB", kind: str = "PNG") -> tuple[str, bytes]:
    file = io.BytesIO()
    Image.new(mode, size, 1).save(file, kind)
    return base64.b64encode(file.getvalue()).decode(), file.getvalue()


def test_another_size_is_that_of_align(shared: Running, checkpoint: Any) -> None:
    with shared.client() as client:
        answer = client.images.generate(
            prompt="a cat", size="24x16", extra_body={"nulltta": {**SHORT, "reward": "brightness", "seed": 1}}
        )  # type: ignore[call-overload]
    assert answer.size == "24x16"
    model = nulltta.load_model(checkpoint, width=24, height=16)
    expected = nulltta.align(model, "a cat", "brightness", config=config(), seed=1).pil()[0]
    assert_same(picture(answer.data[0].b64_json), expected)
    assert (answer.model_extra or {})["nulltta"]["call"] == {"width": 24, "height": 16}


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_an_uploaded_picture_is_started_from(shared: Running, checkpoint: Any, prefix: str) -> None:
    text, contents = _uploaded()
    options = {**SHORT, "reward": "brightness", "seed": 1, "num_inference_steps": 2}
    options |= {"image": prefix + text, "strength": 1.0}
    with shared.client() as client:
        answer = client.images.generate(prompt="a cat", extra_body={"nulltta": options})
    model = nulltta.load_model(checkpoint, **CallSettings(image=contents, strength=1.0).arguments())
    short = config(num_inference_steps=2)
    expected = nulltta.align(model, "a cat", "brightness", config=short, seed=1).pil()[0]
    assert_same(picture(answer.data[0].b64_json), expected)
    assert (answer.model_extra or {})["nulltta"]["call"] == {"strength": 1.0}  # pictures are not sent back


def test_a_server_with_a_null_text_samples_under_it(
    start: Callable[..., Running], tiny: nulltta.GuidedModel, tmp_path: Path
) -> None:
    learnt = nulltta.align(tiny, "a dog", "brightness", config=config(learning_rate=0.5)).null_text[0]
    learnt.save(tmp_path / "n.safetensors", noise=True)
    at = start(start=str(tmp_path / "n.safetensors"), methods=("plain",))
    with at.client() as client:
        answer = client.images.generate(prompt="a cat", extra_body={"nulltta": options(method="plain", seed=1)})  # type: ignore[call-overload]
    expected, without = (
        nulltta.align(tiny, "a cat", "brightness", method="plain", config=config(), seed=1, start=each).pil()[0]
        for each in (learnt, None)
    )
    assert_same(picture(answer.data[0].b64_json), expected)
    assert expected.tobytes() != without.tobytes()
    with pytest.raises(InvalidValue, match="not best-of-n"):
        start(start=str(tmp_path / "n.safetensors"), methods=("plain", "best-of-n"))


def test_requests_of_unlike_sizes_share_a_server(start: Callable[..., Running]) -> None:
    at = start()
    sizes = ["16x16", "24x16", "16x24", "16x16"]
    with at.client() as client:
        found = [
            client.images.generate(prompt="a", size=size, extra_body={"nulltta": options(method="plain")}).size  # type: ignore[call-overload]
            for size in sizes
        ]
    assert found == sizes


MISTAKES: dict[str, tuple[dict[str, Any], str | None, str]] = {
    "no size": (body() | {"size": "big"}, "size", "WIDTHxHEIGHT"),
    "too large": (body() | {"size": "512x504"}, "size", "this model draws 16x16, and at most 512 pixels"),
    "nothing": (body() | {"size": "0x16"}, "size", "WIDTHxHEIGHT"),
    "odd": (body() | {"size": "17x16"}, None, "divisible by 8"),
    "frames of an image": (body(num_frames=2), "nulltta.num_frames", "is not an argument of"),
    "too many frames": (body(num_frames=10_000), "nulltta.num_frames", "at most 512 pixels"),
    "strength without a picture": (body(strength=0.5), "nulltta.strength", "is not an argument of"),
    "strength of 2": (body(strength=2), "nulltta.strength", "above 0 and up to 1"),
    "a path": (body(image="/etc/passwd"), "nulltta.image", ""),
    "a URL": (body(image="http://127.0.0.1/cat.png"), "nulltta.image", "must be a picture in base64"),
    "no picture": (body(image=base64.b64encode(b"hello").decode()), "nulltta.image", "must be a picture (PNG"),
    "half a picture": (body(image=_uploaded()[0][:40]), "nulltta.image", ""),
    "a GIF": (body(image=_uploaded(kind="GIF")[0]), "nulltta.image", "must be a picture (PNG"),
    "a bomb": (body(image=_uploaded((5000, 5000), "1")[0]), "nulltta.image", "is too large"),
    "a large picture": (body(image=_uploaded((32, 24))[0]), "nulltta.image", "32x24: this model draws 16x16"),
    "a mask alone": (body(mask=_uploaded()[0]), None, ""),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_drawn_is_refused_by_name(shared: Running, name: str) -> None:
    asked, param, said = MISTAKES[name]
    status, answer = ask(shared, asked)[:2]
    assert status == 400
    error = answer["error"]
    assert said in error["message"]
    assert param in (error["param"], None)
    assert "/etc" not in error["message"]


def test_a_picture_is_decoded_beside_the_event_loop(start: Callable[..., Running]) -> None:
    at = start(max_upload=64 << 20, max_body=64 << 20)
    large = _uploaded((4000, 4000))[0]
    asked = body(image=large, strength=0.9, method="plain") | {"size": "24x16"}
    with ThreadPoolExecutor(1) as pool:
        sent, slowest, first = pool.submit(ask, at, asked), 0.0, time.monotonic()
        while not sent.done():
            began = time.monotonic()
            assert get(at, "/healthz")[0] == 200
            slowest = max(slowest, time.monotonic() - began)
    assert sent.result()[1]["error"]["param"] == "size"  # which the pipeline for pictures does not take
    assert slowest < (time.monotonic() - first) / 2


def test_the_frames_of_a_video_count_as_its_pixels(tmp_path: Path) -> None:
    model = nulltta.load_model(save_wan(tmp_path / "wan"), device="cpu", height=16, width=16, num_frames=5)
    settings = ServerSettings(rewards=("brightness",), name="wan", defaults={"num_inference_steps": 2})
    engine = ServerEngine(model, settings)
    assert engine.size == (16, 16, 5)
    assert check_call(CallSettings(num_frames=9), settings, engine.size) is None
    for asked, param in (
        (CallSettings(num_frames=13), "nulltta.num_frames"),
        (CallSettings(width=32, height=32), "size"),
        (CallSettings(image=_uploaded((32, 16))[1], num_frames=9), "nulltta.num_frames"),
    ):
        with pytest.raises(APIError, match="this model draws 16x16") as refused:
            check_call(asked, settings, engine.size)
        assert refused.value.param == param


def test_what_a_format_cannot_hold_is_refused_before_sampling(start: Callable[..., Running]) -> None:
    at = start(max_prompt=60_000, max_body=1 << 20, max_pixels=1 << 20)
    long = "ä" * 40_000
    for more in {"prompt": long}, {"nulltta": {**SHORT, "reward": "brightness", "negative_prompt": long}}:
        status, refused, _ = ask(at, body() | more | {"output_format": "jpeg"})
        assert (status, refused["error"]["param"]) == (400, "output_format")
        assert "65533 bytes in a JPEG" in refused["error"]["message"]
    status, refused, _ = ask(at, body() | {"size": "16384x16", "output_format": "webp"})
    assert (status, refused["error"]["param"]) == (400, "output_format")
    for length in (65_450, 65_460):  # 65,530 and 65,540 bytes with the rest of the record
        fits = length == 65_450
        with nullcontext() if fits else pytest.raises(ValueError, match="EXIF"):
            encode(torch.rand(3, 16, 16), "jpeg", 90, "a" * length, {"a": 1})
        with nullcontext() if fits else pytest.raises(InvalidValue, match="JPEG"):
            require_encodable("jpeg", PictureSize(16, 16), "a" * length, {"a": 1})
