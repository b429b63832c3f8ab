"""Train the embedded model stage by stage; a stopped run resumes from its last checkpoint.

    python -m nulltta.embedded.train --size cpu --out build/emoji
    python -m nulltta.embedded.train --size gpu --device cuda --stage denoiser --minutes 5

Both sizes use the same networks, small enough to ship. The GPU size has three times the objects, all three styles,
larger batches and more images. Each stage writes `<stage>.pt` (its checkpoint) and `<stage>.jsonl` (its log) to --out;
`export` writes the weights in half precision.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from .. import WEIGHTS
from ..grammar import Size
from ..scorers import NAMES
from ..tokenizer import build_tokenizer
from . import autoencoder, decoder, denoiser, export, judge, scorers, tiny
from .loop import Budget, has_bfloat16

STAGES: dict[str, Callable[[Size, Budget], object]] = {
    "autoencoder": autoencoder.run,
    "clip": partial(scorers.run, "clip"),
    "clip-b": partial(scorers.run, "clip-b"),
    "denoiser": denoiser.run,
    "judge": judge.run,
    "decoder": decoder.run,
    "tiny": tiny.run,
}
MINUTES: dict[Size, dict[str, float]] = {
    "cpu": {"autoencoder": 13, "clip": 29, "clip-b": 9, "denoiser": 73, "judge": 8, "decoder": 26, "tiny": 6},
    "gpu": {"autoencoder": 4, "clip": 3, "clip-b": 2, "denoiser": 9, "judge": 2, "decoder": 2, "tiny": 1},
}


def export_all(size: Size, budget: Budget, out: Path) -> None:
    """Write the weights that ship, from the checkpoints, to the folder `out`."""
    export.export_pipeline(denoiser.load(budget), decoder.load(budget), build_tokenizer(), out / "sd")
    for name in NAMES:
        export.export_scorer(scorers.load(name, budget), build_tokenizer(), out / name)
    export.export_tiny(budget, out)
    export.export_judge(size, budget, out)
    export.export_record(STAGES, budget, out, size=size)


def main() -> None:
    """Run the stages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--size", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--stage", choices=(*STAGES, "export"), action="append", help="default: all, in order")
    parser.add_argument("--minutes", type=float, help="wall-clock budget of each stage; default: the size's own")
    parser.add_argument("--steps", type=int, help="stop a stage after this many steps")
    parser.add_argument("--out", type=Path, default=Path("build/emoji"), help="checkpoints and logs")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where `export` writes")
    parser.add_argument("--device", help="default: cpu for --size cpu, cuda for --size gpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device = args.device or ("cpu" if args.size == "cpu" else "cuda")
    for stage in args.stage or (*STAGES, "export"):
        minutes = args.minutes or MINUTES[args.size].get(stage, 0.0)
        budget = Budget(args.out, minutes, args.steps, device, autocast=has_bfloat16(device))
        print(f"{stage}: up to {minutes:g} minutes on {device}", flush=True)
        if stage == "export":
            export_all(args.size, budget, args.weights)
        else:
            STAGES[stage](args.size, budget)


if __name__ == "__main__":
    main()
