"""VQAScore (Lin et al., arXiv 2404.01291): how sure a vision-language model is that the image shows the prompt."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.rewards import vision_language
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.vision_language import VisionLanguageModel

HUB = "Qwen/Qwen2.5-VL-3B-Instruct"
QUESTION = 'Does this figure show "{}"? Please answer yes or no.'
ANSWER = "Yes"


class VQAScore(Reward):
    """The probability that the answer begins with "Yes", (B,) in [0, 1].

    The softmax is over the whole vocabulary, not over yes and no alone, so that the score is low too if the model would
    say something else.
    """

    def __init__(self, model: VisionLanguageModel, name: str = "vqascore") -> None:
        self.name, self.model = name, model
        self.answer = model.token(ANSWER)

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        logits = self.model.logits(images, [QUESTION.format(prompt) for prompt in prompts])  # (B, vocabulary)
        return logits.softmax(-1)[:, self.answer].to(images.device)


def load(request: RewardRequest) -> VQAScore:
    """Load VQAScore with any model that `vision_language.load_model` loads.

    Raises:
        LoadError: if the model is of another class, or if a file is missing or damaged.
    """
    return VQAScore(vision_language.load_model(request, HUB), request.name)
