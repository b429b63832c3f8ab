"""Differences φ'_t − φ of all steps in few numbers: a truncated singular value decomposition over the tokens.

Most of a null text is padding, and padding tokens move nearly alike at every step: as a matrix of a row a token,
(L, T·D), the differences have few large singular values. (As a row a step, (T, L·D), they have more: see
docs/null-texts.md.)
"""

from __future__ import annotations

import torch
from torch import Tensor

from nulltta.errors import InvalidValue

UNFOLDED = 2**32  # bytes that factors may unfold to: a small file can claim to be a huge one


def factors(differences: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """(T, L, D) -> (L, r) and (r, T, D), float16, whose product is the nearest of rank r (Eckart and Young, 1936).

    Each factor takes the root of the singular values, so that both stay within float16's range.
    """
    steps, tokens, width = differences.shape
    u, s, v = torch.linalg.svd(differences.transpose(0, 1).reshape(tokens, -1), full_matrices=False)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).half(), (root[:, None] * v[:rank]).view(-1, steps, width).half()


def unfold(left: Tensor, right: Tensor) -> Tensor:
    """(L, r) and (r, T, D) -> (T, L, D) in float32."""
    if left.dim() != 2 or right.dim() != 3:
        raise ValueError(f"its factors have shapes {tuple(left.shape)} and {tuple(right.shape)}")
    size = 4 * len(left) * right.shape[1] * right.shape[2]
    if size > UNFOLDED:
        raise ValueError(f"its factors would unfold to {size / 2**30:.0f} GiB")
    return torch.einsum("lr,rtd->tld", left.float(), right.float())


def relative_error(approximation: Tensor, exact: Tensor) -> float:
    """‖approximation − exact‖ / ‖exact‖, Frobenius; 0 where both are zero."""
    size = float(exact.norm())
    return float((approximation - exact).norm()) / size if size else 0.0


def require_rank(rank: int, largest: int) -> None:
    """Refuse a rank that is no whole number from 1 to `largest`, the number of tokens."""
    if largest == 0:
        raise InvalidValue("this null text has no tokens, so no low-rank form: leave out rank")
    if type(rank) is not int or not 1 <= rank <= largest:
        raise InvalidValue(f"rank must be a whole number from 1 to {largest}, the null text's tokens, not {rank!r}")
