"""LAION's aesthetic predictor v2 ("sac+logos+ava1-l14-linearMSE"): an MLP on the image features of CLIP ViT-L/14."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.rewards import checkpoint_files, clip, state_dict
from nulltta.rewards.dual_encoder import DualEncoder
from nulltta.rewards.mlp import Mlp, load_mlp
from nulltta.rewards.request import RewardRequest

HUB = "trl-lib/ddpo-aesthetic-predictor"  # a mirror: the authors publish the file in the repository of their code
FILES = ("aesthetic-model.safetensors", "sac+logos+ava1-l14-linearMSE.pth", "aesthetic-model.pth")


class Aesthetic(Reward):
    """How well people like the picture, (B,), about 1 to 10; the prompt is ignored.

    The MLP has no activations, so the score is affine in the unit image feature.
    """

    def __init__(self, encoder: DualEncoder, mlp: Mlp, name: str = "aesthetic") -> None:
        self.name, self.encoder, self.mlp = name, encoder, mlp

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.encoder.model, self.mlp)

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - ignores prompts
        scores: Tensor = self.mlp(self.encoder.image_features(images))[:, 0]
        return scores.to(images.device)


def load(request: RewardRequest) -> Aesthetic:
    """Load the MLP's file, and CLIP from the same directory if it has one, from its folder
    `clip-vit-large-patch14`, or from the hub.

    Raises:
        LoadError: if a file is missing or damaged, or if the MLP does not fit the CLIP.
    """
    path = checkpoint_files.find(request.source or HUB, FILES, reward=request.name, sha256=request.sha256)
    places = [path.parent, path.parent / "clip-vit-large-patch14"]
    home = next((str(place) for place in places if request.source and (place / "config.json").is_file()), clip.OPENAI)
    encoder = clip.load_encoder(request, home)
    mlp = load_mlp(
        state_dict.read(path), encoder.model.config.projection_dim,
        what=f"'{path}' is not an aesthetic MLP", device=request.device, dtype=request.dtype,
    )  # fmt: skip
    return Aesthetic(encoder, mlp, request.name)
