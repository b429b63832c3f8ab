"""Frozen networks: the same outputs and gradients with less memory, and the network as it was found."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nulltta.models.frozen import Frozen


@pytest.mark.parametrize(
    "settings", [{}, {"padding": 1}, {"stride": 2, "padding": 1}, {"dilation": 2}, {"groups": 2}, {"bias": False}]
)
def test_the_gradient_is_that_of_the_plain_convolution(settings: dict[str, Any]) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 6, 3, **settings)
    frozen = Frozen(copy.deepcopy(plain))
    x = torch.randn(2, 4, 9, 8, requires_grad=True)
    assert torch.equal(frozen(x), plain(x))
    gradients = [torch.autograd.grad(layer(x).square().sum(), x)[0] for layer in (plain, frozen)]
    torch.testing.assert_close(gradients[1], gradients[0], rtol=1e-6, atol=1e-6)


def test_no_input_is_kept_inside_and_the_weights_learn_outside() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Flatten(2), nn.Linear(16, 2), nn.Conv1d(3, 3, 1))
    frozen = Frozen(layers)
    x = torch.randn(1, 3, 4, 4, requires_grad=True)
    assert _kept(layers, layers, x) > _kept(frozen, layers, x) == 1  # the one-dimensional convolution's
    layers(x).sum().backward()
    assert all(parameter.grad is not None for parameter in layers.parameters())


def test_other_convolutions_compute_as_before() -> None:
    circular = nn.Conv2d(3, 3, 3, padding=1, padding_mode="circular")
    same = nn.Conv2d(3, 3, 3, padding="same")
    x = torch.randn(1, 3, 5, 5, requires_grad=True)
    for layer in (circular, same):
        assert torch.equal(Frozen(layer)(x), layer(x))


def test_the_weight_of_the_forward_pass_is_the_one_that_counts() -> None:
    """Offloading replaces a layer's weights between the forward and the backward pass."""
    layer = nn.Conv2d(3, 3, 1)
    x = torch.randn(1, 3, 2, 2, requires_grad=True)
    expected = torch.autograd.grad(layer(x).sum(), x)[0]
    output = Frozen(layer)(x)
    layer.weight = nn.Parameter(torch.full_like(layer.weight, float("nan")))
    assert torch.equal(torch.autograd.grad(output.sum(), x)[0], expected)


class _Checkpointed(nn.Module):
    """A network with gradient checkpointing as diffusers' networks have it."""

    _supports_gradient_checkpointing = True

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(2, 2, 1), nn.Dropout(0.5), nn.GELU(), nn.Linear(4, 4))
        self.gradient_checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        return self._gradient_checkpointing_func(self.block, x) if self.gradient_checkpointing else self.block(x)

    def _gradient_checkpointing_func(self, block: nn.Module, x: Tensor) -> Tensor:
        return torch.as_tensor(checkpoint(block, x, use_reentrant=False))


@pytest.mark.parametrize("own", [False, True])
def test_recomputed_activations_are_those_of_the_forward_pass(own: bool) -> None:
    """In training mode, with weights that learn, whether or not the network checkpoints by itself."""
    network = _Checkpointed()
    network.gradient_checkpointing = own
    frozen, x = Frozen(network), torch.randn(1, 2, 4, 4, requires_grad=True)
    network.eval()
    expected = torch.autograd.grad(network(x).square().sum(), x)[0]
    network.train()
    frozen.recompute = not own
    torch.testing.assert_close(torch.autograd.grad(frozen(x).square().sum(), x)[0], expected)
    assert network.gradient_checkpointing is own
    assert "_gradient_checkpointing_func" not in vars(network)
    assert all(module.training for module in network.modules())
    assert all(parameter.requires_grad for parameter in network.parameters())


def test_a_failure_leaves_the_network_as_it_was() -> None:
    layer = nn.Conv2d(3, 3, 1)
    before = dict(vars(layer))
    with pytest.raises(RuntimeError, match="channels"):
        Frozen(layer)(torch.randn(1, 2, 4, 4, requires_grad=True))
    assert vars(layer) == before
    assert layer.weight.requires_grad


def _kept(call: Any, layers: nn.Module, x: Tensor) -> int:
    """How many tensors, weights aside, the graph of a forward pass holds, counting those of an own Function."""
    weights = {parameter.data_ptr() for parameter in layers.parameters()}
    kept: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        if tensor.data_ptr() not in weights:
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        call(x)
    return len(kept)
