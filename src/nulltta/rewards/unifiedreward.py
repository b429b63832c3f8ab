"""UnifiedReward 2.0 (Wang et al., arXiv 2503.05236): a vision-language model writes how well the image shows the
prompt, how coherent it is and how good its style, from 1 to 5 each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.errors import LoadError
from nulltta.rewards import vision_language
from nulltta.rewards.qwen_vl import QwenVL
from nulltta.rewards.request import RewardRequest

HUB = "CodeGoat24/UnifiedReward-2.0-qwen3vl-8b"
QUESTION = Path(__file__).with_name("unifiedreward_question.txt").read_text(encoding="utf-8")
"""What the model is asked, word for word as in the package `diffsynth` (2.1.12, Apache-2.0)."""
AXES = ("Alignment Score (1-5): ", "\nCoherence Score (1-5): ", "\nStyle Score (1-5): ")
"""What precedes each number of the answer."""
GUESS = ("3", "3", "3")
_END = ""  # what a number ends with, among the characters that may follow
_ALLOWED: tuple[tuple[str, ...], ...] = (tuple("12345"), (".", _END), tuple("0123456789"), (*"0123456789", _END))
"""The characters that a number's first, second, ... character may be: at most two decimals."""


class Choice(NamedTuple):
    """A token of an answer that the model was free to choose.

    Attributes:
        axis: the number that it belongs to.
        character: which of the number's characters it is.
        place: its index in the answer.
    """

    axis: int
    character: int
    place: int


class UnifiedReward(Reward):
    """The mean of the three scores that the model expects to write, (B,), about 1 to 5.

    The model's answer is decoded greedily in the form that it is asked for, and each digit of the answer counts as its
    expectation over the probabilities of all digits in its place, in place of the digit that was written. So the score
    is differentiable where the answer stays the same, and has small steps where it changes.

    The answer given last for a prompt is the first guess: one pass of the network shows whether it is still what greedy
    decoding would write, and each wrong token takes one more.

    Raises:
        LoadError: if the tokenizer cuts a digit, the point or the beginning of a line into several tokens.
    """

    def __init__(self, model: QwenVL, name: str = "unifiedreward") -> None:
        self.name, self.model = name, model
        self.labels = [model.tokens(label) for label in AXES]
        self.symbols = {character: model.token(character) for character in "0123456789."}
        self._answers: dict[str, tuple[str, ...]] = {}

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        answers = [self._answers.get(prompt, GUESS) for prompt in prompts]
        logits = self._logits(images, prompts, answers)  # per prompt (choices, vocabulary)
        for _ in range(len(AXES) * len(_ALLOWED)):  # each corrects one character of every answer that is not right yet
            found = [self._corrected(answer, own) for answer, own in zip(answers, logits, strict=True)]
            if found == answers:
                break
            answers, logits = found, self._logits(images, prompts, found)
        self._answers |= dict(zip(prompts, answers, strict=True))
        scores = [self._expected(answer, own) for answer, own in zip(answers, logits, strict=True)]
        return torch.stack(scores).to(images.device)

    def _logits(self, images: Tensor, prompts: Sequence[str], answers: Sequence[tuple[str, ...]]) -> list[Tensor]:
        """Return the logits of each answer's choices, (choices, vocabulary)."""
        rows, backs = [], []
        for prompt, answer in zip(prompts, answers, strict=True):
            tokens, choices = self._written(answer)
            rows.append(
                torch.cat([self.model.conversation(QUESTION.replace("{text_prompt}", prompt), prompt), tokens[:-1]])
            )
            backs.append(torch.tensor([len(tokens) - 1 - choice.place for choice in choices]))
        back = nn.utils.rnn.pad_sequence(backs, batch_first=True)
        logits = self.model.outputs_before_end(images, rows, back)
        return [own[: len(each)] for own, each in zip(logits, backs, strict=True)]

    def _written(self, answer: Sequence[str]) -> tuple[Tensor, list[Choice]]:
        """Return the tokens of three numbers as the model would write them, with its end, and the choices in them."""
        tokens: list[int] = []
        choices = []
        for axis, number in enumerate(answer):
            tokens += self.labels[axis]
            for character in range(min(len(number) + 1, len(_ALLOWED))):
                choices.append(Choice(axis, character, len(tokens) + character))
            tokens += [self.symbols[character] for character in number]
        return torch.tensor([*tokens, self._after(len(AXES) - 1)]), choices

    def _after(self, axis: int) -> int:
        """Return the token that ends a number: the next line's first, or the end of the turn."""
        return self.labels[axis + 1][0] if axis + 1 < len(AXES) else self.model.end

    def _options(self, choice: Choice) -> dict[str, int]:
        """Return the characters that the model may choose, and their tokens."""
        after = self._after(choice.axis)
        return {each: after if each == _END else self.symbols[each] for each in _ALLOWED[choice.character]}

    def _choices(self, answer: Sequence[str], logits: Tensor) -> Iterator[tuple[Choice, str, Tensor]]:
        """Yield each choice, the character that the answer has there, and its logits (vocabulary,)."""
        for choice, own in zip(self._written(answer)[1], logits, strict=True):
            number = answer[choice.axis]
            yield choice, number[choice.character] if choice.character < len(number) else _END, own

    def _corrected(self, answer: tuple[str, ...], logits: Tensor) -> tuple[str, ...]:
        """Return the answer with the first character that greedy decoding would not write replaced."""
        for choice, written, own in self._choices(answer, logits):
            options = self._options(choice)
            best = max(options, key=dict(zip(options, own[[*options.values()]].tolist(), strict=True)).__getitem__)
            if best != written:
                number = answer[choice.axis][: choice.character] + best
                numbers = list(answer)
                numbers[choice.axis] = number + "5" if best == "." else number
                return tuple(numbers)
        return answer

    def _expected(self, answer: Sequence[str], logits: Tensor) -> Tensor:
        """Return the mean of the numbers, each digit replaced by its expectation."""
        total = logits.new_zeros(())
        for choice, written, own in self._choices(answer, logits):
            if written.isdecimal():
                digits = {int(each): token for each, token in self._options(choice).items() if each != _END}
                values = torch.tensor([*digits]).to(own)
                power = 10.0 ** -max(choice.character - 1, 0)
                total = total + power * (own[[*digits.values()]].softmax(0) * values).sum()
        return total / len(AXES)


def load(request: RewardRequest) -> UnifiedReward:
    """Load UnifiedReward as `save_pretrained` of a Qwen-VL model and its processor leave it.

    Raises:
        LoadError: if the model is of another class, or if a file is missing or damaged.
    """
    model = vision_language.load_model(request, HUB)
    if not isinstance(model, QwenVL):
        raise LoadError(f"reward '{request.name}': '{request.source}' is not a Qwen-VL model, as UnifiedReward is")
    return UnifiedReward(model, request.name)
