"""Cosines of CLIP encoders: clipscore and pickscore, and the image encoder of aesthetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.errors import LoadError
from nulltta.rewards import checkpoint_files, state_dict
from nulltta.rewards.dual_encoder import DualEncoder
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.sharing import shared

OPENAI = "openai/clip-vit-large-patch14"
"""Its tokenizer serves every CLIP."""
_POSITIONS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


class ClipScore(Reward):
    """The cosine of image and prompt, (B,) in [-1, 1].

    CLIPScore (Hessel et al., arXiv 2104.08718) without its factor 2.5 and without clipping at 0. PickScore (Kirstain
    et al., arXiv 2305.01569) is the same with its own weights.

    Args:
        encoder: the CLIP.
        name: the reward's name.
        scaled: whether to multiply by the model's logit scale (about 100), as PickScore's authors do before a softmax.
            Published tables of alignment methods do not.
    """

    def __init__(self, encoder: DualEncoder, name: str, *, scaled: bool = False) -> None:
        self.name, self.encoder = name, encoder
        self.scale = float(encoder.model.logit_scale.float().exp()) if scaled else 1.0

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.encoder.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return (self.scale * self.encoder.cosine(images, prompts)).to(images.device)


def loader(hub: str, *, scaled: bool = False) -> Callable[[RewardRequest], ClipScore]:
    """Make the loader of a `ClipScore` whose weights are usually those of a hub id."""

    def load(request: RewardRequest) -> ClipScore:
        encoder = load_encoder(request, request.source or hub, request.sha256)
        return ClipScore(encoder, request.name, scaled=scaled)

    return load


def load_encoder(request: RewardRequest, source: str | Path, sha256: str | None = None) -> DualEncoder:
    """Load transformers' `CLIPModel` from a directory, a hub id, or a weights file beside its config.json.

    Args:
        request: whose name, device and dtype are used.
        source: where the CLIP is.
        sha256: the checksum that its weights must have.

    Raises:
        LoadError: if the source is not a CLIP, or if a file is missing or damaged.
    """
    reward, device, dtype = request.name, request.device, request.dtype
    path = checkpoint_files.find(source, checkpoint_files.WEIGHTS, reward=reward, sha256=sha256)

    def make() -> DualEncoder:
        from transformers import CLIPConfig, CLIPModel

        home = str(path.parent)
        beside = (path.parent / "config.json").is_file()
        settings = checkpoint_files.read_json(home if beside else source, "config.json", reward=reward)
        if settings.get("model_type") != "clip":
            raise LoadError(f"reward '{reward}': '{source}' is a {settings.get('model_type')} model, not a CLIP")
        config = CLIPConfig.from_dict(settings)
        model = state_dict.fill(
            lambda: CLIPModel(config), state_dict.read(*checkpoint_files.shards(path, source, reward=reward)),
            what=f"'{path}' is not such a CLIP", device=device, dtype=dtype, ignore=_POSITIONS,
        )  # fmt: skip
        preprocess = _preprocess(source, reward, config.vision_config.image_size)
        places = [home, checkpoint_files.folder(source)]
        tokenize = tokenizer(places, config.text_config.max_position_embeddings, reward)
        return DualEncoder(model, preprocess, tokenize, device)

    return shared(path, device, dtype, make)


def tokenizer(places: Sequence[str], length: int, reward: str) -> Callable[[str], Tensor]:
    """Load CLIP's tokenizer from the first of several places, or from the hub.

    Returns:
        A function from a prompt to token ids (1, n), truncated to `length` and not padded, since a causal text
        encoder ignores what follows the end token.

    Raises:
        LoadError: if no tokenizer is found.
    """
    words = checkpoint_files.tokenizer("CLIPTokenizer", [*places, OPENAI], reward=reward)

    def tokenize(prompt: str) -> Tensor:
        ids: Tensor = words([prompt], truncation=True, max_length=length, return_tensors="pt").input_ids
        return ids

    return tokenize


def _preprocess(source: str | Path, reward: str, image_size: int) -> Preprocess:
    """Read the source's own image processor; a directory without one gets CLIP's, of the encoder's size."""
    place = Path(checkpoint_files.folder(source))
    if place.is_dir() and not any((place / name).is_file() for name in checkpoint_files.PROCESSOR):
        return Preprocess((image_size, image_size))
    return Preprocess.from_config(checkpoint_files.image_processor(source, reward=reward))
