"""Models that encode images and texts into one space, such as CLIP and SigLIP."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional


class DualEncoder:
    """A frozen image-text model of transformers with its preprocessing and its tokenizer.

    Features are unit vectors (B, F) in float32 at least, whatever the precision of the model. The features of a prompt
    are computed once and kept.

    Args:
        model: has `get_image_features` and `get_text_features`.
        preprocess: images (B, 3, H, W) in [0, 1] -> what the image encoder reads, with gradient.
        tokenize: a prompt -> token ids (1, n).
        device: where the model is.
    """

    def __init__(
        self, model: Any, preprocess: Callable[[Tensor], Any], tokenize: Callable[[str], Tensor], device: torch.device
    ) -> None:
        self.model, self.preprocess, self.tokenize, self.device = model, preprocess, tokenize, device
        self.dtype: torch.dtype = next(model.parameters()).dtype
        self._texts: dict[str, Tensor] = {}

    def image_features(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] as (B, F), with gradient."""
        pixels = self.preprocess(images.to(self.device)).to(self.dtype)
        return unit(self.model.get_image_features(pixel_values=pixels).pooler_output)

    @torch.no_grad()
    def text_features(self, prompts: Sequence[str]) -> Tensor:
        """Encode B prompts as (B, F), without gradient."""
        for prompt in dict.fromkeys(prompts):
            if prompt not in self._texts:
                found = self.model.get_text_features(input_ids=self.tokenize(prompt).to(self.device))
                self._texts[prompt] = unit(found.pooler_output)[0]
        return torch.stack([self._texts[prompt] for prompt in prompts])

    def forget_texts(self) -> None:
        """Drop the kept features of prompts, so that what encoding them costs can be measured again."""
        self._texts.clear()

    def cosine(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return the cosine of each image and its prompt, (B,) in [-1, 1], on the model's device."""
        return (self.image_features(images) * self.text_features(prompts)).sum(-1)


def unit(features: Tensor) -> Tensor:
    """Scale features (B, F) to length 1, in float32 at least."""
    return functional.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)
