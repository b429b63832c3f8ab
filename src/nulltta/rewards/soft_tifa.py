"""Soft-TIFA (Kamath et al., GenEval 2, arXiv 2512.16853): how surely a vision-language model answers questions about
the prompt right."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue, LoadError, first_line
from nulltta.rewards import vision_language
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.vision_language import VisionLanguageModel

HUB = "Qwen/Qwen3-VL-8B-Instruct"
QUESTION = "{} Answer in one word."
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
Atoms = Mapping[str, Sequence[tuple[str, str]]]
"""Questions and their right answers, by prompt."""


class SoftTifa(Reward):
    """The mean over a prompt's questions of the probability of the right answer, (B,) in [0, 1].

    The probability of an answer is that of its first token, summed over its spellings (with a capital, after a space, a
    number in digits or as a word).

    Args:
        model: answers the questions, all of a batch at once.
        atoms: the questions and answers of every prompt that will be scored.
        name: the reward's name.
        geometric: whether the mean is geometric, so that one wrong answer makes the score small, or arithmetic.
    """

    def __init__(self, model: VisionLanguageModel, atoms: Atoms, name: str, *, geometric: bool) -> None:
        self.model, self.atoms, self.name, self.geometric = model, atoms, name, geometric
        answers = {answer for pairs in atoms.values() for _, answer in pairs}
        self.tokens = {answer: _tokens(model, answer) for answer in sorted(answers)}

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (B,).

        Raises:
            InvalidValue: if a prompt has no questions.
        """
        if unknown := [prompt for prompt in prompts if prompt not in self.atoms]:
            raise InvalidValue(f"reward '{self.name}' has no questions about '{unknown[0]}'")
        counts = [len(self.atoms[prompt]) for prompt in prompts]
        pairs = [pair for prompt in prompts for pair in self.atoms[prompt]]
        repeated = images.repeat_interleave(torch.tensor(counts, device=images.device), 0)
        logits = self.model.logits(repeated, [QUESTION.format(question) for question, _ in pairs])
        logs = logits.log_softmax(-1)  # (questions, vocabulary)
        right = torch.stack([logs[i, self.tokens[answer]].logsumexp(0) for i, (_, answer) in enumerate(pairs)])
        rows = torch.split(right, counts)
        means = [row.mean().exp() if self.geometric else row.exp().mean() for row in rows]
        return torch.stack(means).to(images.device)


def load(request: RewardRequest) -> SoftTifa:
    """Load the questions and the model that answers them.

    The source is a JSONL file of questions, or "FILE.jsonl@MODEL" with a model that `vision_language.load_model` loads.
    The name "soft-tifa" takes the geometric mean, "soft-tifa-mean" the arithmetic one.

    Raises:
        InvalidValue: if the source is not such a file.
        LoadError: if the model cannot be loaded, or an answer is not a single token in any spelling.
    """
    file, at, model = str(request.source or "").partition(".jsonl@")
    path = Path(f"{file}.jsonl" if at else file).expanduser()
    if path.suffix != ".jsonl":
        raise InvalidValue(f"{request.name} takes a file of questions, as in {request.name}:atoms.jsonl, not '{path}'")
    atoms = read_atoms(path)
    answering = vision_language.load_model(replace(request, source=model or None), HUB)
    return SoftTifa(answering, atoms, request.name, geometric=request.name == "soft-tifa")


def read_atoms(path: Path) -> Atoms:
    """Read questions in GenEval 2's format: lines {"prompt": ..., "vqa_list": [[question, answer], ...]}.

    Raises:
        InvalidValue: if the file cannot be read, or if a line, which is named, is of another form.
    """
    found: dict[str, list[tuple[str, str]]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidValue(f"cannot read questions from '{path}': {first_line(error)}") from error
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            pairs = [(str(question), str(answer)) for question, answer in row["vqa_list"]]
            prompt = row["prompt"]
        except (ValueError, LookupError, TypeError) as error:
            raise InvalidValue(f"'{path}' line {number} lacks its prompt or a vqa_list of pairs") from error
        if not pairs or not isinstance(prompt, str):
            raise InvalidValue(f"'{path}' line {number} lacks its prompt or a vqa_list of pairs")
        found[prompt] = pairs
    return found


def _tokens(model: VisionLanguageModel, answer: str) -> list[int]:
    """Return the tokens with which an answer can begin, one for each spelling that is a single token."""
    spellings = {answer, answer.lower(), answer.capitalize()}
    if answer.lower() in NUMBERS:
        spellings.add(str(NUMBERS.index(answer.lower())))
    elif answer.isdecimal() and int(answer) < len(NUMBERS):
        spellings |= {NUMBERS[int(answer)], NUMBERS[int(answer)].capitalize()}
    found = set()
    for spelling in sorted(spellings | {f" {each}" for each in spellings}):
        try:
            found.add(model.token(spelling))
        except LoadError:
            continue
    if not found:
        raise LoadError(f"the answer '{answer}' is not a single token of the model in any spelling")
    return sorted(found)
