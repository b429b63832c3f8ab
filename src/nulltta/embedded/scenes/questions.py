"""Questions about a scene, and the scorer that asks them: the mean log-probability of the answers a prompt implies.

This is the idea of TIFA (arXiv 2303.11897) and of VQAScore (arXiv 2404.01291), with questions of three parts (what is
asked, a shape, and a colour or a second shape) in place of sentences.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nulltta.contracts import Reward

from ..networks import fit_pixels
from .grammar import RELATIONS, Claim, parse
from .networks import Answerer
from .shapes import COLOURS, SHAPES

KINDS = ("things", "of a shape", "of a shape and colour", "where")
"""What is asked: how many there are in all, of a shape, of a shape in a colour; where one lies from another."""
ANSWERS = (*range(6), *RELATIONS)
DETAILS = (*COLOURS, *SHAPES)
PARTS = (len(KINDS), len(SHAPES), len(DETAILS))


@dataclass(frozen=True, slots=True)
class Question:
    """A question and its answer.

    Attributes:
        kind: one of KINDS.
        shape: one of SHAPES; any for a question about all things.
        detail: a colour for "of a shape and colour", a shape for "where"; else any.
        answer: one of ANSWERS.
    """

    kind: str
    shape: str
    detail: str
    answer: int | str

    def numbers(self) -> tuple[int, int, int]:
        """Return the number of each part's choice."""
        return KINDS.index(self.kind), SHAPES.index(self.shape), DETAILS.index(self.detail)


def ask(claim: Claim) -> list[Question]:
    """Return the questions whose answers a claim states, one to six of them."""
    any_shape, any_detail = SHAPES[0], DETAILS[0]
    found = [Question("things", any_shape, any_detail, claim.number)]
    for group in claim.groups:
        found.append(Question("of a shape", group.shape, any_detail, group.number))
        if group.colour:
            found.append(Question("of a shape and colour", group.shape, group.colour, group.number))
    if claim.relation:
        found.append(Question("where", claim.groups[0].shape, claim.groups[1].shape, claim.relation))
    return found


def encode(questions: Sequence[Question]) -> tuple[Tensor, Tensor]:
    """Return questions (Q, 3) and answers (Q,) as numbers."""
    asked = torch.tensor([question.numbers() for question in questions])
    return asked, torch.tensor([ANSWERS.index(question.answer) for question in questions])


class QuestionScorer(Reward):
    """The mean log-probability of the answers that a prompt implies, differentiable in the images.

    Args:
        name: the reward's name.
        model: the network; its parameters are frozen.
    """

    def __init__(self, name: str, model: Answerer) -> None:
        self.name = name
        self.model = model.eval().requires_grad_(False)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score images (B, 3, H, W) in [0, 1] for their B prompts: (B,), 0 or less.

        Raises:
            InvalidValue: if a prompt is outside the grammar.
        """
        place = next(self.model.parameters())
        asked = [encode(ask(parse(prompt))) for prompt in prompts]
        most = max(len(answers) for _, answers in asked)
        questions = torch.stack([_repeat(numbers, most) for numbers, _ in asked]).to(place.device)
        answers = torch.stack([_repeat(numbers, most) for _, numbers in asked]).to(place.device)
        stated = torch.tensor([len(numbers) for _, numbers in asked], device=place.device)
        logits = self.model(fit_pixels(images).to(place), questions).float().log_softmax(-1)
        chosen = logits.gather(-1, answers[..., None])[..., 0]
        inside = torch.arange(most, device=place.device) < stated[:, None]
        means: Tensor = (chosen * inside).sum(1) / stated
        return means


def _repeat(rows: Tensor, count: int) -> Tensor:
    """Lengthen a tensor to `count` rows by repeating its first."""
    return torch.cat([rows, rows[:1].expand(count - len(rows), *rows.shape[1:])])
