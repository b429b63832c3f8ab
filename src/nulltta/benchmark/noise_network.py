"""HyperNoise: a network that was learnt once moves the initial noise of any prompt (arXiv 2508.09968)."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from nulltta.algorithm.problem import Problem
from nulltta.algorithm.sampling import plain
from nulltta.contracts import Embedding, GuidedModel, Stream
from nulltta.errors import DoesNotFit, LoadError
from nulltta.files import atomic
from nulltta.models.nag import unguided
from nulltta.null_text.identity import identity, require_fit

FORMAT = "nulltta noise network 1"


class NoiseNetwork(nn.Module):
    """Δ(x_T, c): a copy of the denoiser with a LoRA, whose last layer starts at zero and learns too.

    As in the paper, the network is the generator itself, adapted. What learns is `learnt`; all else is frozen.

    Args:
        model: a model whose denoiser is a UNet that reads the prompt as one sequence of tokens.

    Raises:
        DoesNotFit: if the denoiser is another.
    """

    def __init__(self, model: GuidedModel) -> None:
        from peft import LoraConfig

        from nulltta.embedded.train.turbo import RANK, TARGETS  # the model's own LoRA adapts the same layers

        super().__init__()
        denoiser = getattr(getattr(model, "pipeline", None), "unet", None)
        if denoiser is None:
            raise DoesNotFit("a noise network is a copy of a UNet, and this model's denoiser is another")
        unet: Any = copy.deepcopy(denoiser).requires_grad_(False)
        unet.add_adapter(LoraConfig(r=RANK, lora_alpha=RANK, target_modules=list(TARGETS)))
        nn.init.zeros_(unet.conv_out.weight)
        nn.init.zeros_(unet.conv_out.bias)
        unet.conv_out.requires_grad_(True)
        self.unet, self.identity = unet, identity(model)

    @property
    def learnt(self) -> dict[str, nn.Parameter]:
        """The parameters that learn, by name."""
        return {name: value for name, value in self.unet.named_parameters() if value.requires_grad}

    def forward(self, x: Tensor, timestep: float, tokens: Tensor) -> Tensor:
        """Return Δ of initial latents (B, C, h, w) at the first denoising step's timestep, for prompts (B, L, D)."""
        shift: Tensor = self.unet(x, timestep, encoder_hidden_states=tokens).sample
        return shift

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write what was learnt, and how, in JSON's types, completely or not at all."""
        from safetensors.torch import save

        tensors = {name: value.detach().cpu().contiguous() for name, value in self.learnt.items()}
        metadata = {"format": FORMAT, "about": json.dumps({**about, "model": self.identity})}
        with atomic(path) as temporary:
            temporary.write_bytes(save(tensors, metadata))

    @classmethod
    def read(cls, path: Path, model: GuidedModel) -> NoiseNetwork:
        """Read what `save` wrote.

        Raises:
            LoadError: if it is not a noise network's file.
            DoesNotFit: if it was learnt for another model.
        """
        from safetensors.torch import load_file

        require_fit(about_network(path), model)
        network, tensors = cls(model), load_file(path)
        if {name: value.shape for name, value in tensors.items()} != {n: p.shape for n, p in network.learnt.items()}:
            raise LoadError(f"'{path}' holds other weights than a noise network of this model has")
        network.unet.load_state_dict(tensors, strict=False)
        return network.eval().requires_grad_(False)


def about_network(path: str | Path) -> dict[str, Any]:
    """Return how a noise network was learnt.

    Raises:
        LoadError: if the file is another.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("format") != FORMAT:
            raise LoadError(f"'{path}' is not a noise network")
        return dict(json.loads(metadata["about"]))
    except (OSError, SafetensorError, LookupError, ValueError) as error:
        raise LoadError(f"'{path}' is not a noise network") from error


@lru_cache(maxsize=1)
def _network(model: GuidedModel, file: str) -> NoiseNetwork:
    """Return the network of a file, read once for all batches of a benchmark."""
    return NoiseNetwork.read(Path(file), model)


def tokens_in(cond: Embedding) -> Tensor:
    """Return the one sequence of tokens in a conditioning of the model without guidance, (B, L, D)."""
    (tokens,) = (tensor for tensor in cond.values() if tensor.dim() == 3)
    return tokens


@dataclass(frozen=True, kw_only=True)
class NoiseNetworkSampling:
    """Sample plainly from the initial latent x_T + Δ(x_T, c).

    Cost per prompt: one denoiser evaluation more than plain sampling.

    Attributes:
        file: what `studies/hyper_noise.py` wrote.
    """

    file: str = ""

    @torch.no_grad()
    def __call__(self, problem: Problem) -> Stream:
        p, x, network = problem, problem.latents[:, 0], _network(unguided(problem.model), self.file)
        cond, _ = unguided(p.model).encode(p.prompts, [""] * len(p.prompts))
        shift = network.to(x.device)(x, p.schedule()[0].timestep, tokens_in(cond))
        nats = shift.flatten(1).square().sum(1).cpu() / 2  # of moving x_T's distribution by Δ, its slope left aside
        outcome = yield from _with_nats(plain(replace(p, latents=(x + shift)[:, None])), nats)
        return replace(outcome, initial_latents=x)


def _with_nats(stream: Stream, nats: Tensor) -> Stream:
    """Pass a stream on, with so many nats at its first step."""
    first = next(stream)
    yield replace(first, kl=nats)
    return (yield from stream)
