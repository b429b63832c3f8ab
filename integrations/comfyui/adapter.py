"""ComfyUI's MODEL, CLIP and VAE as a `GuidedModel`, so that `nulltta.align` can optimise the null text of a prompt.

It needs a ComfyUI with the schema V3: the networks of older ones write into tensors that a gradient needs.

ComfyUI holds latents as x0 + σ·ε; here they are divided by √(1 + σ²), which preserves the variance: ᾱ = 1/(1 + σ²).
`apply_model` returns x̂0 for models of ε and of v alike, so that the prediction here is always ε̂ = (x − x̂0)/σ.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import comfy.model_base
import comfy.model_management
import comfy.model_sampling
import comfy.samplers
import torch
from torch import Tensor, nn

from nulltta.contracts import Embedding, NoiseStep
from nulltta.errors import DoesNotFit, InvalidValue
from nulltta.models.steps import ObservedStep, StepwiseModel

TEXT, POOLED = "encoder_hidden_states", "added_cond_kwargs.text_embeds"
"""The tensors of an embedding, by their names in diffusers, as in every null text."""
KINDS = (comfy.model_base.BaseModel, comfy.model_base.SDXL)
"""The classes of the models whose calls are known: Stable Diffusion 1 and 2, and SDXL."""


class ComfyModel(StepwiseModel):
    """A MODEL with its CLIP and VAE, for pictures of one size.

    Args:
        model: the MODEL; its LoRAs are those of its weights.
        clip: the CLIP.
        vae: the VAE.
        size: (height, width) in pixels.
        schedule: the name of one of ComfyUI's schedules of sigmas.

    Raises:
        DoesNotFit: if the MODEL is of another kind, or does more in a call than its denoiser.
    """

    name = "comfyui"

    def __init__(self, model: Any, clip: Any, vae: Any, size: tuple[int, int], schedule: str = "normal") -> None:
        _refuse_unknown(model)
        self.patcher, self.clip, self.vae, self.size, self.sigmas = model, clip, vae, size, schedule
        comfy.model_management.load_models_gpu([model, vae.patcher])
        self.denoiser, self.sampling = model.model, model.model.model_sampling
        if not isinstance(self.sampling, comfy.model_sampling.EPS | comfy.model_sampling.V_PREDICTION):
            raise DoesNotFit("Align knows models that predict ε or v: use nulltta align for this one")
        with torch.inference_mode(False):
            for network in (self.denoiser.diffusion_model, vae.first_stage_model):
                _make_differentiable(network)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        height, width = self.size
        return (4, height // 8, width // 8)

    @property
    def dtype(self) -> torch.dtype:
        dtype: torch.dtype = self.denoiser.get_dtype()
        return dtype

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        with torch.no_grad():
            cond, null = ([self._encoded(text) for text in texts] for texts in (prompts, negatives))
        return _stacked(cond), _stacked(null)

    def _encoded(self, text: str) -> dict[str, Tensor]:
        hidden, pooled = self.clip.encode_from_tokens(self.clip.tokenize(text), return_pooled=True)
        found = {TEXT: hidden} | ({POOLED: pooled} if isinstance(self.denoiser, comfy.model_base.SDXL) else {})
        device = self.patcher.load_device
        return {name: tensor.detach().clone().to(device, torch.float32) for name, tensor in found.items()}

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        sigmas = comfy.samplers.calculate_sigmas(self.sampling, self.sigmas, num_inference_steps).tolist()
        return [self._step(*pair) for pair in pairwise(sigmas)]

    def _step(self, sigma: float, following: float) -> ObservedStep:
        table = [1 / (1 + float(each) ** 2) for each in self.sampling.sigmas]  # ᾱ of the training schedule
        t = int(self.sampling.timestep(torch.tensor([sigma])).round())
        alpha = table[t] / (table[t - 1] if t else 1.0)  # α_t
        now, then = 1 / (1 + sigma**2), 1 / (1 + following**2)
        return ObservedStep(
            float(self.sampling.timestep(torch.tensor([sigma]))), now, then, (1 - alpha) / (2 * alpha * (1 - now)),
            signal=math.sqrt(now), noise=math.sqrt(1 - now),
            signal_next=math.sqrt(then), noise_next=math.sqrt(1 - then),
        )  # fmt: skip

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        text, sigma = embedding[TEXT], math.sqrt((1 - step.alpha_bar) / step.alpha_bar)
        height, width = self.size
        more = self.denoiser.encode_adm(
            pooled_output=embedding.get(POOLED), width=width, height=height, device=x.device, cross_attn=text
        )
        noisy = x / math.sqrt(step.alpha_bar)
        clean = self.denoiser.apply_model(
            noisy, x.new_full((len(x),), sigma), c_crossattn=text, transformer_options={},
            **({} if more is None else {"y": more}),
        )  # fmt: skip
        eps: Tensor = (noisy - clean) / sigma
        return eps

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        if detail != "full":
            raise InvalidValue(f"unknown detail '{detail}': choose full", "detail")
        latents = self.denoiser.process_latent_out(x0).to(self.vae.vae_dtype)
        images: Tensor = self.vae.first_stage_model.decode(latents).float()
        return ((images + 1) / 2).clamp(0, 1)


def _refuse_unknown(model: Any) -> None:
    """Refuse what the adapter cannot do, in one line.

    Raises:
        DoesNotFit: if the MODEL is of another kind, or does more in a call than its denoiser.
    """
    kind = type(model.model)
    if kind not in KINDS or getattr(model.model, "concat_keys", ()):
        raise DoesNotFit(f"Align knows Stable Diffusion and SDXL, not this {kind.__name__}: use nulltta align for it")
    options = {name for name, value in model.model_options.items() if name != "transformer_options" or value}
    if options:
        raise DoesNotFit(
            f"the MODEL has '{min(options)}', which Align cannot follow: connect Align before the node that adds it"
        )


def _make_differentiable(network: nn.Module) -> None:
    """Exchange weights that were made in inference mode, through which no gradient passes, for copies of themselves."""
    for module in network.modules():
        for name, weight in module._parameters.items():
            if weight is not None and weight.is_inference():
                module._parameters[name] = nn.Parameter(weight.clone(), requires_grad=False)
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_inference():
                module._buffers[name] = buffer.clone()
    network.requires_grad_(False)


def _stacked(rows: Sequence[Embedding]) -> dict[str, Tensor]:
    return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}


def progress(total: int) -> Callable[[Any], None]:
    """Return what `align` calls after each step: it shows progress and preview, and stops where the user did."""
    from comfy.utils import ProgressBar

    from nulltta.images import to_pil

    bar = ProgressBar(total)

    def shown(bar: Any, step: Any) -> None:
        comfy.model_management.throw_exception_if_processing_interrupted()
        picture = None if step.preview is None else ("JPEG", to_pil(step.preview[:1])[0], 512)
        bar.update_absolute(step.index + 1, total, picture)

    return partial(shown, bar)
