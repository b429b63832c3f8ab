"""Comparisons of plain and aligned sampling, and their measures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import rewards
from nulltta.embedded import grammar
from nulltta.evaluation.comparison import compare
from nulltta.evaluation.measures import facts


def test_scores_belong_to_their_images(model: nulltta.GuidedModel, config: nulltta.NullTTAConfig) -> None:
    brightness, colourfulness = rewards.load("brightness"), rewards.load("colourfulness")
    steps = []
    result = nulltta.align(model, ["a", "b"], brightness, config=config, seed=[3, 4], on_step=steps.append)
    found = compare(result, {"colourfulness": colourfulness})
    assert len(steps) == config.num_inference_steps
    assert [(c.prompt, c.seed) for c in found] == [("a", 3), ("b", 4)]
    for c in found:
        assert list(c.scores) == ["brightness", "colourfulness"]
        for name, measure in (("brightness", brightness), ("colourfulness", colourfulness)):
            images = torch.stack([c.plain, c.aligned])
            assert measure(images, ["", ""]).tolist() == pytest.approx([c.scores[name].plain, c.scores[name].aligned])
        assert c.scores["brightness"].aligned == pytest.approx(float(c.trace[-1].candidate_rewards.max()))
        assert not c.aligned.requires_grad


def test_each_prompt_has_its_own_trace(model: nulltta.GuidedModel, config: nulltta.NullTTAConfig) -> None:
    brightness = rewards.load("brightness")
    pair = compare(nulltta.align(model, ["a", "b"], brightness, config=config))
    [alone] = compare(nulltta.align(model, ["b"], brightness, config=config))
    assert pair[1].initial_rewards.tolist() == pytest.approx(alone.initial_rewards.tolist(), abs=1e-5)
    assert pair[0].initial_rewards.tolist() != pytest.approx(alone.initial_rewards.tolist(), abs=1e-5)
    for step, expected in zip(pair[1].trace, alone.trace, strict=True):
        assert step.inner_rewards.shape == (len(expected.inner_rewards), 1)
        assert torch.allclose(step.inner_rewards, expected.inner_rewards, atol=1e-5)
        assert torch.allclose(step.candidate_rewards, expected.candidate_rewards, atol=1e-5)
        assert (step.selected.tolist(), step.preview) == (expected.selected.tolist(), None)


def test_roles_are_in_order(model: nulltta.GuidedModel, config: nulltta.NullTTAConfig) -> None:
    total = rewards.load("0.5*brightness + z(colourfulness)")
    measures = {"brightness": rewards.load("jpeg"), "jpeg": rewards.load("jpeg")}
    [found] = compare(nulltta.align(model, ["a"], total, config=config), measures)
    assert {name: score.role for name, score in found.scores.items()} == {
        total.name: "target", "brightness": "component", "colourfulness": "component",
        "jpeg": "held out",
    }  # fmt: skip
    assert next(iter(found.scores)) == total.name
    for way in ("plain", "aligned"):
        image = getattr(found, way)[None]
        scores = {name: getattr(score, way) for name, score in found.scores.items()}
        for name in ("brightness", "colourfulness", "jpeg"):
            assert scores[name] == pytest.approx(float(rewards.load(name)(image, ["a"])), rel=1e-5)


class Judge:
    size = "cpu"

    def facts(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        for prompt in prompts:
            grammar.parse(prompt, self.size)
        return images.mean(dim=(1, 2, 3))


def test_a_measure_that_fails_is_named(model: nulltta.GuidedModel, config: nulltta.NullTTAConfig) -> None:
    def contrast(images: Tensor, prompts: Sequence[str]) -> Tensor:
        raise ZeroDivisionError("in the measure")

    result = nulltta.align(model, "a", "brightness", config=config, method="plain")
    with pytest.raises(nulltta.RewardError, match=r"^reward 'contrast' failed: ZeroDivisionError: in the measure$"):
        compare(result, {"contrast": contrast})


def test_facts_are_unknown_outside_the_grammar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nulltta.embedded.judge.load_judge", Judge)
    inside = grammar.test_prompts(1)[0]
    images = torch.tensor([0.25, 0.5, 0.75]).view(3, 1, 1, 1).expand(3, 3, 4, 4)
    shares = facts()(images, [inside, "a photo of Paris", inside]).tolist()
    assert shares[0::2] == [0.25, 0.75]
    assert math.isnan(shares[1])


def test_plain_sampling_that_runs_out_of_memory_is_out_of_memory(
    model: nulltta.GuidedModel, config: nulltta.NullTTAConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = nulltta.align(model, "a", "brightness", config=config)

    def exhausted(*_: object) -> Tensor:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(model, "predict", exhausted)
    with pytest.raises(nulltta.NullTTAError, match="out of memory"):
        _ = replace(result).baseline
