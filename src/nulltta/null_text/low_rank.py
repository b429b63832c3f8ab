"""The differences φ'_t − φ of all steps as factors of low rank: a truncated singular value decomposition.

Most of a null text is padding, and padding tokens move nearly alike at every step: as a matrix with one row per token,
(L, T·D), the differences have few large singular values. With one row per step, (T, L·D), they have more (see
docs/null-texts.md).
"""

from __future__ import annotations

import torch
from torch import Tensor

from nulltta.errors import InvalidValue

MAX_UNFOLDED_BYTES = 2**32
"""The most bytes to which factors may unfold: a small file can claim to be a huge one."""


def factors(differences: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Factor (T, L, D) into (L, r) and (r, T, D), float16, the nearest product of rank r (Eckart and Young, 1936).

    Each factor takes the root of the singular values, so that both stay within float16's range.
    """
    steps, tokens, width = differences.shape
    u, s, v = torch.linalg.svd(differences.transpose(0, 1).reshape(tokens, -1), full_matrices=False)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).half(), (root[:, None] * v[:rank]).view(-1, steps, width).half()


def unfold(left: Tensor, right: Tensor) -> Tensor:
    """Multiply factors (L, r) and (r, T, D): (T, L, D) in float32.

    Raises:
        ValueError: if the shapes are not those of factors, or the product would be too large.
    """
    if left.dim() != 2 or right.dim() != 3:
        raise ValueError(f"its factors have shapes {tuple(left.shape)} and {tuple(right.shape)}")
    size = 4 * len(left) * right.shape[1] * right.shape[2]
    if size > MAX_UNFOLDED_BYTES:
        raise ValueError(f"its factors would unfold to {size / 2**30:.0f} GiB")
    return torch.einsum("lr,rtd->tld", left.float(), right.float())


def relative_error(approximation: Tensor, exact: Tensor) -> float:
    """Return ‖approximation − exact‖ / ‖exact‖ in the Frobenius norm; 0 if both are zero."""
    size = float(exact.norm())
    return float((approximation - exact).norm()) / size if size else 0.0


def require_rank(rank: int, largest: int) -> None:
    """Check that a rank is a whole number from 1 to `largest`, the number of tokens.

    Raises:
        InvalidValue: if it is not.
    """
    if largest == 0:
        raise InvalidValue("must be left out: this null text has no tokens, so no low-rank form", "rank")
    if type(rank) is not int or not 1 <= rank <= largest:
        raise InvalidValue(f"must be a whole number from 1 to {largest}, the null text's tokens, not {rank!r}", "rank")
