"""The small head with which aesthetic predictors, ImageReward and CycleReward turn a feature into a score."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from nulltta.errors import LoadError
from nulltta.rewards import state_dict


class Mlp(nn.Module):
    """Linear layers under the names `layers.0`, `layers.2`, ... of the official files, 768 → 1024 → 128 → 64 → 16 → 1.

    Args:
        state: the tensors by name.
        between: makes the module at each place that has no weights: by default nothing, for the dropouts of LAION's
            predictor and ImageReward, whose scores are affine functions of the feature.
    """

    def __init__(self, state: Mapping[str, Tensor], between: Callable[[], nn.Module] = nn.Identity) -> None:
        super().__init__()
        places = sorted(int(name.split(".")[1]) for name in state if name.endswith(".weight"))
        shapes = {place: state[f"layers.{place}.weight"].shape for place in places}
        self.layers = nn.Sequential(
            *(nn.Linear(shapes[i][1], shapes[i][0]) if i in shapes else between() for i in range(places[-1] + 1))
        )

    def forward(self, features: Tensor) -> Tensor:
        """Map features (B, F) to scores (B, outputs)."""
        values: Tensor = self.layers(features)
        return values


def load_mlp(
    state: Mapping[str, Tensor],
    width: int,
    *,
    what: str,
    device: torch.device,
    dtype: torch.dtype,
    between: Callable[[], nn.Module] = nn.Identity,
    outputs: int = 1,
) -> Mlp:
    """Load the MLP of a checkpoint `layers.0.weight, ...`, in float32 at least.

    Args:
        state: the tensors by name.
        width: the number of features it reads.
        what: the file and what it should be, for messages.
        device: where the MLP goes.
        dtype: the precision asked for.
        between: as of `Mlp`.
        outputs: the number of scores.

    Raises:
        LoadError: if tensors are missing or unknown, or if the layers do not lead from `width` features to
            `outputs` scores.
    """
    found = {name: value for name, value in state.items() if name.startswith("layers.") and value.dim() in (1, 2)}
    if not any(name.endswith(".weight") and value.dim() == 2 for name, value in found.items()):
        raise LoadError(f"{what}: the file lacks 'layers.0.weight'")
    precision = dtype if dtype == torch.float64 else torch.float32
    mlp = state_dict.fill(lambda: Mlp(found, between), state, what=what, device=device, dtype=precision)
    linear = [layer for layer in mlp.layers if isinstance(layer, nn.Linear)]
    ends = [width, *(layer.out_features for layer in linear)]
    if [layer.in_features for layer in linear] != ends[:-1] or ends[-1] != outputs:
        scores = "1 score" if outputs == 1 else f"{outputs} scores"
        raise LoadError(f"{what}: its layers do not lead from {width} features to {scores}")
    return mlp
