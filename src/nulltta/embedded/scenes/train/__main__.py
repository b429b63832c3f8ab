"""Train the scenes world stage by stage; a stopped run resumes from its last checkpoint.

    python -m nulltta.embedded.scenes.train --out build/scenes
    python -m nulltta.embedded.scenes.train --out build/scenes --stage generator
    python -m nulltta.embedded.scenes.train --out build/scenes --stage generator --device cuda --minutes 5 --workers 8

A stage has a set number of steps, so that a slow or busy machine trains the same weights as a fast one; on a GPU, where
steps are cheap, batches are larger and stages longer. Each writes `<stage>.pt` (its checkpoint) and `<stage>.jsonl`
(its log) to --out; the generator also writes pictures and what the judge says of them (`verdicts.jsonl`). `export`
writes the weights in half precision.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from ...train.export import export_pipeline, export_record, export_scorer, save_plain
from ...train.loop import Budget, has_bfloat16
from .. import WEIGHTS
from . import answerer, autoencoder, generator, scorers
from .text import tokenizer

STAGES: dict[str, Callable[[Budget], object]] = {
    "autoencoder": autoencoder.run,
    "generator": generator.run,
    "scenes-clip": partial(scorers.run, "scenes-clip"),
    "scenes-conv": partial(scorers.run, "scenes-conv"),
    "scenes-questions": answerer.run,
}


def export_all(budget: Budget, out: Path) -> None:
    """Write out/sd, a folder per scorer and out/training.json, from the checkpoints."""
    words = tokenizer()
    export_pipeline(generator.load(budget), autoencoder.load(budget), words, out / "sd")
    for name in scorers.STEPS:
        export_scorer(scorers.load(name, budget), words, out / name)
    save_plain(answerer.load(budget), out / answerer.NAME)
    export_record(STAGES, budget, out)


def main() -> None:
    """Run the stages that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--stage", choices=(*STAGES, "export"), action="append", help="default: all, in order")
    parser.add_argument("--steps", type=int, help="stop a stage after this many steps")
    parser.add_argument("--minutes", type=float, help="stop a stage after so long; the generator's schedule follows")
    parser.add_argument("--out", type=Path, default=Path("build/scenes"), help="checkpoints and logs")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="where `export` writes")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--workers", type=int, default=0, help="processes that draw data ahead of the training")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    autocast = has_bfloat16(args.device)
    minutes = math.inf if args.minutes is None else args.minutes
    budget = Budget(args.out, minutes, args.steps, args.device, autocast, args.workers)
    for stage in args.stage or (*STAGES, "export"):
        print(f"{stage} on {args.device}", flush=True)
        if stage == "export":
            export_all(budget, args.weights)
        else:
            STAGES[stage](budget)


if __name__ == "__main__":
    main()
