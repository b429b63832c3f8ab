"""Soft-TIFA from a tiny checkpoint, against the probabilities of what `generate` gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from nulltta.errors import InvalidValue, LoadError
from nulltta.rewards import load

from .checkpoints import qwen_directory
from .official import answer_probability
from .pictures import picture, tensor

ATOMS = {
    "two red cats": [("How many cats are there?", "two"), ("Is the cat red?", "Yes"), ("Which letter?", "r")],
    "a dog": [("Is there a dog?", "Yes")],
}
ACCEPTED = {"two": ["2"], "Yes": ["Yes"], "r": ["r", "R"]}
"""The spellings that are single tokens of the tiny tokenizer."""
PROMPTS = list(ATOMS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = qwen_directory(tmp_path_factory.mktemp("qwen3"), "3")
    lines = [json.dumps({"prompt": prompt, "vqa_list": pairs, "skills": []}) for prompt, pairs in ATOMS.items()]
    (folder / "atoms.jsonl").write_text("\n".join(lines) + "\n\n")
    return folder


def _source(folder: Path) -> str:
    return f"{folder / 'atoms.jsonl'}@{folder}"


@pytest.mark.parametrize("name", ["soft-tifa", "soft-tifa-mean"])
def test_the_score_is_the_mean_probability_of_the_right_answers(folder: Path, name: str) -> None:
    pictures = [picture(96, 128, seed) for seed in range(2)]
    reward = load(name, _source(folder), device="cpu")
    ours = reward(torch.cat([tensor(image) for image in pictures]), PROMPTS)
    for i, prompt in enumerate(PROMPTS):
        each = torch.stack(
            [answer_probability(folder, pictures[i], question, ACCEPTED[answer]) for question, answer in ATOMS[prompt]]
        )
        expected = each.log().mean().exp() if name == "soft-tifa" else each.mean()
        torch.testing.assert_close(ours[i], expected, rtol=1e-4, atol=1e-8)
    assert (reward.name, reward.differentiable, ours.dtype) == (name, True, torch.float32)


@pytest.mark.parametrize("name", ["soft-tifa", "soft-tifa-mean"])
def test_the_gradient_to_the_pixels_matches_finite_differences(folder: Path, name: str) -> None:
    """To 1e-3: the language model's RMS norms are float32 inside, whatever the model's dtype."""
    reward = load(name, _source(folder), device="cpu", dtype=torch.float64)
    images = torch.cat([tensor(picture(90, 100, seed), torch.float64) for seed in range(2)]) * 0.4 + 0.3
    (gradient,) = torch.autograd.grad(reward(images.requires_grad_(), PROMPTS).log().sum(), images)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    direction = noise + 200 * gradient / gradient.norm()  # so that rounding is small beside the slope
    step = 1e-5
    with torch.no_grad():
        ends = [reward(images + sign * step * direction, PROMPTS).log().sum() for sign in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-6)


def test_a_prompt_without_questions_is_refused(folder: Path) -> None:
    reward = load(f'soft-tifa:"{_source(folder)}"', device="cpu")
    with pytest.raises(InvalidValue, match="has no questions about 'a horse'"):
        reward(tensor(picture(96, 128)), ["a horse"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "line 1 lacks its prompt or a vqa_list of pairs"),
        ('{"prompt": "a", "vqa_list": [["q", "a"]]}\n{"prompt": "b"}', "line 2 lacks"),
        ('{"prompt": "a", "vqa_list": []}', "line 1 lacks"),
        ('{"prompt": "a", "vqa_list": [["q", "a", "b"]]}', "line 1 lacks"),
        ('["prompt", "vqa_list"]', "line 1 lacks"),
    ],
)
def test_malformed_lines_are_named(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "atoms.jsonl").write_text(text)
    with pytest.raises(InvalidValue, match=says):
        load("soft-tifa", tmp_path / "atoms.jsonl", device="cpu")


def test_unusable_files_and_answers_are_named(folder: Path, tmp_path: Path) -> None:
    for source in (None, "org/model", tmp_path):
        with pytest.raises(InvalidValue, match=r"takes a file of questions, as in soft-tifa:atoms\.jsonl"):
            load("soft-tifa", source, device="cpu")
    with pytest.raises(InvalidValue, match="cannot read questions from"):
        load("soft-tifa", tmp_path / "none.jsonl", device="cpu")
    line: dict[str, Any] = {"prompt": "a", "vqa_list": [["Which animal?", "zebra"]]}
    (tmp_path / "atoms.jsonl").write_text(json.dumps(line))
    with pytest.raises(LoadError, match="the answer 'zebra' is not a single token of the model in any spelling"):
        load("soft-tifa", f"{tmp_path / 'atoms.jsonl'}@{folder}", device="cpu")
