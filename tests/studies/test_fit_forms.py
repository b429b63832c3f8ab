"""The studies of fitted null texts: which prompts they use, their costs, their tables and their statistics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from nulltta.embedded import grammar


def test_no_prompt_is_both_trained_and_tested_on(study: Callable[[str], ModuleType], tmp_path: Path) -> None:
    forms = study("fit_forms")
    _, train, _, validate = forms.write_prompts(tmp_path, "embedded", 4000)
    training, validation = (Path(file).read_text().splitlines() for file in (train, validate))
    tested = grammar.test_prompts(150)  # more than the benchmark reports
    assert len({*training, *validation, *tested}) == 4000 + 48 + 150
    kinds = [(len(facts.objects), facts.count) for facts in map(grammar.parse, validation)]
    assert {(1, 1), (1, 2), (1, 3), (2, 2)} == set(kinds)


def test_no_arm_exceeds_its_budget(study: Callable[[str], ModuleType]) -> None:
    forms = study("fit_forms")
    assert [forms.cost(name) for name in ("plain", "fitted: prompt", "best of 4")] == [50, 50, 200]
    assert all(f"null-tta, 400, from fitted: {next(iter(fits))}" in forms.arms(of) for of, fits in forms.FITS.items())
    for budget in forms.CANDIDATES:
        for name in (f"null-tta, {budget}", f"null-tta, {budget}, from fitted: prompt"):
            assert budget - 3 < forms.cost(name) <= budget


def test_gains_are_in_deviations_of_plain_sampling_over_prompts(study: Callable[[str], ModuleType]) -> None:
    forms = study("fit_forms")

    def arm(shift: float) -> dict[str, Any]:
        places = [(i, seed) for i in range(12) for seed in range(2)]
        return {
            "scores": {f"{i}/{seed}": {"clip": i + shift, "facts": i % 2} for i, seed in places},
            "features": {f"{i}/{seed}": [1.0, seed] for i, seed in places},
        }

    scratch, started = "null-tta, 200", "null-tta, 200, from fitted: prompt"
    printed = forms.tables({"plain": arm(0.0), "fitted: prompt": arm(3.6), scratch: arm(1.0), started: arm(4.6)})
    rows = [line.split(" | ") for line in printed.splitlines()]
    assert rows[0][:4] == ["|", "evaluations", "prompts", "clip"]
    size = 3.6 / np.std(np.arange(12), ddof=1)
    assert rows[2][:4] == ["| fitted: prompt", "50", "12", f"**+{size:.2f}** (+{size:.2f} to +{size:.2f})"]
    assert rows[2][4] == "+0.00 (+0.00 to +0.00)"
    assert rows[-1][0] == f"| {started}"
    assert rows[-1][3].startswith(f"**+{size:.2f}**")
    assert forms.by_prompt(arm(0.0))["vendi"][0] == pytest.approx(
        np.exp(-sum(x * np.log(x) for x in ((1 + 0.5**0.5) / 2, (1 - 0.5**0.5) / 2)))
    )


def test_a_direction_that_is_linear_in_the_prompt_is_found_by_the_regression_alone(
    study: Callable[[str], ModuleType],
) -> None:
    fit_directions = study("fit_directions")
    source = torch.Generator().manual_seed(0)
    features, shared = torch.randn(48 + 200, 8, generator=source), torch.randn(30, generator=source)
    unit = torch.nn.functional.normalize(shared + features @ torch.randn(8, 30, generator=source), dim=1)
    mean, ridge = (
        float(torch.nn.functional.cosine_similarity(rows, unit[:48]).mean())
        for rows in fit_directions.predicted(unit, features, 200).values()
    )
    assert ridge > 0.9 > mean + 0.2


def test_cosines_are_compared_by_kind_of_pair(study: Callable[[str], ModuleType]) -> None:
    shared = study("fit_shared")
    own, common = torch.eye(6)[:3, None].repeat(1, 2, 1), torch.zeros(3, 2, 6)
    common[:, 0, 4] = common[:, 1, 5] = 1.0  # a direction of each seed
    same_prompt, same_seed, other = shared.compared(shared.cosines(own + common)).values()
    assert same_prompt == pytest.approx((0.5, 0.5, 0.5))
    assert same_seed == pytest.approx((0.5, 0.5, 0.5))
    assert other == pytest.approx((0.0, 0.0, 0.0))


def test_a_row_of_a_fit_costs_two_evaluations_and_a_gradient(study: Callable[[str], ModuleType]) -> None:
    from nulltta.fit.settings import FitSettings

    price = {"denoiser": (1, 3), "decoder": (10, 30), "reward": (100, 300)}
    settings = FitSettings(updates=50, rows=4, pool=8, fresh=4, refresh_every=20, validate_every=25)
    assert study("fit_cost").projected(price, settings, 5) == {
        "updates": 50 * 4 * (2 + 3 + 30 + 300), "trajectories": (8 + 2 * 4) * 10, "validation": 48 * 3 * 120,
    }  # fmt: skip
