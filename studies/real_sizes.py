"""What do two denoising steps of a model of real size take through the command line? Seconds and peak memory.

    python studies/real_sizes.py --model sd15 --dtype float32

A checkpoint of the published size with random weights is written into a folder and aligned by `nulltta align` in a
process of its own, at the model's own resolution: one prompt, one candidate and one inner step per denoising step,
brightness as the reward. Weights do not change what a step costs. The seconds include loading, the proof and plain
sampling. The script prints one row of a Markdown table.

    python studies/real_sizes.py --count --dtype bfloat16

counts the run's FLOPs instead, by the prices that studies/flops.py found, and says how long one core of this machine
would compute at the rate at which it convolves in that type.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import torch
import typer

from nulltta.benchmark.costs.stand_ins import measured_pipeline

PRICES = Path(__file__).parent / "results" / "flops.json"
SHORT = ("--reward", "brightness", "--num-inference-steps", "2", "--inner-steps", "1", "1", "--num-particles", "1")


def main(
    model: Annotated[str, typer.Option(help="sd15 or sdxl, with random weights.")] = "sd15",
    dtype: str = "bfloat16",
    device: str = "cpu",
    threads: int = 1,
    inner_decoder: str = "full",
    folder: Annotated[Path | None, typer.Option(help="Where to keep the checkpoint; by default it is deleted.")] = None,
    count: Annotated[bool, typer.Option("--count", help="Only count the FLOPs of both models, and time them.")] = False,
) -> None:
    """Write a checkpoint of that size and align one prompt with it."""
    if count:
        forecast(dtype)
        return
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = (folder or Path(temporary)) / model
        if not checkpoint.exists():
            measured_pipeline(model, dtype=getattr(torch, dtype)).save_pretrained(checkpoint)
        words = ["align", *SHORT, "--model", str(checkpoint), "--dtype", dtype, "--device", device,
                 "--inner-decoder", inner_decoder, "--out", str(Path(temporary) / "out"), "a cat"]  # fmt: skip
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nulltta", *words],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print("| model | dtype | device | threads | seconds | peak memory, GiB |", "|---" * 6 + "|", sep="\n")
    print(f"| {model} | {dtype} | {device} | {threads} | {seconds:.0f} | {peak / 2**30:.1f} |")


def forecast(dtype: str) -> None:
    """Print the FLOPs of the run of each model, and the hours of one core."""
    torch.set_num_threads(1)
    rate = convolution_rate(getattr(torch, dtype))
    print(f"Convolutions in {dtype}: {rate / 1e9:.2f} GFLOP/s on one core.\n")
    print("| model | TFLOP | hours |", "|---" * 3 + "|", sep="\n")
    for name, found in json.loads(PRICES.read_text())["models"].items():
        total = flops_of_run(found["prices"])
        print(f"| {name} | {total / 1e12:.0f} | {total / rate / 3600:.1f} |")


def flops_of_run(prices: dict[str, list[int]]) -> int:
    """Return the FLOPs of the run: the proof, plain sampling, and two steps of one inner step and one candidate each.

    The proof takes 4 rows of the denoiser and 2 of the decoder, plain sampling 4 and 1, and the candidates with both
    branches at φ and φ' 8 and 3. An inner step is one row of each, forward and backward.
    """
    (denoiser, denoiser_both), (decoder, decoder_both) = prices["denoiser"], prices["decoder"]
    return (4 + 4 + 8) * denoiser + (2 + 1 + 3) * decoder + 2 * (denoiser_both + decoder_both)


def convolution_rate(dtype: torch.dtype) -> float:
    """Return the FLOP per second of the processor's time of a 3×3 convolution like those of a UNet."""
    channels, size = 128, 32
    layer = torch.nn.Conv2d(channels, channels, 3, padding=1).to(dtype).requires_grad_(False)
    x = torch.randn((2, channels, size, size), generator=torch.Generator().manual_seed(0)).to(dtype)
    layer(x)
    began, calls = time.process_time(), 0
    while time.process_time() - began < 1:
        layer(x)
        calls += 1
    return calls * 2 * x.numel() * channels * 9 / (time.process_time() - began)


if __name__ == "__main__":
    typer.run(main)
