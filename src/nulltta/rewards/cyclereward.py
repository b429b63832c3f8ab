"""CycleReward (Bahng et al., arXiv 2506.02095): the architecture of ImageReward, trained on preferences by cycle
consistency: how well a text made from the image, or an image made from the text, leads back."""

from __future__ import annotations

from torch import nn

from nulltta.rewards.blip_reward import BlipReward, load_blip_reward
from nulltta.rewards.request import RewardRequest

HUB = "NagaSaiAbhinay/CycleReward-Combo"  # a mirror: the authors publish the file in the repository of their code
FILES = ("CycleReward-Combo.pth", "model.safetensors", "pytorch_model.bin")
LENGTH = 128  # tokens


def load(request: RewardRequest) -> BlipReward:
    """Load a CycleReward checkpoint, with BERT's tokenizer from the same directory or from the hub.

    Scores are those of the authors' package `cyclereward`, which are not normalised.

    Raises:
        LoadError: if the file is missing, damaged, or not such a checkpoint.
    """
    return load_blip_reward(request, HUB, FILES, "a CycleReward", length=LENGTH, between=nn.GELU)
