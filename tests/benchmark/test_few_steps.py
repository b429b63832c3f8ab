"""The benchmark on a model that was distilled to few steps, which needs no guidance."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.budget import spent
from nulltta.baselines import BASELINES
from nulltta.baselines.catalogue import FEW_STEP_TRIES
from nulltta.benchmark.contenders import ContenderTask, arm
from nulltta.benchmark.counting import counted
from nulltta.benchmark.noise_network import NoiseNetwork, NoiseNetworkSampling
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.run import JobSampler, WorkerMachine
from nulltta.benchmark.tune import FEW_STEP_GRID, GRID, grid_of

PROMPTS = ["a rose on a white background, noto style", "two foxes on a blue background, fluent style"]
TASK = ContenderTask(
    config=NullTTAConfig.preset("embedded-turbo", num_inference_steps=2, num_particles=1, inner_steps=(1, 1)),
    target="colourfulness", unit=0.1, crossed=True,
)  # fmt: skip


@pytest.fixture(scope="module")
def turbo() -> Any:
    model = nulltta.load_model("embedded-turbo")
    align(model, PROMPTS[0], "brightness", config=TASK.config)  # finds the image's tokens once
    return model


@pytest.mark.parametrize("name", ["plain", "best-of-n", "reno", "noise-tilt", "null-tta"])
def test_what_is_spent_is_the_budget_without_guidance_for_all_but_the_null_text(turbo: Any, name: str) -> None:
    chosen = arm(name, 17, "17 evaluations", TASK)
    method, config = chosen.build()
    with counted(turbo) as evaluations:
        align(turbo, PROMPTS[:1], chosen.target, config=config, method=method)
    if name == "null-tta":
        assert config.nag_scale > 0
        # Of 2 steps, each with a candidate, a reference and φ' moved: 6 without gradient; an inner step costs 2.
        assert evaluations.total == spent(config, crossed=True) == 16
        return
    assert config.nag_scale == 0
    T, cost = config.num_inference_steps, None if name == "plain" else BASELINES[name].cost
    each, once = (T, 0) if cost is None else cost.of(BASELINES[name].method, T, branches=1)
    n = 1 if name == "plain" else (17 - once) // each
    assert evaluations.total == each * n + once <= 17


def test_each_contender_has_as_many_tries_for_few_steps_and_the_published_one_of_reno_is_among_them() -> None:
    assert {len(tries) for tries in FEW_STEP_GRID.values()} == {FEW_STEP_TRIES}
    assert {"best-of-n", "reno", "dno", "noise-tilt", "fk", "null-tta"} <= set(FEW_STEP_GRID)
    published = [t for t in FEW_STEP_GRID["reno"] if (t["learning_rate"], t["num_inference_steps"]) == (5.0, 1)]
    assert len(published) == 1
    assert grid_of(TASK.config) is FEW_STEP_GRID
    assert grid_of(NullTTAConfig.embedded()) is GRID


def test_a_noise_network_moves_no_noise_before_it_learns_and_is_read_as_it_was_written(
    turbo: Any, tmp_path: Path
) -> None:
    network, x = NoiseNetwork(turbo), torch.randn(1, *turbo.latent_shape, generator=torch.Generator().manual_seed(0))
    tokens = turbo.encode(PROMPTS[:1], [""])[0]["encoder_hidden_states"]
    assert not network(x, 999.0, tokens).any()
    optimiser = torch.optim.SGD(network.learnt.values(), 0.1)
    (network(x, 999.0, tokens) - 1).square().mean().backward()
    optimiser.step()
    file = tmp_path / "network.safetensors"
    network.save(file, {"reward": "colourfulness"})
    expected = network(x, 999.0, tokens)
    assert expected.any()
    assert torch.equal(NoiseNetwork.read(file, turbo)(x, 999.0, tokens), expected)
    (tmp_path / "other.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(NullTTAError, match="is not a noise network"):
        NoiseNetwork.read(tmp_path / "other.safetensors", turbo)

    task = replace(TASK, fitted=[str(file)])
    chosen = Arm(**json.loads(json.dumps(arm("hyper-noise-1", 0, "", task).__dict__, default=dict)))
    method, config = chosen.build()
    assert isinstance(method, NoiseNetworkSampling)
    assert (config.num_inference_steps, config.nag_scale) == (1, 0)
    result = align(turbo, PROMPTS[:1], "colourfulness", config=config, method=method, seed=3)
    start = result.problem.latents[:, 0]
    moved = start + network(start, 999.0, tokens).detach()
    same = align(turbo, PROMPTS[0], "colourfulness", config=config, method="plain", latents=moved[:, None])
    torch.testing.assert_close(result.images, same.images, rtol=0, atol=1e-5)
    nats = (moved - start).square().sum() / 2
    torch.testing.assert_close(result.trace[0].kl, nats[None].detach())
    plan = Plan(model="embedded-turbo", prompts=PROMPTS[:1], seeds=[0], arms=[chosen], gallery=0)
    [row] = JobSampler(plan, WorkerMachine())(next(plan.jobs()))
    assert (row.forward, row.backward) == (2, 0)  # the network's own evaluation, and the step
    with pytest.raises(NullTTAError, match=r"no noise network for 'jpeg' was given \(--fitted\)"):
        arm("hyper-noise-1", 0, "", replace(task, target="jpeg"))
    with pytest.raises(NullTTAError, match="is neither a fitted null text nor a noise network"):
        arm("fitted-prompt", 0, "", replace(task, fitted=[str(tmp_path / "other.safetensors")]))
