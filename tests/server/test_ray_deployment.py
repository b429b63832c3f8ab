"""The Ray engine of the server, on a cluster of this machine's CPUs."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from openai import OpenAI
from PIL import Image

import nulltta
from nulltta.cli import main
from nulltta.runs.network import bind

from ..command_line import refused
from .serving import KEY, SHORT, assert_same, config

OURS = {"nulltta": {**SHORT, "reward": "brightness"}}
ENVIRONMENT = {
    **os.environ, "NULLTTA_API_KEY": KEY, "OMP_NUM_THREADS": "1", "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": KEY, "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "120",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--replicas", "1", "2"], "--ray-address and --replicas need --engine ray"),
        (["--ray-address", "auto"], "--ray-address and --replicas need --engine ray"),
        (["--engine", "ray", "--replicas", "2", "1"], "replicas must be MIN MAX with 1 <= MIN <= MAX, not 2 1"),
        (["--engine", "ray", "--replicas", "0", "1"], "replicas must be MIN MAX with 1 <= MIN <= MAX, not 0 1"),
    ],
)
def test_a_mistake_is_refused_in_one_line(words: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert refused(["serve", *words], capsys).endswith(says)


def test_without_ray_the_error_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert main(["serve", "--engine", "ray"]) == 2
    assert capsys.readouterr().err == "error: --engine ray needs Ray: pip install 'nulltta[ray]'\n"


CLUSTER = """
import ray
ray.init("local", num_cpus=2, object_store_memory=80 << 20, include_dashboard=False, log_to_driver=False)
print(ray.get_runtime_context().gcs_address, flush=True)
input()
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Return the address of a cluster of two CPUs, which is stopped after the tests."""
    pytest.importorskip("ray.serve", reason="heavy: pip install 'nulltta[ray]'")
    pipe = subprocess.PIPE
    with subprocess.Popen([sys.executable, "-c", CLUSTER], env=ENVIRONMENT, stdin=pipe, stdout=pipe, text=True) as head:
        assert head.stdout is not None
        yield next(line.strip() for line in head.stdout if re.fullmatch(r"[\d.]+:\d+\n", line))
        head.communicate("\n")


SERVE_TWICE = """
import json, sys
from nulltta.cli import main
refused, served = map(json.loads, sys.argv[1:])
assert main(refused) == 2
sys.exit(main(served))
"""


def test_a_reward_that_does_not_load_is_refused_and_two_replicas_give_the_images_of_align(
    cluster: str, checkpoint: Path, tiny: nulltta.GuidedModel
) -> None:
    """They also enforce keys and limits, serve each other's pictures and jobs, and finish their requests."""
    prompts = [f"picture {i}" for i in range(6)]
    expected = nulltta.align(tiny, prompts, "brightness", config=config(), seed=SHORT["seed"]).pil()
    words = ["serve", "--model", str(checkpoint), "--name", "tiny", "--port", "0", "--engine", "ray"]
    words += ["--ray-address", cluster]
    refused = [*words, "--reward", "beauty", "--replicas", "1", "1"]
    served = [*words, "--reward", "brightness", "--replicas", "2", "2"]
    command = [sys.executable, "-c", SERVE_TWICE, json.dumps(refused), json.dumps(served)]
    with subprocess.Popen(command, env=ENVIRONMENT, text=True, stderr=subprocess.PIPE) as process:
        others: list[str] = []
        told = events(process, others)
        address = next(event["address"] for event in told if event["event"] == "listening")
        [mistake] = [line for line in others if line.startswith("error: ")]
        assert mistake.startswith("error: unknown reward 'beauty'")
        with OpenAI(base_url=f"{address}/v1", api_key=KEY, max_retries=0, timeout=120) as client:
            with ThreadPoolExecutor(len(prompts)) as pool:
                answers = list(pool.map(lambda prompt: linked(client, prompt), prompts))
            for answer, image in zip(answers, expected, strict=True):
                for _ in range(4):  # whichever replica answers
                    with urllib.request.urlopen(answer) as response:
                        assert_same(Image.open(response), image)
            with pytest.raises(openai.BadRequestError, match="at most 10"):
                client.images.generate(prompt="a", n=1000)
            with pytest.raises(openai.APIStatusError, match="larger than 65536 bytes"):
                client.images.generate(prompt="a" * 100_000)
            with pytest.raises(openai.AuthenticationError, match="incorrect API key"):
                client.with_options(api_key=KEY[:-1] + "X").models.list()
            assert polled(address) == "completed"
            kinds = []
            for event in client.images.generate(prompt="a", stream=True, partial_images=1, extra_body=OURS):
                kinds.append(event.type.removeprefix("image_generation."))
                if kinds == ["partial_image"]:
                    process.send_signal(signal.SIGTERM)
        assert kinds == ["partial_image", "completed"]
        assert process.wait(300) == 0
        assert [event["event"] for event in told] == ["stopping", "stopped"]


