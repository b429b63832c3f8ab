"""A running server under hostile clients: what each of them is answered, and whether anybody else loses an image.

    nulltta serve --port 8123 --reward brightness --default num_inference_steps=2 --default "inner_steps=[1, 1]"
    python studies/hostile.py http://127.0.0.1:8123 --seconds 30

Every hostile client repeats its request until the time is up, while one ordinary client asks for images and another one
for /healthz. The server needs no key.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from urllib.parse import urlsplit

PATIENCE = 60.0
"""Seconds after which a hostile client gives up waiting for an answer."""


def posted(body: bytes, length: int | None = None, path: str = "/v1/images/generations") -> bytes:
    """Return a request with a body, whose length may be a lie."""
    size = len(body) if length is None else length
    head = (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
    )
    return head.encode() + body


async def endless_header() -> AsyncIterator[bytes]:
    """Send one header without an end."""
    yield b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Endless: "
    while True:
        yield b"a" * 65536


async def slow_headers() -> AsyncIterator[bytes]:
    """Send a header byte by byte."""
    yield b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    while True:
        await asyncio.sleep(0.2)
        yield b"a"


async def endless_body() -> AsyncIterator[bytes]:
    """Send a chunked body without an end."""
    yield b"POST /v1/images/generations HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    yield b"Transfer-Encoding: chunked\r\n\r\n"
    while True:
        yield b"10000\r\n" + b" " * 65536 + b"\r\n"


async def at_once(data: bytes) -> AsyncIterator[bytes]:
    """Send everything at once."""
    yield data


ATTACKS: Mapping[str, bytes] = {
    "10,000 headers": b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n"
    + b"".join(b"X-%d: a\r\n" % i for i in range(10_000))
    + b"\r\n",
    "a URL of 20 MB": b"GET /" + b"a" * 20_000_000 + b" HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "a trailer of 20 MB": b"POST /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\nX-Trailer: " + b"a" * 20_000_000,
    "no JSON": posted(b'{"prompt": '),
    "JSON nested 30,000 times": posted(b"[" * 30_000),
    "n = 10^30": posted(json.dumps({"prompt": "a", "n": 10**30}).encode()),
    "num_particles = 10^30": posted(json.dumps({"prompt": "a", "nulltta": {"num_particles": 10**30}}).encode()),
    "NaN as a weight": posted(b'{"prompt": "a", "nulltta": {"kl_weight": NaN}}'),
    "NaN in a sum": posted(b'{"prompt": "a", "nulltta": {"reward": "NaN*brightness"}}'),
    "a body that does not come": posted(b'{"prompt"', length=1000),
    "a form without an end": posted(b"--x\r\nContent-Disposition: form-data", path="/v1/images/edits"),
    "HTTP/9": b"GET / HTTP/9.9\r\n\r\n",
    "no HTTP": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 100,
}
SLOW = {"an endless header": endless_header, "slow headers": slow_headers, "an endless body": endless_body}
STREAM = posted(json.dumps({"prompt": "a rose", "stream": True, "partial_images": 1}).encode())


async def attack(host: str, port: int, pieces: AsyncIterator[bytes], until: float) -> str:
    """Send pieces until the server answers or closes the connection, and return the first line of its answer."""
    reader, writer = await asyncio.open_connection(host, port)

    async def send() -> None:
        async for piece in pieces:
            writer.write(piece)
            await writer.drain()

    sending = asyncio.ensure_future(send())
    try:
        wait = min(PATIENCE, max(until - time.monotonic(), 0.1))
        line = await asyncio.wait_for(reader.readline(), wait)
        return line.decode("latin-1").strip() or "closed"
    except TimeoutError:
        return "no answer until the end"
    except OSError:
        return "closed"
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
        writer.close()


async def ordinary(host: str, port: int, data: bytes) -> tuple[int, float]:
    """Send a request and return the status of its answer, read to the end, and the seconds that it took."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(host, port)
    writer.write(data.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1))
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1]), time.monotonic() - began


async def measure(host: str, port: int, seconds: float) -> None:
    """Run all clients side by side and print what they were answered."""
    until = time.monotonic() + seconds
    found: dict[str, Counter[str]] = {}

    async def repeat(name: str) -> None:
        while time.monotonic() < until:
            pieces = SLOW[name]() if name in SLOW else at_once(ATTACKS.get(name, STREAM))
            found.setdefault(name, Counter())[await attack(host, port, pieces, until)] += 1
            await asyncio.sleep(0.05)

    statuses: dict[str, list[tuple[int, float]]] = {"images": [], "/healthz": []}

    async def friend(name: str, data: bytes) -> None:
        while time.monotonic() < until:
            statuses[name].append(await ordinary(host, port, data))
            await asyncio.sleep(0.05)

    image = posted(json.dumps({"prompt": "a rose"}).encode())
    health = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    names = [*ATTACKS, *SLOW, "a stream that is left"]
    await asyncio.gather(*map(repeat, names), friend("images", image), friend("/healthz", health))
    print("| client | answers |\n|---|---|")
    for name in names:
        print(f"| {name} | {', '.join(f'{count} × {line}' for line, count in found[name].most_common())} |")
    for name, seen in statuses.items():
        lost = sum(status != 200 for status, _ in seen)
        times = sorted(taken for _, taken in seen)
        middle, longest = statistics.median(times), times[-1]
        print(f"{name}: {len(seen)} asked for, {lost} lost; median {middle:.3f} s, longest {longest:.2f} s")


def main() -> None:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("--seconds", type=float, default=30)
    given = parser.parse_args()
    address = urlsplit(given.url)
    asyncio.run(measure(str(address.hostname), int(address.port or 80), given.seconds))


if __name__ == "__main__":
    main()
