"""The cross-attention of MPS: image tokens read the prompt's, in blocks as PaLM's and CoCa's.

The keys and values have a single head, attention and feed-forward run side by side on the same normalised input, and
positions among the image's tokens are rotations (Su et al., arXiv 2104.09864).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from nulltta.errors import LoadError

_KEPT = ("norm.bias", "rotary_emb.inv_freq")
"""Constants that the official file holds: zeros, and 10000^(−2i/d)."""


class CrossModel(nn.Module):
    """L pairs of cross-attention and self-attention.

    Args:
        width: F, the width of the image's and the prompt's tokens.
        layers: L.
        heads: of the queries.
        head: the width of a head.
        hidden: the width of the feed-forward layers.
    """

    def __init__(self, width: int, layers: int, heads: int, head: int, hidden: int) -> None:
        super().__init__()
        self.cross = nn.ModuleList(_CrossAttention(width, heads, head, hidden) for _ in range(layers))
        self.own = nn.ModuleList(_SelfAttention(width, heads, head, hidden) for _ in range(layers))

    def forward(self, image: Tensor, text: Tensor, read: Tensor) -> Tensor:
        """Let image tokens (B, m, F) attend to those of the text (B, n, F) where `read` (B, n) is true: (B, m, F)."""
        for cross, own in zip(self.cross, self.own, strict=True):
            image = image + cross(image, text, read)
            image = image + own(image)
        return image

    @classmethod
    def renamed(cls, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Rename the tensors of the official file; names that are not its own are kept, so that they are reported."""
        names = {"0.fn.": "cross", "1.fn.": "own"}
        found = {}
        for name, value in state.items():
            layer, _, rest = name.removeprefix("mps.cross_model.layers.").partition(".")
            kind = names.get(rest[:5])
            if kind is None:
                found[name] = value
            elif not rest.endswith(_KEPT):
                found[f"{kind}.{layer}.{rest[5:]}"] = value
        return found

    @classmethod
    def of_shapes(cls, state: Mapping[str, Tensor], what: str) -> CrossModel:
        """Make the network of a checkpoint's sizes.

        Raises:
            LoadError: if a tensor from which a size is read is missing.
        """
        try:
            inner, width = state["cross.0.to_q.weight"].shape
            head = len(state["cross.0.to_kv.weight"]) // 2
            hidden = state["cross.0.ff.2.weight"].shape[1]
        except KeyError as error:
            raise LoadError(f"{what}: the file lacks {error}") from error
        layers = len({name.split(".")[1] for name in state if name.startswith("cross.")})
        return cls(width, layers, inner // head, head, hidden)


class _CrossAttention(nn.Module):
    """Attention to the text, and a feed-forward network beside it."""

    def __init__(self, width: int, heads: int, head: int, hidden: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, bias=False)
        self.to_q = nn.Linear(width, heads * head, bias=False)
        self.to_kv = nn.Linear(width, 2 * head, bias=False)
        self.to_out = nn.Linear(heads * head, width, bias=False)
        self.ff = nn.Sequential(
            nn.Linear(width, 2 * hidden, bias=False), _SwiGLU(), nn.Linear(hidden, width, bias=False)
        )

    def forward(self, x: Tensor, text: Tensor, read: Tensor) -> Tensor:
        x = self.norm(x)
        queries = self.to_q(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, m, d)
        keys, values = self.to_kv(text)[:, None].chunk(2, -1)  # (B, 1, n, d)
        found = functional.scaled_dot_product_attention(
            queries, keys.expand(-1, self.heads, -1, -1), values.expand(-1, self.heads, -1, -1), read[:, None, None]
        )
        return torch.as_tensor(self.to_out(found.transpose(1, 2).flatten(2)) + self.ff(x))


class _SelfAttention(nn.Module):
    """Attention among the image's tokens, and a feed-forward network beside it, from one linear layer."""

    def __init__(self, width: int, heads: int, head: int, hidden: int) -> None:
        super().__init__()
        self.heads, self.head, self.sizes = heads, head, (heads * head, head, head, 2 * hidden)
        self.norm = nn.LayerNorm(width, bias=False)
        self.fused_attn_ff_proj = nn.Linear(width, sum(self.sizes), bias=False)
        self.attn_out = nn.Linear(heads * head, width, bias=False)
        self.ff_out = nn.Sequential(_SwiGLU(), nn.Linear(hidden, width, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        queries, keys, values, hidden = self.fused_attn_ff_proj(self.norm(x)).split(self.sizes, -1)
        rotation = _rotation(x.shape[1], self.head, x)
        queries = _rotated(queries.unflatten(-1, (self.heads, -1)).transpose(1, 2), rotation)
        keys, values = (each[:, None].expand(-1, self.heads, -1, -1) for each in (_rotated(keys, rotation), values))
        found = functional.scaled_dot_product_attention(queries, keys, values)
        return torch.as_tensor(self.attn_out(found.transpose(1, 2).flatten(2)) + self.ff_out(hidden))


class _SwiGLU(nn.Module):
    """The first half of the channels, gated by the second."""

    def forward(self, x: Tensor) -> Tensor:
        values, gate = x.chunk(2, -1)
        return functional.silu(gate) * values


def _rotation(length: int, head: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cosines and sines by which n positions are rotated, (n, d) each."""
    frequencies = 1.0 / 10000 ** (torch.arange(0, head, 2, device=like.device).float() / head)
    angles = torch.outer(torch.arange(length, device=like.device).float(), frequencies).repeat(1, 2)
    return angles.cos().to(like), angles.sin().to(like)


def _rotated(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate the two halves of the channels of x (..., n, d) into each other."""
    first, second = x.chunk(2, -1)
    cosine, sine = rotation
    return x * cosine + torch.cat([-second, first], -1) * sine
