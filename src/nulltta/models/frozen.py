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
        ctx.layer, ctx.shape = layer, x.shape
        found: Tensor = layer._conv_forward(x, layer.weight, layer.bias)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        c = ctx.layer
        settings = (c.stride, c.padding, c.dilation, c.groups)
        return conv2d_input(ctx.shape, c.weight, gradient, *settings), None  # type: ignore[no-untyped-call]


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
