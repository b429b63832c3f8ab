"""Frozen convolutions: the same gradients, with less kept for them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nulltta.models.frozen import FrozenConv2d, drop_conv_inputs


@pytest.mark.parametrize(
    "settings", [{}, {"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}, {"bias": False}]
)
def test_the_gradient_is_that_of_the_plain_convolution(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, **settings).requires_grad_(False)
    frozen = copy.deepcopy(plain)
    drop_conv_inputs(frozen)
    assert type(frozen) is FrozenConv2d
    x = torch.randn(2, 4, 9, 8, requires_grad=True)
    for layer in (plain, frozen):
        assert torch.equal(layer(x), plain(x))
    gradients = [torch.autograd.grad(layer(x).square().sum(), x)[0] for layer in (plain, frozen)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-6)


def test_no_input_is_kept_unless_the_weights_learn() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)).requires_grad_(False)
    drop_conv_inputs(layers)
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert _kept(layers, x) == 0
    layers.requires_grad_(True)
    assert _kept(layers, x) > 0
    layers(x).sum().backward()
    assert layers[0].weight.grad is not None


def test_a_copy_has_its_own_weights_and_others_are_left_alone() -> None:
    layer = nn.Conv2d(3, 3, 1).requires_grad_(False)
    drop_conv_inputs(layer)
    twin = copy.deepcopy(layer).double()
    assert twin(torch.zeros(1, 3, 2, 2, dtype=torch.float64)).dtype == torch.float64
    circular = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")
    drop_conv_inputs(circular)
    assert type(circular) is nn.Conv2d


def _kept(layers: nn.Module, x: Tensor) -> int:
    """Activations, weights aside, that the graph of a forward pass holds."""
    weights = {parameter.data_ptr() for parameter in layers.parameters()}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        layers(x)
    return len(kept)
