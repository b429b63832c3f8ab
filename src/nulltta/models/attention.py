"""Normalized attention guidance (NAG, arXiv 2505.21179) inside a denoiser's own attention modules.

A batch holds each latent twice: under the prompt in its first half, under the null text in its second. Within every
attention module, Z⁺ and Z⁻ are the outputs of the same image token in the two halves, before the output projection.
Both are replaced by the guided Z, so that the two halves share one image stream while each keeps a text stream of its
own. The modules' processors are neither replaced nor read: hooks take Z where it leaves them, so that rotary
embeddings, masks, query and key norms, LoRA layers and IP-Adapters are whatever the pipeline has.

Where texts are read by cross-attention alone, as in the UNets of Stable Diffusion, there is no text stream, and the two
halves differ within those modules only. There a batch holds each latent once, and only these modules see it twice, so
that a guided prediction costs little more than one without guidance.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from nulltta.errors import InvalidValue
from nulltta.models.frozen import Surrounding
from nulltta.models.restoring import overruled

ORDERS = {"l1": 1, "l2": 2}
"""The order p of the norm ‖Z‖_p by its name: the paper has "l1", its published code "l2"."""


@dataclass(frozen=True, slots=True)
class AttentionGuidance:
    """Z as a function of Z⁺ and Z⁻ (arXiv 2505.21179).

    Attributes:
        scale: s, in the paper's convention; the published code's `nag_scale` is s + 1.
        tau: τ, the most that ‖Z̃‖ may be in units of ‖Z⁺‖; 1 or more.
        alpha: α, the share of Z̃ in Z.
        norm: a key of `ORDERS`.
    """

    scale: float
    tau: float
    alpha: float
    norm: str = "l1"

    def __call__(self, positive: Tensor, negative: Tensor) -> Tensor:
        """Return Z = αZ̃ + (1 − α)Z⁺ token by token, with Z̃ = Z⁺ + s(Z⁺ − Z⁻) scaled down to ‖Z̃‖ ≤ τ‖Z⁺‖.

        Args:
            positive: Z⁺, (N, tokens, channels).
            negative: Z⁻, likewise.
        """
        plus, minus = positive.float(), negative.float()
        moved = plus + self.scale * (plus - minus)
        limit = self.tau * self._size(plus) / self._size(moved)
        within = moved * limit.clamp(max=1)
        return (plus + self.alpha * (within - plus)).to(positive)  # exactly Z⁺ where Z⁻ = Z⁺, or s = 0

    def _size(self, z: Tensor) -> Tensor:
        norm: Tensor = torch.linalg.vector_norm(z, ord=ORDERS[self.norm], dim=-1, keepdim=True)
        return norm.clamp(min=1e-12)


ImageTokens = Mapping[nn.Module, Tensor]
"""By attention module, which tokens of its `hidden_states` belong to the image: (tokens,), boolean."""


@dataclass(frozen=True, slots=True)
class Attended:
    """Where a denoiser's attention takes the image from, and the text.

    Attributes:
        image: which tokens are guided.
        crossed: whether the text is read by cross-attention alone, as the denoiser was given it; then `image` has the
            modules that read it, and no others.
    """

    image: ImageTokens
    crossed: bool


def attention_modules(networks: Iterable[nn.Module]) -> list[nn.Module]:
    """Return the networks' attention modules, in the order in which they are defined."""
    from diffusers.models.attention import AttentionModuleMixin
    from diffusers.models.attention_processor import Attention

    kinds = (Attention, AttentionModuleMixin)
    return [module for network in networks for module in network.modules() if isinstance(module, kinds)]


@contextmanager
def guided(networks: Iterable[nn.Module], image: ImageTokens, guidance: AttentionGuidance) -> Iterator[None]:
    """Guide the image tokens of every attention module in what this thread evaluates.

    Args:
        networks: the denoisers, evaluated on batches whose halves belong to prompt and null text.
        image: which tokens are guided, looked up when a module is evaluated; one that is not there is left alone.
        guidance: Z of Z⁺ and Z⁻.
    """
    networks = list(networks)
    with ExitStack() as undo:
        _uncompiled(networks, undo)
        for module in attention_modules(networks):
            undo.callback(_hook(module, image, guidance).remove)
        yield


