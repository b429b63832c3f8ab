"""What the observed model adds to a bare call of the denoiser, on the embedded model: the ratio of their times.

The bare call is what an adapter written for the pipeline by hand would make: the frozen UNet with its latents, its
timestep and its tokens. Both are measured in one process by the processor's time, in turns of both whose order
alternates, so that what else the machine does cancels out of a turn's ratio. The median of these ratios is reported,
with the 95% interval of a bootstrap over turns. What observing and proving the model takes, once per model, is counted
too.

    python studies/model_cost.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from typing import Annotated, Any

import numpy as np
import torch
import typer

import nulltta
from nulltta.models.frozen import Frozen

BATCHES = (1, 8)


def main(
    turns: Annotated[int, typer.Option(help="how often each is timed")] = 200,
    threads: int = 1,
    batch: Annotated[list[int], typer.Option(help="how many rows are evaluated at once")] = list(BATCHES),  # noqa: B006
) -> None:
    """Measure the ratio without and with gradient."""
    torch.set_num_threads(threads)
    model: Any = nulltta.load_model("embedded", device="cpu")
    evaluated, decoded, seconds = proof(nulltta.load_model(model.pipeline))  # not used yet
    print(f"The proof: {evaluated} rows of the denoiser, {decoded} of the decoder, {seconds:.2f} s of the processor.\n")
    print("| batch | gradient | bare call, ms | observed model, ms | ratio | 95% |", "|---" * 6 + "|", sep="\n")
    for rows in batch:
        for gradient in (False, True):
            times = measured(model, rows, gradient, turns)
            bare, ours = (statistics.median(each) * 1e3 for each in times)
            ratio, low, high = median_ratio(*times)
            cells = f"{bare:.2f} | {ours:.2f} | {ratio:.3f} | {low:.3f} to {high:.3f}"
            print(f"| {rows} | {'yes' if gradient else 'no'} | {cells} |", flush=True)


def median_ratio(bare: Sequence[float], ours: Sequence[float]) -> tuple[float, float, float]:
    """Return the median ratio of turns, and its 95% interval by a bootstrap over turns."""
    ratios = np.array(ours) / np.array(bare)
    drawn = np.random.default_rng(0).choice(ratios, (2000, len(ratios)))
    low, high = np.quantile(np.median(drawn, 1), (0.025, 0.975))
    return float(np.median(ratios)), float(low), float(high)


def proof(model: Any) -> tuple[int, int, float]:
    """Observe and prove a model that was not used yet: the rows of its two networks, and the processor's seconds."""
    rows = [0, 0]

    def count(index: int, network: torch.nn.Module) -> Any:
        first = next(part for part in network.modules() if not list(part.children()))  # stand-ins do not reach it

        def seen(_: Any, args: Any) -> None:
            rows[index] += len(args[0])

        return first.register_forward_pre_hook(seen)

    pipeline = model.pipeline
    handles = [count(i, network) for i, network in enumerate((pipeline.unet, pipeline.vae.decoder))]
    began = time.process_time()
    assert model.latent_shape
    spent = time.process_time() - began
    for handle in handles:
        handle.remove()
    return rows[0], rows[1], spent


def measured(model: Any, batch: int, gradient: bool, turns: int) -> tuple[list[float], list[float]]:
    """Time both in turn: the seconds of each of their calls."""
    _, null = model.encode(["a cat"] * batch, [""] * batch)
    x, step = model.initial_latents(batch, torch.Generator().manual_seed(0)), model.schedule(10)[4]
    (name,) = null
    tokens = null[name].clone().requires_grad_(gradient)
    timestep = torch.tensor(step.timestep)
    unet = Frozen(model.pipeline.unet)

    def bare() -> torch.Tensor:
        found: torch.Tensor = unet(x, timestep, encoder_hidden_states=tokens).sample
        return found

    def ours() -> torch.Tensor:
        found: torch.Tensor = model.predict(x, step, {name: tokens})
        return found

    def seconds(function: Callable[[], torch.Tensor]) -> float:
        start = time.process_time()
        with torch.set_grad_enabled(gradient):
            output = function()
            if gradient:
                torch.autograd.grad(output.sum(), tokens)
        return time.process_time() - start

    times: tuple[list[float], list[float]] = [], []
    both = [(bare, times[0]), (ours, times[1])]
    for turn in range(turns):
        for function, kept in both if turn % 2 else reversed(both):
            kept.append(seconds(function))
    return times


if __name__ == "__main__":
    typer.run(main)
