"""MPS, the Multi-dimensional Preference Score (Zhang et al., arXiv 2405.14705): CLIP ViT-H/14 whose image reads the
prompt through cross-attention, limited to the words that a condition asks about."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.errors import LoadError
from nulltta.rewards import checkpoint_files, state_dict
from nulltta.rewards.dual_encoder import unit
from nulltta.rewards.mps_network import CrossModel
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.sharing import shared

HUB, FILES = "RE-N-Y/mpsv1", ("model.safetensors",)
BASE = "laion/CLIP-ViT-H-14-laion2B-s32B-b79K"
"""The usual source of the configuration and the tokenizer."""
CONDITION = (
    "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, limbs, structure, instance, "
    "texture, quantity, attributes, position, number, location, word, things."
)
"""What the overall preference asks about, word for word as in the authors' code."""
LEAST = 0.01
"""The similarity to the condition, as a share of the largest, from which a token of the prompt is read."""
_IGNORED = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


class Mps(Reward):
    """The cosine of the prompt and of the image that has read it, times the logit scale (about 100), (B,).

    The authors divide a token's similarity to the condition by the largest of the batch, here by the largest of its own
    prompt, so that a score does not depend on the batch.
    """

    def __init__(self, reader: MpsReader, name: str = "mps") -> None:
        self.name, self.reader = name, reader
        self.scale = float(reader.clip.logit_scale.float().exp())

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.reader.clip, self.reader.cross)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        tokens, masks, texts = (torch.stack(parts) for parts in zip(*map(self.reader.prompt, prompts), strict=True))
        return (self.scale * (self.reader.image(images, tokens, masks) * texts).sum(-1)).to(images.device)


class MpsReader:
    """CLIP and the cross-attention. What is computed of a prompt alone is kept.

    Args:
        clip: transformers' `CLIPModel`.
        cross: lets image tokens attend to those of the prompt.
        tokenize: a prompt -> token ids (1, n), padded to the text encoder's length; its end token has the highest id.
        device: where the networks are.
    """

    def __init__(self, clip: Any, cross: CrossModel, tokenize: Callable[[str], Tensor], device: torch.device) -> None:
        self.clip, self.cross, self.tokenize, self.device = clip, cross, tokenize, device
        self.dtype: torch.dtype = next(clip.parameters()).dtype
        side = clip.config.vision_config.image_size
        self.preprocess = Preprocess((side, side), clamp=False, half="round")  # torchvision's, of float tensors
        self._prompts: dict[str, tuple[Tensor, Tensor, Tensor]] = {}

    def image(self, images: Tensor, tokens: Tensor, masks: Tensor) -> Tensor:
        """Return the unit features (B, F) of images (B, 3, H, W) in [0, 1] that have read their prompts."""
        pixels = self.preprocess(images.to(self.device)).to(self.dtype)
        seen = self.clip.visual_projection(self.clip.vision_model(pixel_values=pixels).last_hidden_state)
        return unit(self.cross(seen, tokens, masks)[:, 0])

    @torch.no_grad()
    def prompt(self, prompt: str) -> tuple[Tensor, Tensor, Tensor]:
        """Return a prompt's token features (n, F), which of them are read, (n,), and its own unit feature, (F,)."""
        if prompt not in self._prompts:
            tokens, pooled = self._encoded(prompt)
            asked, _ = self._encoded(CONDITION)
            similarity = (asked @ tokens.T).amax(0)  # (n,), of each token to the nearest of the condition's
            self._prompts[prompt] = tokens, similarity / similarity.max() > LEAST, unit(pooled[None])[0]
        return self._prompts[prompt]

    def _encoded(self, text: str) -> tuple[Tensor, Tensor]:
        """Encode a text: the projected features of its tokens (n, F) and of its end (F,)."""
        ids = self.tokenize(text).to(self.device)
        hidden = self.clip.text_model(input_ids=ids).last_hidden_state
        features: Tensor = self.clip.text_projection(hidden)[0]
        return features, features[int(ids[0].argmax())]


def load(request: RewardRequest) -> Mps:
    """Load the file of the package `imscore`, with the configuration and the tokenizer of the CLIP that it was made of
    from the same directory, if it has a config.json of a CLIP, or from the hub.

    Raises:
        LoadError: if a file is missing, damaged, or not such a checkpoint.
    """
    path = checkpoint_files.find(request.source or HUB, FILES, reward=request.name, sha256=request.sha256)
    return Mps(shared(path, request.device, request.dtype, lambda: _reader(path, request)), request.name)


def _reader(path: Path, request: RewardRequest) -> MpsReader:
    """Load both networks and the tokenizer."""
    from transformers import CLIPConfig, CLIPModel

    name, what = request.name, f"'{path}' is not MPS"
    home = str(path.parent) if _is_clip(path.parent, name) else BASE
    settings = checkpoint_files.read_json(home, "config.json", reward=name)
    if settings.get("model_type") != "clip":
        raise LoadError(f"reward '{name}': '{home}' is a {settings.get('model_type')} model, not a CLIP")
    words = checkpoint_files.tokenizer("CLIPTokenizer", [home], reward=name)
    config, state = CLIPConfig.from_dict(settings), state_dict.read(path)
    clip = state_dict.fill(
        lambda: CLIPModel(config), _under(state, "mps.model."),
        what=what, device=request.device, dtype=request.dtype, ignore=_IGNORED,
    )  # fmt: skip
    rest = {key: value for key, value in state.items() if not key.startswith("mps.model.")}
    layers = CrossModel.renamed(rest)
    cross = state_dict.fill(
        lambda: CrossModel.of_shapes(layers, what), layers, what=what, device=request.device, dtype=request.dtype
    )
    length = config.text_config.max_position_embeddings

    def tokenize(prompt: str) -> Tensor:
        ids: Tensor = words(
            [prompt], padding="max_length", truncation=True, max_length=length, return_tensors="pt"
        ).input_ids
        return ids

    return MpsReader(clip, cross, tokenize, request.device)


def _is_clip(folder: Path, name: str) -> bool:
    """Return whether a directory has the configuration of a CLIP; the official one has another config.json."""
    if not (folder / "config.json").is_file():
        return False
    return checkpoint_files.read_json(folder, "config.json", reward=name).get("model_type") == "clip"


def _under(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the tensors under a prefix, by the rest of their names."""
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
