"""Choosing settings: on prompts of all kinds, in noise of their own, by a rule that is no coin toss."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.randomness import own_seed
from nulltta.baselines.catalogue import BASELINES
from nulltta.benchmark.contenders import ContenderTask
from nulltta.benchmark.difficulty import thirds
from nulltta.benchmark.plan import Arm, Plan
from nulltta.benchmark.run import JobSampler, WorkerMachine
from nulltta.benchmark.store import ImageRow
from nulltta.benchmark.timing import Clock
from nulltta.benchmark.tune import FEW_STEP_GRID, GRID, MARGIN, at_edge, chosen, tuning_arms
from nulltta.benchmark.tuned import TunedSettings, nearest, packaged_settings, read_settings
from nulltta.embedded.worlds import WORLDS
from nulltta.evaluation.bootstrap import paired_gain

TASK = ContenderTask(config=NullTTAConfig.embedded(), target="clip", unit=0.03)


def test_tuning_prompts_are_of_all_kinds_and_none_is_reported() -> None:
    for world in WORLDS.values():
        tuning, reported = world.tuning_prompts(24), world.test_prompts(120)
        assert len(set(tuning)) == 24
        assert not set(tuning) & set(reported)
        kinds = {world.kind(prompt) for prompt in reported}
        counts = [[world.kind(prompt) for prompt in tuning].count(kind) for kind in kinds]
        assert max(counts) - min(counts) <= 1


def test_each_prompt_has_a_noise_of_its_own_in_each_draw() -> None:
    seeds = {own_seed(draw, prompt) for draw in range(4) for prompt in ("a", "b", "c")}
    assert len(seeds) == 12
    assert own_seed(0, "a") == own_seed(0, "a")


def test_the_rows_of_a_benchmark_have_noise_of_their_own(checkpoint: Path) -> None:
    config = {"num_inference_steps": 2, "guidance_scale": 3.0}
    plan = Plan(
        model=str(checkpoint), prompts=["a", "b"], seeds=[0, 1],
        arms=[Arm(name="plain", target="brightness", method="plain", config=config)],
    )  # fmt: skip
    sampler = JobSampler(plan, WorkerMachine(threads=1))
    [job, *_] = plan.jobs()
    found = [row.scores["brightness"] for row in sampler(job)]
    seeds = [own_seed(0, prompt) for prompt in plan.prompts]
    own = align(sampler.model, ["a", "b"], "brightness", config=NullTTAConfig(**config), method="plain", seed=seeds)  # type: ignore[arg-type]
    assert found == pytest.approx(own.rewards.tolist(), abs=1e-5)
    assert not torch.equal(own.problem.latents[0], own.problem.latents[1])


@pytest.mark.parametrize(("count", "passes"), [(8, False), (200, True)])
def test_a_setting_passes_by_the_bound_of_its_interval_and_not_by_its_mean(count: int, passes: bool) -> None:
    """Two settings of the same held-out mean above 0: with few prompts their interval says too little to pass."""
    rng = np.random.default_rng(3)
    plain = rng.normal(size=count)
    held = plain + 0.1 + rng.normal(size=count)
    held += 0.1 - (held - plain).mean()
    safe = plain + 0.01
    rows = [
        *_rows("clip||plain", plain, plain),
        *_rows("clip|9 evaluations|dps#0", plain + 1.0, held),
        *_rows("clip|9 evaluations|dps#1", plain + 0.5, safe),
    ]
    arms = [Arm(name="plain", target="clip", method="plain")] + [
        Arm(name=f"dps#{k}", target="clip", budget="9 evaluations", method="dps") for k in (0, 1)
    ]
    plan = Plan(model="embedded", prompts=[str(i) for i in range(count)], seeds=[0], arms=arms)
    grid = {"dps": [{"scale": 8.0}, {"scale": 2.0}]}
    [tuned], search = chosen(plan, rows, ["clip-b"], grid)
    assert (tuned.target, tuned.budget) == ("clip", 9)
    assert tuned.settings["dps"] == grid["dps"][0 if passes else 1]
    assert [each["gains"]["clip-b"]["mean"] > 0 for each in search] == [True, True]
    bound = paired_gain(plain.tolist(), held.tolist(), np.random.default_rng(0)).in_spreads
    assert bound is not None
    assert (bound[1] > -MARGIN) == passes


def test_where_no_setting_passes_the_one_that_may_do_the_least_harm_is_chosen() -> None:
    plain = np.linspace(0, 1, 12)
    arms = [Arm(name="plain", target="clip", method="plain")] + [
        Arm(name=f"dps#{k}", target="clip", budget="9 evaluations", method="dps") for k in (0, 1)
    ]
    rows = [
        *_rows("clip||plain", plain, plain),
        *_rows("clip|9 evaluations|dps#0", plain + 2, plain - 2),
        *_rows("clip|9 evaluations|dps#1", plain + 1, plain - 1),
    ]
    plan = Plan(model="embedded", prompts=[str(i) for i in range(12)], seeds=[0], arms=arms)
    [tuned], _ = chosen(plan, rows, ["clip-b"], {"dps": [{"scale": 8.0}, {"scale": 2.0}]})
    assert tuned.settings["dps"] == {"scale": 2.0}


def test_every_contender_has_ten_tries_at_the_largest_budget_and_those_too_dear_are_named() -> None:
    arms, left_out = tuning_arms(TASK, 400, GRID)
    assert len(arms) == 1 + 10 * len(GRID)
    assert left_out == {}
    arms, left_out = tuning_arms(TASK, 100, GRID)
    assert len(arms) + len(left_out) == 1 + 10 * len(GRID)
    assert all("evaluations" in reason for reason in left_out.values())
    assert all(any(arm.name.startswith(f"{name}#") for arm in arms) for name in GRID)


def test_a_choice_at_the_edge_of_its_grid_is_named() -> None:
    grid: list[dict[str, Any]] = [
        {"scale": s, "eta": 1.0, "weight": w} for s, w in ((1.0, 0.0), (2.0, 1.0), (4.0, 2.0))
    ]
    assert at_edge(grid[0], grid) == ["scale"]  # a weight of 0 is the end of its range
    assert at_edge(grid[1], grid) == []
    assert at_edge(grid[2], grid) == ["scale", "weight"]
    runs: list[dict[str, Any]] = [{"runs": n, "gradient": g} for n, g in ((1, "auto"), (2, "auto"), (3, "autograd"))]
    assert [at_edge(tried, runs) for tried in runs] == [[], [], ["runs"]]  # fewer than one run cannot be tried
    assert at_edge({"kl_target": 2.0}, [{"kl_target": each} for each in (None, 2.0, 4.0, 8.0)]) == ["kl_target"]
    rates = [tried["learning_rate"] for tried in BASELINES["prompt-embedding"].grid]
    assert min(rates) < 0.00625 < max(rates)  # what the old grid ended at


def test_settings_are_those_of_the_target_at_the_nearest_budget() -> None:
    tuned = [TunedSettings("clip", budget, {"dps": {"scale": float(budget)}}) for budget in (100, 200, 400)]
    tuned.append(TunedSettings("jpeg", 101, {}))
    for budget, chosen_for in ((100, 100), (130, 100), (290, 400), (1000, 400)):
        found = nearest(tuned, "clip", budget)
        assert found is not None
        assert (found.target, found.budget) == ("clip", chosen_for)
    other = nearest(tuned, "sharpness", 210)
    assert other is not None
    assert other.budget == 200
    nearer = nearest(tuned, "sharpness", 101)  # those of the first target, not of whichever is nearest
    assert nearer is not None
    assert nearer.target == "clip"
    assert nearest([], "clip", 100) is None


@pytest.mark.parametrize("text", ["{}", "[{}]", "[1]", '[{"target": "a", "budget": 0, "settings": {}}]', "x"])
def test_a_file_of_another_form_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text(text)
    with pytest.raises(NullTTAError, match="cannot read settings") as caught:
        read_settings(tmp_path / "settings.json")
    assert "\n" not in str(caught.value)


def test_prompts_are_sorted_into_thirds_by_how_often_plain_sampling_gets_them_right() -> None:
    assert thirds([0.9, 0.1, 0.5, 0.0, 1.0, 0.6]) == [[1, 3], [2, 5], [0, 4]]
    assert [len(third) for third in thirds([0.0] * 7)] == [2, 2, 3]


def _rows(arm: str, target: np.ndarray, held: np.ndarray) -> list[ImageRow]:
    return [
        ImageRow(arm, i, 0, 1.0, 1.0, 1.0, 0.0, {"clip": float(t), "clip-b": float(h)})
        for i, (t, h) in enumerate(zip(target, held, strict=True))
    ]


def test_the_settings_in_the_package_are_readable_and_suit_the_model() -> None:
    for model, grid in ("embedded", GRID), ("scenes", GRID), ("embedded-turbo", FEW_STEP_GRID):
        for tuned in read_settings(packaged_settings(model)):
            assert set(tuned.settings) <= set(grid)
            json.dumps(tuned.settings)
    assert packaged_settings("embedded") != packaged_settings("embedded-turbo")


def test_seconds_on_a_cpu_are_processor_time() -> None:
    clock = Clock()
    time.sleep(0.2)
    spent = clock.spent(torch.device("cpu"))
    assert spent.seconds < 0.15 < 0.2 <= spent.clock_seconds
