"""What the observed model adds to a bare call of the denoiser, on the embedded model: the ratio of their times.

The bare call is what an adapter written for the pipeline by hand would make: the frozen UNet with its latents, its
timestep and its tokens. Both are measured in turn in one process, by the processor's time, so that a busy machine
matters little; the ratio of the medians of many short turns is reported. What observing and proving the model takes,
once per model, is counted too.

    python studies/model_cost.py
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Annotated, Any

import torch
import typer

import nulltta
from nulltta.models.frozen import Frozen

BATCHES = (1, 8)


def main(turns: Annotated[int, typer.Option(help="how often each is timed")] = 200, threads: int = 1) -> None:
    """Measure the ratio without and with gradient."""
    torch.set_num_threads(threads)
    model: Any = nulltta.load_model("embedded", device="cpu")
    evaluated, decoded, seconds = proof(nulltta.load_model(model.pipeline))  # not used yet
    print(f"The proof: {evaluated} rows of the denoiser, {decoded} of the decoder, {seconds:.2f} s of the processor.\n")
    print("| batch | gradient | bare call, ms | observed model, ms | ratio |", "|---" * 5 + "|", sep="\n")
    for batch in BATCHES:
        for gradient in (False, True):
            bare, ours = (statistics.median(times) * 1e3 for times in measured(model, batch, gradient, turns))
            print(f"| {batch} | {'yes' if gradient else 'no'} | {bare:.2f} | {ours:.2f} | {ours / bare:.3f} |")


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
    for _ in range(turns):
        for function, kept in zip((bare, ours), times, strict=True):
            kept.append(seconds(function))
    return times


if __name__ == "__main__":
    typer.run(main)
