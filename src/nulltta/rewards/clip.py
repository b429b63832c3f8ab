"""Rewards that are the cosine of a CLIP tower: clipscore, pickscore, and the base of hpsv2 and aesthetic."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar
from weakref import WeakValueDictionary

import torch
from torch import Tensor
from torch.nn import functional

from nulltta.errors import InvalidValue
from nulltta.rewards import sources, weights
from nulltta.rewards.preprocess import Preprocess

OPENAI = "openai/clip-vit-large-patch14"  # its tokenizer is every CLIP's
T = TypeVar("T")
_POSITIONS = ("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids")


class Tower:
    """A frozen two-tower model (CLIP, SigLIP) with its preprocessing and tokenizer. Made by `tower`, and shared.

    Features are unit vectors (B, F), at least float32 whatever the tower's dtype. Prompts are encoded once.
    """

    def __init__(
        self, model: Any, preprocess: Callable[[Tensor], Any], tokenize: Callable[[str], Tensor], device: torch.device
    ) -> None:
        self.model, self.preprocess, self.tokenize, self.device = model, preprocess, tokenize, device
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self._texts: dict[str, Tensor] = {}

    def image_features(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) in [0, 1] -> (B, F), with gradient."""
        pixels = self.preprocess(images.to(self.device)).to(self.dtype)
        return unit(self.model.get_image_features(pixel_values=pixels).pooler_output)

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """(B, F), without gradient; a prompt's features are kept."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._texts:
                found = self.model.get_text_features(input_ids=self.tokenize(prompt).to(self.device))
                self._texts[prompt] = unit(found.pooler_output)[0]
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def cosine(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """(B,) in [-1, 1], on the tower's device."""
        return (self.image_features(images) * self.text_features(prompts)).sum(-1)


_TOWERS: WeakValueDictionary[tuple[str, str, torch.dtype], Any] = WeakValueDictionary()


def shared(path: Path, device: torch.device, dtype: torch.dtype, make: Callable[[], T]) -> T:
    """The tower of a weights file: made once, shared by the rewards that hold it, freed with the last of them."""
    key = (str(path.resolve()), str(device), dtype)
    found: T | None = _TOWERS.get(key)
    if found is None:
        found = _TOWERS[key] = make()
    return found


def tower(
    source: str | Path, device: torch.device, dtype: torch.dtype, *, reward: str, sha256: str | None = None
) -> Tower:
    """transformers' `CLIPModel` from a directory, a hub id or a weights file beside its config.json."""
    path = sources.find(source, sources.WEIGHTS, reward=reward, sha256=sha256)

    def make() -> Tower:
        from transformers import CLIPConfig, CLIPModel

        home = str(path.parent)
        settings = sources.read_json(home if (path.parent / "config.json").is_file() else source, "config.json",
                                     reward=reward)  # fmt: skip
        if settings.get("model_type") != "clip":
            raise InvalidValue(f"reward '{reward}': '{source}' is a {settings.get('model_type')} model, not a CLIP")
        config = CLIPConfig.from_dict(settings)
        model = weights.fill(
            lambda: CLIPModel(config), weights.read(*sources.shards(path, source, reward=reward)),
            what=f"'{path}' is no such CLIP", device=device, dtype=dtype, ignore=_POSITIONS,
        )  # fmt: skip
        preprocess = _preprocess(source, reward, config.vision_config.image_size)
        tokenize = tokenizer([home, sources.folder(source)], config.text_config.max_position_embeddings, reward)
        return Tower(model, preprocess, tokenize, device)

    return shared(path, device, dtype, make)


def tokenizer(places: Sequence[str], length: int, reward: str) -> Callable[[str], Tensor]:
    """A prompt -> token ids (1, n), cut to the tower's length; without padding, which a causal tower ignores."""
    words = sources.tokenizer("CLIPTokenizer", list(dict.fromkeys([*places, OPENAI])), reward=reward)

    def tokenize(prompt: str) -> Tensor:
        ids: Tensor = words([prompt], truncation=True, max_length=length, return_tensors="pt").input_ids
        return ids

    return tokenize


class ClipScore:
    """The cosine of image and prompt, (B,) in [-1, 1]: Hessel et al., arXiv 2104.08718, without its factor 2.5 and
    without cutting at 0. PickScore (Kirstain et al., arXiv 2305.01569) is the same, of its own weights.

    scaled: multiply by the model's logit scale (about 100), as PickScore's authors do before a softmax; published
        tables of alignment methods do not.
    """

    differentiable = True

    def __init__(self, tower: Tower, name: str, *, scaled: bool = False) -> None:
        self.name = name
        self.tower = tower
        self.scale = float(tower.model.logit_scale.float().exp()) if scaled else 1.0

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        return (self.scale * self.tower.cosine(images, prompts)).to(images.device)


def _preprocess(source: str | Path, reward: str, image_size: int) -> Preprocess:
    """The source's own image processor; where a directory has none, the tower's size with CLIP's figures."""
    place = Path(sources.folder(source))
    if place.is_dir() and not any((place / name).is_file() for name in sources.PROCESSOR):
        return Preprocess((image_size, image_size))
    return Preprocess.from_config(sources.image_processor(source, reward=reward))


def unit(features: Tensor) -> Tensor:
    """Features (B, F) of length 1, at least float32."""
    return functional.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)
