"""Aesthetic predictor v2.5 (discus0434, 2024): an MLP on the image features of SigLIP so400m."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.errors import LoadError
from nulltta.rewards import checkpoint_files, state_dict
from nulltta.rewards.dual_encoder import unit
from nulltta.rewards.mlp import Mlp, load_mlp
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.sharing import shared

SIGLIP, FILE = "google/siglip-so400m-patch14-384", "aesthetic_predictor_v2_5.pth"
_IGNORED = ("embeddings.position_ids",)


class AestheticV25(Reward):
    """How well people like the picture, (B,), about 1 to 10 (5.5 and more is good); the prompt is ignored.

    The MLP has no activations, so the score is affine in the unit image feature.
    """

    def __init__(self, model: nn.Module, mlp: Mlp, preprocess: Preprocess, name: str = "aesthetic-v2.5") -> None:
        self.name, self.model, self.mlp, self.preprocess = name, model, mlp, preprocess

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.model, self.mlp)

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - ignores prompts
        weight = next(self.model.parameters())
        pixels = self.preprocess(images.to(weight.device)).to(weight.dtype)
        scores: Tensor = self.mlp(unit(self.model(pixel_values=pixels).pooler_output))[:, 0]
        return scores.to(images.device)


def load(request: RewardRequest) -> AestheticV25:
    """Load the MLP's file, and SigLIP from the same directory if it has one, or from the hub.

    The authors publish the MLP in the repository of their code, not on the hub, so that a source is needed.

    Raises:
        LoadError: if a file is missing or damaged, or if the MLP does not fit the SigLIP.
    """
    name = request.name
    if request.source is None:
        raise LoadError(f"reward '{name}' needs {FILE} of its authors' repository: give source=, a file or directory")
    path = checkpoint_files.find(request.source, (FILE,), reward=name, sha256=request.sha256)
    home = str(path.parent) if (path.parent / "config.json").is_file() else SIGLIP
    encoder = checkpoint_files.find(home, checkpoint_files.WEIGHTS, reward=name)
    settings = checkpoint_files.read_json(home, "config.json", reward=name)
    if settings.get("model_type") not in ("siglip", "siglip_vision_model"):
        raise LoadError(f"reward '{name}': '{home}' is a {settings.get('model_type')} model, not a SigLIP")
    model = shared(encoder, request.device, request.dtype, lambda: _vision_model(encoder, home, settings, request))
    state = {key.replace("scoring_head.", "layers."): value for key, value in state_dict.read(path).items()}
    mlp = load_mlp(
        state, model.config.hidden_size,
        what=f"'{path}' is not an aesthetic MLP", device=request.device, dtype=request.dtype,
    )  # fmt: skip
    return AestheticV25(model, mlp, Preprocess.from_config(checkpoint_files.image_processor(home, reward=name)), name)


def _vision_model(path: Path, home: str, settings: dict[str, Any], request: RewardRequest) -> Any:
    """Load the image encoder of a SigLIP, without its text encoder."""
    from transformers import SiglipVisionConfig, SiglipVisionModel

    config = SiglipVisionConfig.from_dict(settings.get("vision_config", settings))
    state = state_dict.read(*checkpoint_files.shards(path, home, reward=request.name))
    vision = {
        key.removeprefix("vision_model."): value
        for key, value in state.items()
        if not key.startswith(("text_model.", "logit_"))
    }
    return state_dict.fill(
        lambda: SiglipVisionModel(config), vision,
        what=f"'{path}' is not such a SigLIP", device=request.device, dtype=request.dtype, ignore=_IGNORED,
    )  # fmt: skip