def events(process: subprocess.Popen[str], others: list[str]) -> Iterator[dict[str, Any]]:
    """Yield the events that a process logs; its other lines are appended to `others`."""
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("{"):
            yield json.loads(line)
        else:
            others.append(line)


def linked(client: OpenAI, prompt: str) -> str:
    answer = client.images.generate(prompt=prompt, response_format="url", extra_body=OURS)
    return str((answer.data or [])[0].url)


def polled(address: str) -> str:
    """Submit a job and poll it, whichever replica answers; return its last status."""
    headers, jobs = {"authorization": f"Bearer {KEY}"}, f"{address}/v1/images/jobs"
    state = httpx.post(jobs, json={"prompt": "a", **OURS}, headers=headers).json()
    deadline = time.monotonic() + 60
    while state["status"] in ("queued", "running") and time.monotonic() < deadline:
        state = httpx.get(f"{jobs}/{state['id']}", headers=headers).json()
    return str(state["status"])


MORTAL = """
import os, sys
from pathlib import Path
import httpx, ray
from fastapi import FastAPI, Request, Response
from ray import serve
from nulltta.server.ray_proxy import retrying

address, mark = sys.argv[1], Path(sys.argv[2])
app = FastAPI()

@app.post("/")
async def answer(request: Request) -> Response:
    body = await request.body()
    if not mark.exists():
        mark.write_text("here")
        os._exit(1)
    return Response(body, headers={"x-content-type-options": "nosniff"})

ray.init(address, log_to_driver=False)
environment = {"env_vars": retrying(limit=1000)}
options = {"host": "127.0.0.1", "port": int(sys.argv[3])}
serve.start("HeadOnly", options, controller_options={"runtime_env": environment})
mortal = serve.ingress(app)(type("Mortal", (), {}))
replicas = serve.deployment(mortal, num_replicas=2, ray_actor_options={"num_cpus": 1})
serve.run(replicas.bind(), name="mortal", route_prefix="/")
answers = [httpx.post(f"http://127.0.0.1:{sys.argv[3]}", content=b"hello", timeout=60)]
mark.unlink()
answers.append(httpx.post(f"http://127.0.0.1:{sys.argv[3]}", content=b"a" * 1001, timeout=60))
serve.shutdown()
print("answers", [(each.status_code, each.text[:8]) for each in answers])
"""


def test_the_request_of_a_replica_that_dies_is_sent_to_another(cluster: str, tmp_path: Path) -> None:
    """Ray Serve itself answers 500; so it does here for a body that is too large to be kept."""
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-c", MORTAL, cluster, str(tmp_path / "mark"), str(port)]
    said = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, timeout=300)
    [answers] = [line for line in said.stdout.splitlines() if line.startswith("answers")]  # Ray prints lines too
    assert answers == "answers [(200, 'hello'), (500, 'Internal')]"
