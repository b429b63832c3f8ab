"""The server's rewards, metrics, schema and logs, and the command `nulltta serve`."""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from openai import InternalServerError, OpenAI

import nulltta
from nulltta.cli import main
from nulltta.config import NullTTAConfig
from nulltta.errors import NullTTAError
from nulltta.server import logs
from nulltta.server.engine import ServerEngine
from nulltta.server.rewards import without_a_download
from nulltta.server.settings import ServerSettings

from ..command_line import refused
from . import gates
from .serving import KEY, SHORT, Running
from .wire import ask, body, get


def test_the_offered_rewards_are_listed(shared: Running) -> None:
    status, answered, _ = get(shared, "/v1/rewards")
    known = {row["id"]: row for row in answered["data"]}
    assert status == 200
    assert list(known) == ["brightness", "colourfulness", "target-colour", *gates.NAMES]
    assert known["brightness"]["differentiable"]
    assert "mean pixel" in known["brightness"]["summary"]


def test_without_a_choice_all_rewards_that_need_no_download_are_offered(tiny: nulltta.GuidedModel) -> None:
    names = set(ServerEngine(tiny, ServerSettings()).rewards.names)
    assert {"jpeg", "target-colour"} < names
    assert not names & {"pickscore", "clip", "scenes-clip"}  # a download, and scorers of other models' pictures
    [first, *others] = without_a_download("scenes")
    assert first == "scenes-clip"
    assert "jpeg" in others
    assert "clip" not in others


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"rewards": ("beauty",)}, "unknown reward 'beauty'"),
        ({"rewards": ("0.5*brightness",)}, "is a sum"),
        ({"methods": ("magic",)}, "method 'magic' is unknown"),
    ],
)
def test_an_engine_refuses_unknown_rewards_and_methods(
    tiny: nulltta.GuidedModel, settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(NullTTAError, match=says):
        ServerEngine(tiny, ServerSettings(**settings))


def test_metrics_count_requests_images_and_steps(start: Callable[..., Running]) -> None:
    at = start()
    ask(at, body() | {"n": 3})
    ask(at, b"{")
    status, answered, headers = get(at, "/metrics")
    lines = answered.decode().splitlines()
    assert status == 200
    assert headers["content-type"].startswith("text/plain")
    assert 'nulltta_requests_total{route="/v1/images/generations",status="200"} 1.0' in lines
    assert 'nulltta_requests_total{route="/v1/images/generations",status="400"} 1.0' in lines
    assert 'nulltta_images_total{method="null-tta"} 3.0' in lines
    assert f"nulltta_denoising_steps_total {SHORT['num_inference_steps']:.1f}" in lines
    assert any(line.startswith("process_resident_memory_bytes") for line in lines)


def test_the_schema_has_every_setting(shared: Running) -> None:
    status, answered, _ = get(shared, "/openapi.json")
    assert status == 200
    assert set(NullTTAConfig.__dataclass_fields__) < set(answered["components"]["schemas"]["Options"]["properties"])


def test_the_schema_has_the_errors_the_key_and_the_upload(shared: Running) -> None:
    answered = get(shared, "/openapi.json")[1]
    for path, operations in answered["paths"].items():
        for operation in operations.values():
            assert "422" not in operation["responses"]
            assert operation["responses"]["default"]["content"]["application/json"]["schema"]["$ref"].endswith("/Error")
            assert ("security" in operation) == path.startswith(("/v1", "/metrics"))
    upload = answered["paths"]["/v1/images/edits"]["post"]["requestBody"]["content"]["multipart/form-data"]["schema"]
    assert upload["properties"]["image"]["format"] == "binary"


def test_an_errors_message_is_logged_only_on_request(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "nulltta.server"):
        for quote in (False, True):
            try:
                raise LookupError("a secret prompt")
            except LookupError as error:
                logs.failure("failed", error, quote=quote, request_id="req_1")
    hidden, quoted = [json.loads(logs.JSONFormatter().format(record)) for record in caplog.records]
    assert quoted["message"] == "a secret prompt"
    assert "secret" not in json.dumps(hidden)
    assert (hidden["error"], hidden["level"], hidden["request_id"]) == ("LookupError", "error", "req_1")
    assert re.search(r"test_reporting\.py:\d+ ", hidden["at"][-1])


MISTAKES = {
    "public without a key": (["--host", "0.0.0.0"], "without an API key"),
    "no key file": (["--api-key-file", "{tmp}/none"], "cannot read API keys"),
    "bad key": (["--api-key-file", "{tmp}/short"], "16 or more"),
    "unknown model": (["--model", "nonesuch"], "unknown model 'nonesuch'"),
    "unknown reward": (["--reward", "beauty"], "unknown reward 'beauty'"),
    "unknown method": (["--method", "magic"], "--method 'magic' is unknown"),
    "no reward": (["--model", "some/model"], "--reward must name what is raised on this model"),
    "a toy reward": (["--reward", "clip"], "--reward 'clip' knows what the model 'embedded' draws"),
    "limits below the defaults": (
        ["--max-steps", "50"],
        "--max-steps must be at least the default num_inference_steps",
    ),
    "a default above the limits": (["--default", "inner_steps=[5, 99]"], "--max-inner-steps must be at least"),
    "an unknown default": (["--default", "num_steps=3"], "'num_steps'"),
    "a bad default": (["--default", "guidance_scale=0.5"], "guidance_scale must be above 1"),
    "a default of another type": (["--default", "num_inference_steps=many"], "--default num_inference_steps: "),
    "a default of no use": (["--method", "plain", "--default", "num_particles=2"], "--default num_particles has no"),
    "a default that stops the inner steps": (["--default", "learning_rate=0"], "--default learning_rate must be above"),
    "no value": (["--default", "eta"], "--default must be FIELD=VALUE"),
    "no config": (["--config", "{tmp}/none"], "cannot read '{tmp}/none'"),
    "a typo in the config": (["--config", "{tmp}/typo.toml"], "unknown setting 'max_step': did you mean 'max_steps'?"),
    "a word for a number in the config": (["--config", "{tmp}/word.toml"], "'many'"),
    "no web address": (["--public-url", "javascript:alert(1)"], "--public-url must begin with http:// or https://"),
    "no images": (["--max-images", "0"], "--max-images must be"),
    "a batch too small": (["--batch-size", "2"], "--batch-size must be at least"),
    "a taken port": (["--port", "{taken}"], "Address already in use"),
    "no such address": (["--host", "203.0.113.1", "--api-key-file", "{tmp}/good"], "cannot listen on 203.0.113.1"),
}


@pytest.mark.parametrize(("words", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_mistake_of_the_operator_is_refused_in_one_line(
    words: list[str], says: str, checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "short").write_text("abc\n")
    (tmp_path / "good").write_text(f"{KEY}\n")
    (tmp_path / "typo.toml").write_text("max_step = 3\n")
    (tmp_path / "word.toml").write_text('max_images = "many"\n')
    says = says.format(tmp=tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        given = [word.format(tmp=tmp_path, taken=port) for word in words]
        usual = ["--model", str(checkpoint), "--port", "0", "--max-steps", "100"]
        usual += [] if "is raised on this model" in says else ["--reward", "brightness"]
        assert says in refused(["serve", *usual, *given], capsys)


def test_a_missing_extra_says_the_install_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nulltta.cli.serve.find_spec", lambda name: None if name == "uvicorn" else object())
    assert main(["serve"]) == 2
    assert capsys.readouterr().err == "error: nulltta serve needs uvicorn: pip install 'nulltta[server]'\n"


def test_a_null_text_is_found_from_any_replicas_current_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("null.safetensors").touch()
    served: list[ServerSettings] = []
    monkeypatch.setattr("nulltta.server.run.serve", lambda settings, _: served.append(settings))
    assert main(["serve", "--start", "null.safetensors"]) == 0
    assert served[0].start == str(tmp_path / "null.safetensors")


def test_nulltta_serve(checkpoint: Path) -> None:
    """The server is started, used, and stopped by SIGTERM during a request, whose client still gets its image."""
    command = [sys.executable, "-m", "nulltta", "serve", "--model", str(checkpoint), "--name", "mine"]
    command += ["--port", "0", "--grace", "600", "--reward", "brightness", "--reward", gates.PICKY]
    environment = {**os.environ, "NULLTTA_API_KEY": KEY, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        command,
        env=environment,
        cwd=Path(__file__).parents[2],
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        lines = [json.loads(process.stderr.readline())]
        assert lines[0]["event"] == "listening"
        with OpenAI(base_url=f"{lines[0]['address']}/v1", api_key=KEY, timeout=120) as client:
            options = {"nulltta": {**SHORT, "reward": "brightness"}}
            client.images.generate(model="mine", prompt="a secret " + "x" * 100, extra_body=options)
            with pytest.raises(InternalServerError, match="the reward failed"):
                client.images.generate(prompt="a secret boom", extra_body={"nulltta": {**SHORT, "reward": gates.PICKY}})
            stream = client.images.generate(
                prompt="a secret stream", stream=True, partial_images=1,
                extra_body={"nulltta": {**options["nulltta"], "num_inference_steps": 20}},
            )  # fmt: skip
            kinds = []
            for event in stream:
                kinds.append(event.type)
                if event.type.endswith("partial_image"):
                    process.send_signal(signal.SIGTERM)
        out, rest = process.communicate(timeout=60)
        lines += [json.loads(line) for line in rest.splitlines()]
    assert kinds == ["image_generation.partial_image", "image_generation.completed"]
    assert process.returncode == 0
    assert out == ""
    events = [line["event"] for line in lines]
    assert events[-1] == "stopped"
    assert {"warning", "sampled", "failed", "request", "stopping"} < set(events)
    assert "secret" not in json.dumps(lines)
    assert "xxx" not in json.dumps(lines)  # a warning names the words that did not fit
    served = [line for line in lines if line["event"] == "request"]
    assert [line["status"] for line in served] == [200, 500, 200]
    assert all(re.fullmatch("req_[0-9a-f]{24}", line["request_id"]) for line in served)
    [failed] = [line for line in lines if line["event"] == "failed"]
    assert failed["requests"] == [served[1]["request_id"]]
