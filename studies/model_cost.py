"""What the observed model, and guidance inside attention, add to a call of the denoiser, on the embedded models.

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
from functools import partial
from typing import Annotated, Any

import numpy as np
import torch
import typer

import nulltta
from nulltta import NullTTAConfig
from nulltta.models.frozen import Frozen
from nulltta.models.nag import with_guidance, without_prompt

BATCHES = (1, 8)
Evaluate = Callable[[torch.Tensor], torch.Tensor]
Compared = tuple[Evaluate, Evaluate, torch.Tensor]
"""Two functions of a text's tokens, and the tokens."""


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
    table("bare call", "observed model", partial(observed, model), batch, turns)
    table("unguided", "inside attention", partial(guided, nulltta.load_model("embedded-turbo")), batch, turns)


def table(first: str, second: str, of: Callable[[int], Compared], batches: Sequence[int], turns: int) -> None:
    """Print the times of two evaluations, and their ratio, without and with gradient."""
    print(f"| batch | gradient | {first}, ms | {second}, ms | ratio | 95% |", "|---" * 6 + "|", sep="\n")
    for rows in batches:
        for gradient in (False, True):
            times = measured(*of(rows), gradient, turns)
            before, after = (statistics.median(each) * 1e3 for each in times)
            ratio, low, high = median_ratio(*times)
            cells = f"{before:.2f} | {after:.2f} | {ratio:.3f} | {low:.3f} to {high:.3f}"
            print(f"| {rows} | {'yes' if gradient else 'no'} | {cells} |", flush=True)
    print()


def median_ratio(first: Sequence[float], second: Sequence[float]) -> tuple[float, float, float]:
    """Return the median ratio of turns, and its 95% interval by a bootstrap over turns."""
    ratios = np.array(second) / np.array(first)
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


def observed(model: Any, batch: int) -> Compared:
    """Return a bare call of the denoiser, and the observed model's prediction."""
    _, null = model.encode(["a cat"] * batch, [""] * batch)
    x, step = latents(model, batch), model.schedule(10)[4]
    (name,) = null
    timestep, unet = torch.tensor(step.timestep), Frozen(model.pipeline.unet)
    return (
        lambda tokens: unet(x, timestep, encoder_hidden_states=tokens).sample,
        lambda tokens: model.predict(x, step, {name: tokens}),
        null[name],
    )


def guided(model: Any, batch: int) -> Compared:
    """Return a distilled model's prediction, and that under normalized attention guidance."""
    nag = with_guidance(model, NullTTAConfig.preset(model.name))
    cond, null = nag.encode(["a cat"] * batch, [""] * batch)
    x, step = latents(model, batch), model.schedule(4)[1]
    (name,) = without_prompt(null)
    return (
        lambda tokens: model.predict(x, step, {name: tokens}),
        lambda tokens: nag.predict(x, step, {**null, name: tokens}),
        cond[name],
    )


def latents(model: Any, batch: int) -> torch.Tensor:
    """Return the latents that are evaluated."""
    drawn: torch.Tensor = model.initial_latents(batch, torch.Generator().manual_seed(0))
    return drawn


def measured(
    first: Evaluate, second: Evaluate, text: torch.Tensor, gradient: bool, turns: int
) -> tuple[list[float], list[float]]:
    """Time two evaluations of a text in turn: the seconds of each of their calls."""
    tokens = text.clone().requires_grad_(gradient)

    def seconds(function: Evaluate) -> float:
        start = time.process_time()
        with torch.set_grad_enabled(gradient):
            output = function(tokens)
            if gradient:
                torch.autograd.grad(output.sum(), tokens)
        return time.process_time() - start

    times: tuple[list[float], list[float]] = [], []
    both = [(first, times[0]), (second, times[1])]
    for turn in range(turns):
        for function, kept in both if turn % 2 else reversed(both):
            kept.append(seconds(function))
    return times


if __name__ == "__main__":
    typer.run(main)
