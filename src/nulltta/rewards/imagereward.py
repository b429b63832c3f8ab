"""ImageReward (Xu et al., arXiv 2304.05977): BLIP reads the prompt while it sees the image, and an MLP scores it."""

from __future__ import annotations

from nulltta.rewards.blip_reward import BlipReward, load_blip_reward
from nulltta.rewards.request import RewardRequest

HUB, FILE = "THUDM/ImageReward", "ImageReward.pt"
MEAN, DEVIATION = 0.16717362830052426, 1.0333394966054072
LENGTH = 35  # tokens


def load(request: RewardRequest) -> BlipReward:
    """Load ImageReward.pt, with BERT's tokenizer from the same directory or from the hub.

    Its scores have mean 0 and deviation 1 over its authors' images. It is differentiable here, whereas the official
    package computes it without gradient.

    Raises:
        LoadError: if the file is missing, damaged, or not such a checkpoint.
    """
    return load_blip_reward(request, HUB, (FILE,), "an ImageReward", length=LENGTH, mean=MEAN, deviation=DEVIATION)
