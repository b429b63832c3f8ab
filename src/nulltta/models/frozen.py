"""Convolutions whose weights are frozen: their backward pass needs no input, so none is kept for it.

PyTorch keeps every convolution's input for the gradient of its weights, whether or not that is wanted; linear layers
it spares. In a denoiser's inner step that is memory for nothing.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input


class _Convolution(torch.autograd.Function):
    """conv2d, differentiated with respect to its input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, layer: nn.Conv2d) -> Tensor:
        # The weight as it is now, not the layer: offloading takes a layer's weights away before the backward pass.
        ctx.weight, ctx.shape = layer.weight.detach(), x.shape
        ctx.settings = layer.stride, layer.padding, layer.dilation, layer.groups
        found: Tensor = layer._conv_forward(x, layer.weight, layer.bias)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        return conv2d_input(ctx.shape, ctx.weight, gradient, *ctx.settings), None  # type: ignore[no-untyped-call]


class ConvInputs:
    """A context in which a module's plain convolutions (zero-padded by numbers) keep no inputs.

    Each layer's `forward` is overruled on the object for as long as the context lasts; its class stays. Layers whose
    `forward` is somebody else's already, such as an offloading hook's, and weights that learn, are left alone.
    """

    def __init__(self, module: nn.Module) -> None:
        self.layers = [
            layer
            for layer in module.modules()
            if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        ]

    def __enter__(self) -> None:
        if torch.is_grad_enabled():
            for layer in self.layers:
                if "forward" not in vars(layer):
                    vars(layer)["forward"] = _Forward(layer)

    def __exit__(self, *failure: object) -> None:
        for layer in self.layers:
            if isinstance(vars(layer).get("forward"), _Forward):
                vars(layer).pop("forward", None)


class _Forward:
    """`layer.forward` that keeps no input where none is needed."""

    def __init__(self, layer: nn.Conv2d) -> None:
        self.layer = layer

    def __call__(self, x: Tensor) -> Tensor:
        layer = self.layer
        learns = layer.weight.requires_grad or (layer.bias is not None and layer.bias.requires_grad)
        if learns or not (x.requires_grad and torch.is_grad_enabled()):
            plain: Tensor = layer._conv_forward(x, layer.weight, layer.bias)
            return plain
        found: Tensor = _Convolution.apply(x, layer)  # type: ignore[no-untyped-call]
        return found


class FrozenConv2d(nn.Conv2d):
    """`nn.Conv2d` that keeps no input while its weights are frozen; otherwise as before."""

    def forward(self, x: Tensor) -> Tensor:
        learns = self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)
        if learns or not (x.requires_grad and torch.is_grad_enabled()):
            return super().forward(x)
        found: Tensor = _Convolution.apply(x, self)  # type: ignore[no-untyped-call]
        return found


def drop_conv_inputs(module: nn.Module) -> None:
    """Let a module's plain convolutions, zero-padded by numbers, keep no inputs, in place."""
    for layer in module.modules():
        if type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            layer.__class__ = FrozenConv2d
