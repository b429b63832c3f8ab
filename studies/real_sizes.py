"""What do two denoising steps of a model of real size take through the command line? Seconds and peak memory.

    python studies/real_sizes.py --model sd15 --dtype float32

A checkpoint of the published size with random weights is written into a folder and aligned by `nulltta align` in a
process of its own, at the model's own resolution: one prompt, one candidate and one inner step per denoising step,
brightness as the reward. Weights do not change what a step costs. The seconds include loading, the proof and plain
sampling. The script prints one row of a Markdown table.
"""

from __future__ import annotations

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

SHORT = ("--reward", "brightness", "--num-inference-steps", "2", "--inner-steps", "1", "1", "--num-particles", "1")


def main(
    model: Annotated[str, typer.Option(help="sd15 or sdxl, with random weights.")] = "sd15",
    dtype: str = "bfloat16",
    device: str = "cpu",
    threads: int = 1,
    inner_decoder: str = "full",
    folder: Annotated[Path | None, typer.Option(help="Where to keep the checkpoint; by default it is deleted.")] = None,
) -> None:
    """Write a checkpoint of that size and align one prompt with it."""
    with tempfile.TemporaryDirectory() as temporary:
        checkpoint = (folder or Path(temporary)) / model
        if not checkpoint.exists():
            measured_pipeline(model, dtype=getattr(torch, dtype)).save_pretrained(checkpoint)
        words = ["align", *SHORT, "--model", str(checkpoint), "--dtype", dtype, "--device", device,
                 "--inner-decoder", inner_decoder, "--out", str(Path(temporary) / "out"), "a cat"]  # fmt: skip
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "nulltta.cli", *words],
            check=True,
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
        )
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print("| model | dtype | device | threads | seconds | peak memory, GiB |", "|---" * 6 + "|", sep="\n")
    print(f"| {model} | {dtype} | {device} | {threads} | {seconds:.0f} | {peak / 2**30:.1f} |")


if __name__ == "__main__":
    typer.run(main)
