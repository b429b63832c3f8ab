"""Contenders keep to their budget, as counted from outside."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.algorithm.budget import planned, spent
from nulltta.algorithm.sampling import plain
from nulltta.baselines import BASELINES
from nulltta.benchmark.contenders import (
    ABLATIONS,
    CONTENDERS,
    GROUPS,
    RIVALS,
    SWEEPS,
    ContenderTask,
    arm,
    filled,
    named,
)
from nulltta.benchmark.counting import counted
from nulltta.benchmark.plan import Arm
from nulltta.benchmark.repeated import BestOf
from nulltta.benchmark.tune import GRID
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import FORMS, free_shapes
from nulltta.null_text.identity import identity

T = 3
TASK = ContenderTask(
    config=NullTTAConfig(num_inference_steps=T, guidance_scale=3.0, inner_steps=(1, 2), num_particles=2),
    target="colourfulness", unit=0.1, settings={"dno": {"num_inference_steps": 2}},
)  # fmt: skip


@pytest.mark.parametrize("name", [name for name in (*RIVALS, *ABLATIONS) if not name.startswith(("fitted", "hyper"))])
def test_what_is_spent_is_the_budget_or_just_below_it(model: Any, name: str) -> None:
    budget, prompts = 61, ["a cat", "a dog"]
    chosen = arm(name, budget, "61 evaluations", TASK)
    method, config = chosen.build()
    with counted(model) as evaluations:
        align(model, prompts, chosen.target, config=config, method=method)
    spent = evaluations.total / len(prompts)
    cost = BASELINES[name].cost if name in BASELINES else None
    if name == "plain":
        assert (spent, chosen.budget) == (2 * T, "")
    elif cost is not None:  # as the entry states it, and another one would be too much
        steps = chosen.config["num_inference_steps"]
        n = chosen.samples if cost.count is None else chosen.settings[cost.count]
        published: Any = BASELINES[name].method
        own = {field: value for field, value in chosen.settings.items() if field != cost.count}
        each, once = cost.of(replace(published, **own), steps)
        assert spent == each * n + once <= budget < spent + each
    else:
        assert budget - (2 * T if name == "selection" else 8) < spent <= budget
    without = name in ("plain", "selection", "zeroth-order", "clean-tilt") or (
        cost is not None and not BASELINES[name].needs_gradient
    )
    assert (evaluations.backward > 0) == (not without)


@pytest.mark.parametrize("name", [name for name in CONTENDERS if not CONTENDERS[name].fixed])
def test_a_larger_budget_is_never_spent_on_less(name: str) -> None:
    def bought(budget: int) -> int:
        made = arm(name, budget, "", TASK)
        counts = [made.settings.get(field, 0) for field in ("samples", "particles", "iterations")]
        kin = made.method in ("null-tta", "prompt-embedding", "shared-null")
        return max(
            *counts, made.samples, made.config["num_particles"], spent(NullTTAConfig(**made.config)) if kin else 0
        )

    amounts = [bought(budget) for budget in (80, 120, 200, 500)]
    assert amounts == sorted(amounts)
    assert amounts[-1] > amounts[0]


def test_inner_steps_are_multiplied_to_fill_a_large_budget() -> None:
    config = filled(TASK.config, 500)
    assert 497 <= spent(config) <= 500
    n_min, n_max = config.inner_steps
    assert (n_min, n_max) == (n_min, 2 * n_min)
    with pytest.raises(NullTTAError, match="cannot be multiplied"):
        filled(replace(TASK.config, inner_steps=(0, 0)), 500)
    with pytest.raises(NullTTAError, match="leaves no inner step"):
        filled(TASK.config, 2 * 2 * T)


def test_settings_in_units_of_the_reward_are_scaled_to_it() -> None:
    own = {"dps": {"scale": 2.0}, "das": {"temperature": 2.0}, "null-tta": {"reward_weight": 2.0}}
    task = replace(TASK, settings=own)
    assert arm("dps", 60, "", task).settings["scale"] == pytest.approx(20.0)
    assert arm("das", 60, "", task).settings["temperature"] == pytest.approx(0.2)
    assert arm("null-tta", 60, "", task).config["reward_weight"] == pytest.approx(20.0)
    assert arm("zeroth-order", 60, "", task).config["reward_weight"] == pytest.approx(10.0)  # half, as published


def test_too_small_a_budget_and_a_reward_without_gradient_are_refused() -> None:
    for name in CONTENDERS:
        if not CONTENDERS[name].fixed:
            with pytest.raises(NullTTAError, match="evaluations"):
                arm(name, 5, "", TASK)
        if CONTENDERS[name].needs_gradient:
            with pytest.raises(NullTTAError, match=f"{name} needs a reward with a gradient"):
                arm(name, 500, "", replace(TASK, target="jpeg", differentiable=False))


def test_a_budget_that_runs_share_is_named_as_a_whole() -> None:
    task = replace(TASK, settings={"null-tta": {"runs": 3}})
    with pytest.raises(NullTTAError, match="in each of the 3 runs that share 30"):
        arm("null-tta", 30, "", task)


def test_null_tta_searches_if_the_reward_has_no_gradient() -> None:
    made = arm("null-tta", 100, "", replace(TASK, target="jpeg", differentiable=False))
    assert made.config["gradient"] == "zeroth-order"
    assert spent(NullTTAConfig(**made.config)) <= 100


def test_names_and_groups() -> None:
    assert named(["rivals", "null-tta"]) == list(RIVALS)
    assert named(["dps", "sweeps"]) == ["dps", *SWEEPS]
    assert set(GROUPS) == {"rivals", "ablations", "sweeps"}
    with pytest.raises(NullTTAError, match="contender 'dsp' is unknown"):
        named(["dsp"])


def test_sweeps_change_one_setting_of_what_was_tuned() -> None:
    own = {
        "null-tta": {"noise_tilt": 0.5, "num_inference_steps": 10, "runs": 2},
        "noise-tilt": {"strength": 0.5, "num_inference_steps": 10},
    }
    task = replace(TASK, settings=own)
    tuned, swept = (arm(name, 200, "", task) for name in ("null-tta", "tilt-0.3"))
    assert swept == replace(tuned, name="tilt-0.3", config={**tuned.config, "noise_tilt": 0.3})
    tuned, swept = (arm(name, 200, "", task) for name in ("noise-tilt", "noise-tilt-0.3"))
    assert swept == replace(tuned, name="noise-tilt-0.3", settings={"strength": 0.3})


def test_every_contender_with_settings_of_its_own_is_tuned_with_as_many_tries() -> None:
    assert set(GRID) == {name for name, contender in RIVALS.items() if not contender.fixed}
    for tries in GRID.values():
        assert len(tries) == 10
        assert len({str(tried) for tried in tries}) == len(tries)


def test_the_best_of_several_runs_includes_the_method_itself(model: Any) -> None:
    config, prompts = TASK.config, ["a cat", "a dog"]
    alone = align(model, prompts, "colourfulness", config=config, method="plain", seed=[3, 4])
    best = align(model, prompts, "colourfulness", config=config, method=BestOf(plain, 3), seed=[3, 4])
    assert best.candidates.shape[1] == 3
    torch.testing.assert_close(best.candidates[:, 0], alone.images)
    assert torch.equal(best.rewards, best.problem.reward(best.candidates.flatten(0, 1), prompts * 3).view(2, 3).amax(1))
    swapped = align(model, prompts[::-1], "colourfulness", config=config, method=BestOf(plain, 3), seed=[4, 3])
    torch.testing.assert_close(swapped.candidates.flip(0), best.candidates, rtol=0, atol=1e-4)


def test_an_arm_is_the_same_after_json() -> None:
    made = arm("das", 60, "60 evaluations", TASK)
    again = Arm(**json.loads(json.dumps(made.__dict__, default=dict)))
    assert again.build() == made.build()


def test_every_contender_may_have_its_own_steps_and_eta() -> None:
    for name, grid in GRID.items():
        for settings in (grid[0], grid[5]):
            made = arm(name, 300, "", replace(TASK, settings={name: settings}))
            config = NullTTAConfig(**made.config)
            assert (config.num_inference_steps, config.eta) == (settings["num_inference_steps"], settings["eta"])
        assert len({tried["num_inference_steps"] for tried in grid}) > 1
    five = [5 in [tried["num_inference_steps"] for tried in GRID[name]] for name in ("best-of-n", "fk", "das")]
    assert all(five)


def test_reno_runs_without_step_noise_unless_told_otherwise() -> None:
    assert arm("reno", 60, "", TASK).config["eta"] == 0.0
    assert [tried["eta"] for tried in GRID["reno"]].count(0.0) == 8


def test_das_at_200_evaluations_has_enough_particles_to_resample() -> None:
    quick = [tried for tried in GRID["das"] if tried["num_inference_steps"] == 5]
    made = arm("das", 200, "", replace(TASK, settings={"das": quick[0]}))
    assert made.settings["particles"] == 10


def test_last_step_optimises_the_last_step_alone() -> None:
    for steps in (3, 10, 25):
        made = arm("last-step", 200, "", replace(TASK, settings={"null-tta": {"num_inference_steps": steps}}))
        counts = planned(NullTTAConfig(**made.config))
        assert [i for i, n in enumerate(counts) if n] == [steps - 1]


@pytest.mark.parametrize("form", ["constant", "prompt"])
def test_a_fitted_null_text_is_sampled_at_the_cost_of_a_plain_sample(model: Any, form: Any, tmp_path: Path) -> None:
    _, null = model.encode(["a"], [""])
    shift = FORMS[form](free_shapes(null), T)
    for parameter in shift.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0))
    timesteps, file = [step.timestep for step in model.schedule(T)], str(tmp_path / "fitted.safetensors")
    about = {"model": identity(model), "form": form, "reward": "colourfulness"}
    FittedNullText(timesteps, shift.requires_grad_(False), (0, T), about).save(file)
    name, task = f"fitted-{form}", replace(TASK, fitted=[file])
    chosen = Arm(**json.loads(json.dumps(arm(name, 0, "", task).__dict__, default=dict)))
    method, config = chosen.build()
    with counted(model) as evaluations:
        result = align(model, ["a cat", "a dog"], "colourfulness", config=config, method=method)
    assert (evaluations.forward, evaluations.backward, chosen.budget) == (2 * 2 * T, 0, "")
    assert not torch.equal(result.images, result.baseline)
    unmoved = replace(config, inner_steps=(0, 0), num_particles=1)
    started = align(model, ["a cat", "a dog"], "colourfulness", config=unmoved, start=file)
    nats = torch.stack([step.kl for step in started.trace]).sum(0)
    torch.testing.assert_close(method.nats(result.problem), nats, rtol=1e-3, atol=1e-6)
    assert bool((nats > 0).all())
    with pytest.raises(NullTTAError, match=rf"no file of form '{form}' for 'jpeg' was given \(--fitted\)"):
        arm(name, 0, "", replace(task, target="jpeg"))


def test_each_regulariser_is_left_out_at_the_tuned_weight_of_the_other() -> None:
    task = replace(TASK, settings={"null-tta": {"kl_weight": 0.008}})
    weights = {name: NullTTAConfig(**arm(name, 60, "", task).config).weights[1:] for name in ABLATIONS}
    assert weights["no-consistency"] == (0.0, 0.008)
    assert weights["no-prior"] == (0.008, 0.0)
    assert weights["no-regulariser"] == (0.0, 0.0)
