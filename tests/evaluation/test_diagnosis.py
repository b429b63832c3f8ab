"""The diagnosis of hacking: each of its numbers in closed form, and its verdicts on made-up evidence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import InvalidValue
from nulltta.contracts import GuidedModel
from nulltta.evaluation.comparison import Score
from nulltta.evaluation.diagnosis import diagnosis_of, joint_fall, surviving_share
from nulltta.evaluation.evidence import Picture, pixel_features
from nulltta.evaluation.measures import vendi_score
from nulltta.evaluation.perturbations import PERTURBATIONS, compressed, noisy, resized, shifted

SETTINGS = {"kl_weight": 0.002, "kl_target": None}


def pictures(
    gains: Mapping[str, Sequence[float]], survives: float = 1.0, prompts: Sequence[str] | None = None
) -> list[Picture]:  # fmt: skip
    """Evidence in which measure m of picture i goes from i (the spread of six pictures is 1.87) to i + gains[m][i]."""
    count = len(next(iter(gains.values())))
    found = []
    for i in range(count):
        roles = ["target", *["held out"] * (len(gains) - 1)]
        scores = {
            name: Score(float(i), i + each[i], role)  # type: ignore[arg-type]
            for (name, each), role in zip(gains.items(), roles, strict=True)
        }
        after = Score(float(i), i + survives * next(iter(gains.values()))[i])
        features = np.eye(count)[i]
        prompt = prompts[i] if prompts else f"prompt {i}"
        found.append(Picture(prompt, scores, {"a resize": after}, Score(0.1, 0.1), (features, np.eye(count)[0])))
    return found


def test_the_joint_fall_counts_pictures_that_rise_and_fall_by_more_than_the_spread() -> None:
    target = np.array([[0, 1], [0, 1], [0, -1], [0, 1], [0, 1]], dtype=float)
    plain = np.array([1.0, 2.0, 3.0, 4.0, math.nan])
    spread = np.std([1, 2, 3, 4], ddof=1)
    falls = spread + np.array([0.1, -0.1, 0.1, 0.1, 0.1])
    assert joint_fall(target, np.stack([plain, plain - falls], 1)) == 2 / 4
    assert math.isnan(joint_fall(target, np.full((5, 2), math.nan)))


def test_the_surviving_share_is_a_ratio_of_means() -> None:
    before = np.array([1.0, 2.0, 3.0, 4.0])
    assert surviving_share(before, before / 4, np.random.default_rng(0)) == pytest.approx((0.25, 0.25, 0.25))
    share, low, high = surviving_share(before, np.array([4.0, 3.0, 2.0, 1.0]), np.random.default_rng(0))
    assert low < share == 1.0 < high


def test_the_vendi_score_counts_what_differs() -> None:
    assert vendi_score(np.eye(4)) == pytest.approx(4)
    assert vendi_score(np.tile([0.6, 0.8], (5, 1))) == pytest.approx(1)
    assert vendi_score(np.repeat(np.eye(2), 3, axis=0)) == pytest.approx(2)


@pytest.mark.parametrize("name", PERTURBATIONS)
def test_a_perturbation_is_small_and_treats_every_image_alike(name: str) -> None:
    smooth = torch.linspace(0, 1, 24).expand(2, 3, 24, 24) * torch.tensor([0.5, 1.0]).view(2, 1, 1, 1)
    changed = PERTURBATIONS[name](smooth)
    assert changed.shape == smooth.shape
    assert 0 < (changed - smooth).abs().mean() < 0.03
    torch.testing.assert_close(changed[1:], PERTURBATIONS[name](smooth[1:]))


def test_the_perturbations_are_what_they_say() -> None:
    ramp = torch.arange(8.0).expand(1, 3, 8, 8) / 8
    torch.testing.assert_close(shifted(ramp)[..., :-1], ramp[..., :-1] + 0.5 / 8)
    grey = torch.full((1, 3, 64, 64), 0.5)
    torch.testing.assert_close(resized(grey), grey)
    assert float((noisy(grey) - grey).std()) == pytest.approx(0.02, rel=0.05)
    checks = (torch.arange(64)[:, None] + torch.arange(64)) % 2 * torch.ones(1, 3, 64, 64)
    assert float(compressed(checks).std()) > 0.4  # JPEG 85 keeps even this
    assert float(shifted(checks)[..., :-1, :-1].std()) == 0


def test_held_out_falls_are_hacking_whether_large_on_average_or_common() -> None:
    found = diagnosis_of(pictures({"r": [1, 2, 1, 2, 1, 2], "h": [-3, -2, -3, -2, -3, -2]}), SETTINGS)
    assert found.verdict.kind == "hacked"
    assert "r rose, but h fell" in found.verdict.sentence
    assert "h fell by 2.500" in found.verdict.reasons[0]
    assert "a sum with a reward that sees what fell (h)" in found.verdict.advice[0]
    assert "kl_target 2" in found.verdict.advice[1]
    assert found.verdict.advice[2].endswith("kl_weight 0.02")
    assert found.measures[1].joint_fall == 1.0
    bounded = diagnosis_of(pictures({"r": [1.0] * 6, "h": [-3.0] * 6}), {**SETTINGS, "kl_target": 2.0})
    assert bounded.verdict.advice[1] == "halve the bound: kl_target 1"


def test_a_gain_that_a_small_change_removes_is_hacking_although_nothing_fell() -> None:
    found = diagnosis_of(pictures({"r": [1, 2, 1, 2, 1, 2], "h": [0.1] * 6}, survives=0.2), SETTINGS)
    assert found.verdict.kind == "hacked"
    assert found.verdict.reasons == ["after a resize, 20% of the gain is left (20% to 20%)"]


@pytest.mark.parametrize(
    ("gains", "kind"),
    [
        ({"r": [1.0] * 6, "h": [-0.1, -0.2, -0.1, -0.2, -0.1, -0.2]}, "at a price"),
        ({"r": [1.0] * 6, "h": [0.1, -0.1, 0.2, -0.2, 0.3, 0.1]}, "sound"),
        ({"r": [1.0, -1.0, 0.5, -0.6, 0.2, -0.1], "h": [-3.0] * 6}, "not raised"),
        ({"r": [1.0] * 6}, "undecided"),
        ({"r": [1.0] * 6, "h": [math.nan] * 6}, "undecided"),
    ],
)
def test_the_other_verdicts(gains: dict[str, list[float]], kind: str) -> None:
    found = diagnosis_of(pictures(gains), SETTINGS)
    assert found.verdict.kind == kind
    assert found.verdict.sentence.endswith(".")
    assert found.verdict.advice


def test_components_of_the_target_do_not_count_as_held_out() -> None:
    evidence = pictures({"r": [1.0] * 6, "h": [-3.0] * 6})
    parts = [
        Picture(p.prompt, {**p.scores, "h": Score(p.scores["h"].plain, p.scores["h"].aligned, "component")},
                p.target_after, p.texture, p.features)
        for p in evidence
    ]  # fmt: skip
    assert diagnosis_of(parts, SETTINGS).verdict.kind == "undecided"


def test_seeds_of_a_prompt_are_averaged_and_their_diversity_is_measured() -> None:
    names = [f"prompt {i // 2}" for i in range(12)]
    found = diagnosis_of(pictures({"r": [1.0, 3.0] * 6, "h": [0.0] * 12}, prompts=names), SETTINGS)
    assert (found.pictures, found.unit) == (12, "prompts")
    assert found.target.gain is not None
    assert (found.target.gain.n, found.target.gain.low, found.target.gain.high) == (6, 2.0, 2.0)
    assert found.diversity == pytest.approx((2.0, 1.0))
    alone = diagnosis_of(pictures({"r": [1.0] * 6, "h": [0.0] * 6}, prompts=["a"] * 6), SETTINGS)
    assert alone.unit == "seeds"
    assert alone.diversity == pytest.approx((6.0, 1.0))


@pytest.mark.parametrize(("prompts", "says"), [(None, "5 prompts are too few"), (["a"] * 5, "5 seeds are too few")])
def test_too_few_pictures_are_refused_and_the_number_needed_is_said(prompts: Any, says: str) -> None:
    with pytest.raises(InvalidValue, match=f"{says}.*align 6 or more"):
        diagnosis_of(pictures({"r": [1.0] * 5}, prompts=prompts), SETTINGS)


def test_a_result_is_diagnosed_with_other_rewards(model: GuidedModel, config: nulltta.NullTTAConfig) -> None:
    def mean_red(images: Tensor, prompts: Sequence[str]) -> Tensor:
        return images[:, 0].mean((1, 2)) + 0 * len(prompts)

    result = nulltta.align(model, ["a cat"] * 6, mean_red, config=config, seed=range(6))
    found = nulltta.diagnose(result, against=["brightness", mean_red])
    assert [(each.name, each.role) for each in found.measures] == [("mean_red", "target"), ("brightness", "held out")]
    assert found.target.gain is not None
    assert found.target.gain.mean == pytest.approx(float((result.rewards - result.baseline_rewards).mean()), abs=1e-6)
    assert [each.perturbation for each in found.survival] == list(PERTURBATIONS)
    assert found.diversity is not None
    assert all(1 <= each <= 6 for each in found.diversity)
    with pytest.raises(InvalidValue, match="different rewards"):
        nulltta.diagnose([result, nulltta.align(model, "a", "brightness", config=config)])


def test_pixel_features_tell_colours_apart() -> None:
    images = torch.stack([torch.zeros(3, 20, 30), torch.ones(3, 20, 30)])
    assert pixel_features(images).shape == (2, 192)
    assert torch.cosine_similarity(*pixel_features(images)[:, None]).item() == pytest.approx(-1)