@contextmanager
def guided_across(
    networks: Iterable[nn.Module], image: ImageTokens, guidance: AttentionGuidance, null: Tensor
) -> Iterator[None]:
    """Guide what this thread evaluates of networks that read texts by cross-attention alone, on the prompts' batch.

    Args:
        networks: the denoisers, evaluated under the prompts' texts.
        image: the modules that read texts, of which all tokens are guided.
        guidance: Z of Z⁺ and Z⁻.
        null: the null texts (N, tokens, width).
    """
    networks, mine = list(networks), threading.get_ident()

    def doubled(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if threading.get_ident() != mine:
            return None
        hidden, text = args[0] if args else kwargs["hidden_states"], kwargs["encoder_hidden_states"]
        both = {"hidden_states": torch.cat([hidden, hidden]), "encoder_hidden_states": torch.cat([text, null.to(text)])}
        return (), kwargs | both

    def halved(_: nn.Module, __: Any, output: Tensor) -> Tensor | None:
        return output[: len(output) // 2] if threading.get_ident() == mine else None

    with guided(networks, image, guidance), ExitStack() as undo:
        for module in image:
            undo.callback(module.register_forward_pre_hook(doubled, with_kwargs=True).remove)
            undo.callback(module.register_forward_hook(halved).remove)
        yield


Evaluate = Callable[[Surrounding], Tensor]
"""Evaluates a denoiser within a context and returns its prediction (2N, ...)."""


def find_image_tokens(
    networks: Iterable[nn.Module],
    guidance: AttentionGuidance,
    latents_differ: Evaluate,
    texts_differ: Evaluate,
    texts: Tensor | None,
) -> Attended:
    """Find the tokens that depend on the latents and do not depend on the text except through guided attention.

    Args:
        networks: the denoisers.
        guidance: Z of Z⁺ and Z⁻.
        latents_differ: evaluates a batch whose halves have the same text and different latents.
        texts_differ: evaluates a batch whose halves have the same latents and different texts.
        texts: what `texts_differ` gives the denoiser as its only argument with texts, (2, tokens, width); None where
            it gives it several.

    Raises:
        InvalidValue: if the text reaches the image in another way than through attention.
    """
    networks, moved, image = list(networks), dict[nn.Module, Tensor](), dict[nn.Module, Tensor]()
    readers, others = set[nn.Module](), set[nn.Module]()

    def note_moved(module: nn.Module, hidden: Tensor, given: Mapping[str, Any]) -> None:  # noqa: ARG001
        moved[module] = _differing(hidden)

    def note_image(module: nn.Module, hidden: Tensor, given: Mapping[str, Any]) -> None:
        image[module] = moved[module] & ~_differing(hidden)
        if _reads(given, texts):
            readers.add(module)
        if not (bool(image[module].all()) and (_reads(given, texts) or not given)):
            others.add(module)

    @contextmanager
    def probing() -> Iterator[None]:
        with _watched(networks, note_image), guided(networks, image, guidance):
            yield

    latents_differ(partial(_watched, networks, note_moved))
    prediction = texts_differ(probing)
    if bool(_differing(prediction.flatten(1)[..., None]).any()):
        raise InvalidValue(
            "must be cfg for this model: its text reaches the image in another way than through attention",
            field="guidance",
        )
    if readers and not others:
        return Attended({module: image[module] for module in readers}, crossed=True)
    return Attended({module: tokens for module, tokens in image.items() if bool(tokens.any())}, crossed=False)


def _reads(given: Mapping[str, Any], texts: Tensor | None) -> bool:
    """Whether an attention module is given the texts as the denoiser was given them, and nothing else."""
    text = given.get("encoder_hidden_states")
    if texts is None or len(given) != 1 or not isinstance(text, Tensor):
        return False
    return torch.equal(text, texts.to(text))


def randomised(tokens: Tensor, generator: torch.Generator) -> Tensor:
    """Return random numbers in the place of tokens (N, tokens, width); anything else as it is."""
    if tokens.dim() < 3:
        return tokens
    return torch.randn(tokens.shape, generator=generator).to(tokens) * tokens.float().std().to(tokens)


@contextmanager
def _watched(
    networks: Iterable[nn.Module], seen: Callable[[nn.Module, Tensor, Mapping[str, Any]], None]
) -> Iterator[None]:
    """Call `seen` with every attention module that this thread evaluates, its `hidden_states` and all else that it is
    given, by name."""
    networks, mine = list(networks), threading.get_ident()

    def note(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        if threading.get_ident() != mine:
            return
        given = {str(place): value for place, value in enumerate(args)} | kwargs
        hidden = given.pop("hidden_states") if "hidden_states" in given else given.pop("0")
        seen(module, hidden, {name: value for name, value in given.items() if value is not None})

    with ExitStack() as undo:
        _uncompiled(networks, undo)
        for module in attention_modules(networks):
            undo.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        yield


def _differing(hidden: Tensor) -> Tensor:
    """Return which tokens of (2N, tokens, width) differ between the two halves by more than rounding: (tokens,)."""
    first, second = hidden.detach().float().chunk(2)
    limit = 8 * torch.finfo(hidden.dtype).eps * first.abs().amax()
    return ((first - second).abs().amax(-1) > limit).any(0).cpu()


def _uncompiled(networks: Iterable[nn.Module], undo: ExitStack) -> None:
    """Evaluate networks without the compiler, which would not see hooks."""
    for module in (module for network in networks for module in network.modules()):
        if module._compiled_call_impl is not None:
            undo.enter_context(overruled(module, "_compiled_call_impl", None))


def _hook(module: nn.Module, image: ImageTokens, guidance: AttentionGuidance) -> Any:
    """Hook a module's output projection, or the module itself where the projection belongs to its block (Flux)."""
    mine, projection = threading.get_ident(), getattr(module, "to_out", None)
    in_list = isinstance(projection, nn.ModuleList | nn.Sequential)
    # FLUX.2's projection, which is no list, is given the feed-forward part beside Z.
    width: Any = None if in_list else getattr(module, "inner_dim", None)

    def of_input(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
        if threading.get_ident() != mine or module not in image:
            return None
        return (_mixed(args[0], image[module], guidance, width), *args[1:])

    def of_output(_: nn.Module, __: Any, output: Any) -> Any:
        if threading.get_ident() != mine or module not in image:
            return None
        if not getattr(module, "pre_only", False):
            raise InvalidValue(
                f"must be cfg for this model: the output projection of its {type(module).__name__} is not found",
                field="guidance",
            )
        if isinstance(output, tuple):  # the image's tokens, and the text's apart from them
            return (_mixed(output[0], image[module], guidance, None), *output[1:])
        return _mixed(output, image[module], guidance, None)

    if projection is None:
        return module.register_forward_hook(of_output)
    last: Any = projection[0] if in_list else projection
    return last.register_forward_pre_hook(of_input)


def _mixed(z: Tensor, image: Tensor, guidance: AttentionGuidance, width: int | None) -> Tensor:
    """Return (2N, tokens, channels) with the image tokens of both halves guided, in the first `width` channels.

    Raises:
        InvalidValue: if Z has other tokens than the module's `hidden_states`.
    """
    if len(image) != z.shape[1]:
        raise InvalidValue(
            "must be cfg for this model: its attention puts image and text into one sequence in an order that is not "
            "known",
            field="guidance",
        )
    own, beside = (z, None) if width is None else (z[..., :width], z[..., width:])
    plus, minus = own.chunk(2)
    tokens, both = image.to(z.device)[:, None], guidance(plus, minus)
    found = torch.cat([torch.where(tokens, both, each) for each in (plus, minus)])
    return found if beside is None else torch.cat([found, beside], -1)
