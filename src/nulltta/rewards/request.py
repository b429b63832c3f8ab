"""What a reward is loaded from."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch


@dataclass(frozen=True, slots=True)
class RewardRequest:
    """Everything that decides how one named reward is loaded.

    Attributes:
        name: the name in the catalogue; error messages and the loaded reward carry it.
        source: a hub id, a directory or a file; None for the reward's usual hub id.
        device: where its networks run.
        dtype: the precision of its networks. Scores are float32 at least.
        sha256: the checksum that the weights file must have; None to skip the check.
    """

    name: str
    source: str | Path | None = None
    device: torch.device = torch.device("cpu")
    dtype: torch.dtype = torch.float32
    sha256: str | None = None
