"""The contracts of a model, a reward and a method.

Images are float tensors (B, 3, H, W) with values in [0, 1] throughout the package. B counts prompts, K the candidates
("particles") of one prompt, N any batch of latents; C×h×w is the shape of a latent.
"""

from nulltta.contracts.method import OnStep, Outcome, Step, Stream
from nulltta.contracts.model import Embedding, GuidedModel, ModelWrapper, NoiseStep
from nulltta.contracts.reward import CleanLatents, LatentReward, Reward

__all__ = [
    "CleanLatents", "Embedding", "GuidedModel", "LatentReward", "ModelWrapper", "NoiseStep", "OnStep", "Outcome",
    "Reward", "Step", "Stream",
]  # fmt: skip
