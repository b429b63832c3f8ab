"""How does `nulltta serve` behave under load? Throughput, latency, lost requests, and whether its memory stays flat.

    python studies/load.py [--model tiny|embedded|DIRECTORY --clients 1,4,16 --requests 48 --soak 200]

The script starts the server on a free port of 127.0.0.1 and sends requests with OpenAI's client. It prints a Markdown
table and writes studies/results/load.json. "tiny" is the tests' checkpoint with random weights, so that the server
itself is measured.
"""

from __future__ import annotations

import base64
import json
import os
import runpy
import secrets
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import typer
from openai import OpenAI
from PIL import Image

RESULTS = Path(__file__).parent / "results" / "load.json"
TINY = Path(__file__).parent.parent / "tests" / "tiny.py"
SETTINGS = {"reward": "brightness", "num_inference_steps": 4, "inner_steps": [1, 1], "num_particles": 2}


@dataclass(frozen=True)
class Level:
    """What a number of clients saw, each sending its next request as soon as it has its answer.

    Attributes:
        lost: requests without an answer, with another status than 200, or with the image of another prompt.
        median, p95: latencies in seconds.
    """

    clients: int
    requests: int
    lost: int
    images_per_second: float
    median: float
    p95: float
    images_per_batch: float


@dataclass(frozen=True)
class Server:
    """A running server.

    Attributes:
        address: its URL without /v1.
        key: its API key.
    """

    address: str
    key: str

    def metric(self, name: str) -> float:
        """Read one number from /metrics."""
        asked = urllib.request.Request(f"{self.address}/metrics", headers={"Authorization": f"Bearer {self.key}"})
        with urllib.request.urlopen(asked) as response:
            lines = dict(line.rsplit(" ", 1) for line in response.read().decode().splitlines() if line[0] != "#")
        return float(lines[name])


def load(
    model: str = "tiny", clients: str = "1,4,16", requests: int = 48, soak: int = 200, out: Path = RESULTS
) -> None:
    """Measure each number of clients, then memory over `soak` requests of four clients."""
    with served(model) as server:
        serve_level(server, clients=2, requests=8)  # warm
        levels = [serve_level(server, int(each), requests) for each in clients.split(",")]
        memory = resident_over(server, soak)
    about = {
        "date": f"{datetime.now(UTC):%Y-%m-%d}", "command": f"python studies/load.py {' '.join(sys.argv[1:])}".strip(),
        "model": model, "settings": SETTINGS, "cores": os.cpu_count(), "busy": os.getloadavg()[0],
    }  # fmt: skip
    print(markdown(levels, memory, about))
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps({**about, "levels": list(map(asdict, levels)), "resident_mb": memory}, indent=1) + "\n")
    if any(level.lost for level in levels):
        raise typer.Exit(1)


@contextmanager
def served(model: str) -> Iterator[Server]:
    """Run `nulltta serve` as a process inside the block, and stop it by SIGTERM."""
    key = secrets.token_hex(16)
    with tempfile.TemporaryDirectory() as folder:
        if model == "tiny":
            model = str(runpy.run_path(str(TINY))["save_stable_diffusion"](Path(folder) / "sd"))
        command = [sys.executable, "-m", "nulltta", "serve", "--model", model, "--reward", "brightness"]
        process = subprocess.Popen(
            [*command, "--port", "0"], env={**os.environ, "NULLTTA_API_KEY": key}, text=True,
            stderr=(log := (Path(folder) / "log").open("w+")),
        )  # fmt: skip
        with process, log:
            try:
                yield Server(_address(process, Path(folder) / "log"), key)
            finally:
                process.terminate()


def serve_level(server: Server, clients: int, requests: int) -> Level:
    """Send `requests` requests from `clients` clients at a time."""
    batches, images = (server.metric(f"nulltta_batch_images_{what}") for what in ("count", "sum"))
    numbers = count()
    began = time.perf_counter()
    with OpenAI(base_url=f"{server.address}/v1", api_key=server.key, max_retries=0, timeout=600) as client:

        def one_after_another(share: int) -> list[float | None]:
            return [_timed(client, f"picture {next(numbers)}") for _ in range(share)]

        shares = [requests // clients + (i < requests % clients) for i in range(clients)]
        with ThreadPoolExecutor(clients) as pool:
            seconds = [taken for found in pool.map(one_after_another, shares) for taken in found]
    elapsed = time.perf_counter() - began
    batches = server.metric("nulltta_batch_images_count") - batches
    images = server.metric("nulltta_batch_images_sum") - images
    answered = [taken for taken in seconds if taken is not None]
    return Level(
        clients, requests, requests - len(answered), len(answered) / elapsed, float(np.median(answered)),
        float(np.percentile(answered, 95)), images / batches,
    )  # fmt: skip


def resident_over(server: Server, requests: int, every: int = 20) -> list[float]:
    """Return the server's resident memory in megabytes, before and after each `every` requests of four clients."""
    memory = [_resident(server)]
    for done in range(0, requests, every):
        serve_level(server, clients=4, requests=min(every, requests - done))
        memory.append(_resident(server))
    return memory


def markdown(levels: Sequence[Level], memory: Sequence[float], about: dict[str, Any]) -> str:
    """Format one row per number of clients, and a line on memory."""
    lines = [
        "| clients | requests | lost | images/s | median latency | 95th percentile | images per batch |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {e.clients} | {e.requests} | {e.lost} | {e.images_per_second:.2f} | {e.median:.2f} s | {e.p95:.2f} s "
            f"| {e.images_per_batch:.1f} |"
            for e in levels
        ),
    ]
    middle = memory[len(memory) // 2]
    settings = ", ".join(f"{name} {value}" for name, value in about["settings"].items())
    return "\n".join([
        *lines, "",
        f"`{about['command']}`, {about['date']}, model {about['model']}, {settings}; {about['cores']} cores, load "
        f"average at the end {about['busy']:.1f}.",
        f"Resident memory over the last requests, four clients: {memory[0]:.0f} MB before, {middle:.0f} MB at half, "
        f"{memory[-1]:.0f} MB after.",
    ])  # fmt: skip


def _timed(client: OpenAI, prompt: str) -> float | None:
    """Return the seconds that a picture took; None if it did not arrive, or if its metadata name another prompt."""
    began = time.perf_counter()
    try:
        answered = client.images.generate(prompt=prompt, extra_body={"nulltta": SETTINGS})
        encoded = str((answered.data or [])[0].b64_json)
        seconds = time.perf_counter() - began
        shown = Image.open(BytesIO(base64.b64decode(encoded))).info["prompt"]
    except Exception as error:  # any failure counts as one lost request
        print(f"{prompt}: {error!r}", file=sys.stderr)
        return None
    return seconds if shown == prompt else None


def _address(process: subprocess.Popen[str], log: Path) -> str:
    """Wait until the server's log contains its address, and return it."""
    while process.poll() is None:
        lines = log.read_text().splitlines(keepends=True)
        if lines and lines[0].endswith("\n"):
            return str(json.loads(lines[0])["address"])
        time.sleep(0.1)
    raise SystemExit(log.read_text())


def _resident(server: Server) -> float:
    """Return the server's resident memory in megabytes."""
    return server.metric("process_resident_memory_bytes") / 1e6


if __name__ == "__main__":
    typer.run(load)
