"""Networks as constant functions: differentiated with respect to their inputs, and left as they were found."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from contextvars import ContextVar
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.grad import conv2d_input
from torch.utils.checkpoint import checkpoint

from nulltta.models.restoring import overruled

Surrounding = Callable[[], AbstractContextManager[None]]
"""Makes a context manager to enter around an evaluation."""
_SURROUNDING: ContextVar[Surrounding] = ContextVar("surrounding", default=nullcontext)


@contextmanager
def surrounded(surrounding: Surrounding) -> Iterator[None]:
    """Enter a context around each evaluation of a `Frozen` network in this block, and around what is recomputed of it.

    Activations that are recomputed in the backward pass are computed long after the block, maybe in another thread.
    """
    token = _SURROUNDING.set(surrounding)
    try:
        yield
    finally:
        _SURROUNDING.reset(token)


class Frozen:
    """A network of somebody else's pipeline, evaluated with constant weights.

    Calling it calls the network, and its attributes are the network's, so that it stands in for it; it is also the
    context in which both happen. Within that context the network is in evaluation mode, its weights need no gradient,
    and its convolutions keep no inputs; where activations are recomputed in the backward pass, that happens under the
    same conditions. Outside the context, the network is exactly as it was found. Nothing is changed for good, so the
    pipeline can be trained, offloaded or used by others between two evaluations.

    PyTorch's `conv2d` keeps its input for the gradient of the weights, whether or not that gradient is wanted (linear
    layers do not), which in a denoiser's inner step is most of the memory.

    Args:
        network: the network.
        beside_others: leave networks on the device that accelerate's hooks would take off it when this one is called:
            a denoiser's weights are needed there until the backward pass through the decoder has reached them.

    Attributes:
        recompute: whether activations are recomputed in the backward pass instead of being stored, where the network
            supports gradient checkpointing.
    """

    def __init__(self, network: Any, *, beside_others: bool = False) -> None:
        self.beside_others = beside_others
        modules = list(network.modules())
        self.network, self.recompute = network, False
        self._modules = modules
        self._weights = [(m._parameters, name) for m in modules for name, w in m._parameters.items() if w is not None]
        self._convolutions = [m for m in modules if _is_plain_convolution(m)]
        self._blocks = [m for m in modules if "gradient_checkpointing" in vars(m)]
        lists = [part for part in network.children() if isinstance(part, nn.ModuleList)]
        self._layers = [layer for part in lists for layer in part] if self._blocks == [network] else []
        self._lock, self._entered = threading.Lock(), threading.local()
        self._uses = {"evaluation": 0, "frozen": 0}  # by threads that share this network
        self._undo: dict[str, ExitStack] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with self, _SURROUNDING.get()():
            return self.network(*args, **kwargs)

    def decode(self, *args: Any, **kwargs: Any) -> Any:
        """Call an autoencoder's `decode`."""
        with self:
            return self.network.decode(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.network, name)

    def __enter__(self) -> None:
        uses = ("evaluation", "frozen") if torch.is_grad_enabled() else ("evaluation",)
        if not hasattr(self._entered, "stack"):
            self._entered.stack = []
        with self._lock:
            for use in uses:
                if not self._uses[use]:
                    with ExitStack() as stack:
                        (self._freeze if use == "frozen" else self._evaluate)(stack)
                        self._undo[use] = stack.pop_all()
                self._uses[use] += 1
        self._entered.stack.append(uses)

    def __exit__(self, *failure: object) -> None:
        with self._lock:
            for use in self._entered.stack.pop():
                self._uses[use] -= 1
                if not self._uses[use]:
                    self._undo.pop(use).close()

    def _evaluate(self, stack: ExitStack) -> None:
        hook = getattr(self.network, "_hf_hook", None)
        if self.beside_others and hook is not None and "prev_module_hook" in vars(hook):
            stack.enter_context(overruled(hook, "prev_module_hook", None))
        for module in self._modules:
            if module.training:
                module.training = False
                stack.callback(setattr, module, "training", True)

    def _freeze(self, stack: ExitStack) -> None:
        # Looked up anew, not kept: offloading puts other tensors in the place of a module's weights.
        learning = [(owner, name) for owner, name in self._weights if owner[name].requires_grad]
        for owner, name in learning:
            owner[name].requires_grad_(False)
        stack.callback(_thaw, learning)
        if not hasattr(self.network, "gradient_checkpointing"):  # some networks of diffusers read it, and never set it
            stack.enter_context(overruled(self.network, "gradient_checkpointing", False))
        if not self._is_compiled():  # the compiler keeps no more than the backward pass needs
            for layer in self._convolutions:
                stack.enter_context(overruled(layer, "_conv_forward", partial(_convolution, layer)))
        if self._layers and not self._is_compiled():
            # A transformer's own checkpointing leaves out what it gives a block otherwise, such as Chroma's mask.
            if self.recompute or self.network.gradient_checkpointing:
                stack.enter_context(overruled(self.network, "gradient_checkpointing", False))
                for layer in self._layers:
                    stack.enter_context(overruled(layer, "forward", partial(self._checkpoint, layer.forward)))
            return
        for block in self._blocks:
            if block.gradient_checkpointing or (self.recompute and self.network._supports_gradient_checkpointing):
                stack.enter_context(overruled(block, "gradient_checkpointing", True))
                stack.enter_context(overruled(block, "_gradient_checkpointing_func", self._checkpoint))

    def _checkpoint(self, block: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        surrounding = _SURROUNDING.get()

        def contexts() -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
            return nullcontext(), self._recomputing(surrounding)

        return checkpoint(block, *args, use_reentrant=False, context_fn=contexts, **kwargs)

    @contextmanager
    def _recomputing(self, surrounding: Surrounding) -> Iterator[None]:
        with self, surrounding():
            yield

    def _is_compiled(self) -> bool:
        return hasattr(self.network, "_orig_mod") or any(m._compiled_call_impl is not None for m in self._modules)


class _Convolution(torch.autograd.Function):
    """conv2d, differentiated with respect to its input only."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, layer: nn.Conv2d) -> Tensor:
        # The weight as it is now, not the layer: offloading takes a layer's weights away before the backward pass.
        ctx.weight, ctx.shape = weight.detach(), x.shape
        ctx.settings = layer.stride, layer.padding, layer.dilation, layer.groups
        found: Tensor = nn.functional.conv2d(x, weight, bias, *ctx.settings)
        return found

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        found = conv2d_input(ctx.shape, ctx.weight, gradient, *ctx.settings)  # type: ignore[no-untyped-call]
        return found, None, None, None


def _convolution(layer: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """What a layer computes, without keeping its input where that is needed for the weights' gradient only."""
    learns = weight.requires_grad or (bias is not None and bias.requires_grad)
    if learns or not (x.requires_grad and torch.is_grad_enabled()):
        plain: Tensor = nn.Conv2d._conv_forward(layer, x, weight, bias)
        return plain
    found: Tensor = _Convolution.apply(x, weight, bias, layer)  # type: ignore[no-untyped-call]
    return found


def _is_plain_convolution(module: nn.Module) -> bool:
    """Whether it computes `conv2d`, zero-padded by numbers, and nothing else."""
    return type(module) is nn.Conv2d and module.padding_mode == "zeros" and not isinstance(module.padding, str)


def _thaw(learning: list[tuple[dict[str, Any], str]]) -> None:
    for owner, name in learning:
        owner[name].requires_grad_(True)
