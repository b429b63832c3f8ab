"""The models that costs are measured on: the embedded one, and models of real sizes with random weights.

A model with random weights costs what the published one costs, and needs no download.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

import nulltta
from nulltta.config import NullTTAConfig
from nulltta.contracts import GuidedModel, Reward
from nulltta.embedded.scorers import load_scorer
from nulltta.embedded.tokenizer import build_tokenizer, token_ids
from nulltta.models import EMBEDDED
from nulltta.rewards.clip import ClipScore
from nulltta.rewards.dual_encoder import DualEncoder
from nulltta.rewards.preprocess import Preprocess

EXACT = NullTTAConfig.embedded(
    inner_steps=(4, 12), learning_rate=0.01, num_particles=4, optimise_between=(0.0, 1.0), inner_decoder="full"
)
"""Settings for the embedded model without any approximation that saves time."""


@dataclass(frozen=True)
class MeasuredModel:
    """A model with a reward and settings, ready to be measured.

    Attributes:
        stock: the pipeline as diffusers loads it, with frozen weights; for random weights the same as `pipeline`.
        pipeline: the pipeline that `model` adapts.
        model: what `align` samples with.
        reward: what is raised.
        config: settings without approximations.
        forget_texts: makes the reward encode its prompts again, as a scorer that keeps no features would.
    """

    stock: Any
    pipeline: Any
    model: GuidedModel
    reward: Reward
    config: NullTTAConfig
    forget_texts: Callable[[], None]

    def forgetful_reward(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        """Score images as the published release does: in float32, and encoding the prompts at every call."""
        self.forget_texts()
        return self.reward(images.float(), prompts)


def measured_model(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> MeasuredModel:
    """Load or make a model: "embedded", or "sd15" at 512² and "sdxl" at 1024² with a ViT-H reward."""
    if name == "embedded":
        model = nulltta.load_model("embedded", device=device, dtype=dtype)
        from diffusers import StableDiffusionPipeline

        stock = StableDiffusionPipeline.from_pretrained(EMBEDDED, dtype=dtype).to(device)
        for part in (stock.unet, stock.vae, stock.text_encoder):
            part.requires_grad_(False)
        scorer = load_scorer("clip", device)
        return MeasuredModel(stock, model.pipeline, model, scorer, EXACT, scorer.forget_texts)
    pipeline = measured_pipeline(name, device, dtype)
    with torch.device(device):
        reward = ClipScore(vit_h(), "vit-h")
    reward.encoder.model.to(dtype)
    reward.encoder.dtype = dtype
    model, config = nulltta.load_model(pipeline), NullTTAConfig(inner_steps=(5, 55))
    return MeasuredModel(pipeline, pipeline, model, reward, config, reward.encoder.forget_texts)


def measured_pipeline(name: str, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Any:
    """Make the stock pipeline of "sd15" or "sdxl" at its published size, with random weights."""
    torch.manual_seed(0)
    with torch.device(device):
        pipeline = {"sd15": _sd15, "sdxl": _sdxl}[name]()
    for part in pipeline.components.values():
        if isinstance(part, torch.nn.Module):
            part.to(dtype).eval().requires_grad_(False)
    return pipeline


def vit_h() -> DualEncoder:
    """Make CLIP ViT-H/14, the encoder of PickScore and HPSv2, with random weights on the current device."""
    from transformers import CLIPConfig, CLIPModel

    shape = {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16, "intermediate_size": 5120}
    text = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096}
    config = CLIPConfig(
        vision_config={**shape, "patch_size": 14, "image_size": 224, "hidden_act": "gelu"},
        text_config={**text, "vocab_size": 49408, "hidden_act": "gelu"}, projection_dim=1024,
    )  # fmt: skip
    model = CLIPModel(config).eval().requires_grad_(False)
    words = build_tokenizer()
    return DualEncoder(model, Preprocess((224, 224)), lambda prompt: token_ids(words, [prompt]), model.device)


def _vae(scaling_factor: float) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, scaling_factor=scaling_factor,
    )  # fmt: skip


def _scheduler() -> Any:
    from diffusers import DDIMScheduler

    with torch.device("cpu"):  # as a scheduler that is loaded
        return DDIMScheduler(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear", clip_sample=False,
                             set_alpha_to_one=False, steps_offset=1)  # fmt: skip


def _text_encoder(kind: str, width: int, layers: int) -> Any:
    import transformers

    config = transformers.CLIPTextConfig(hidden_size=width, num_hidden_layers=layers, num_attention_heads=width // 64,
                                         intermediate_size=4 * width, projection_dim=width)  # fmt: skip
    return getattr(transformers, kind)(config)


def _tokenizer() -> Any:
    """Return the embedded model's tokenizer, padded to CLIP's length."""
    words = build_tokenizer()
    words.model_max_length = 77
    return words


def _sd15() -> Any:
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(sample_size=64, cross_attention_dim=768, attention_head_dim=8)
    return StableDiffusionPipeline(
        vae=_vae(0.18215), text_encoder=_text_encoder("CLIPTextModel", 768, 12), tokenizer=_tokenizer(),
        unet=unet, scheduler=_scheduler(), safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip


def _sdxl() -> Any:
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel

    unet = UNet2DConditionModel(
        sample_size=128, down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), block_out_channels=(320, 640, 1280),
        layers_per_block=2, attention_head_dim=(5, 10, 20), cross_attention_dim=2048, use_linear_projection=True,
        transformer_layers_per_block=(1, 2, 10), addition_embed_type="text_time", addition_time_embed_dim=256,
        projection_class_embeddings_input_dim=2816,
    )  # fmt: skip
    return StableDiffusionXLPipeline(
        vae=_vae(0.13025), text_encoder=_text_encoder("CLIPTextModel", 768, 12),
        text_encoder_2=_text_encoder("CLIPTextModelWithProjection", 1280, 32), tokenizer=_tokenizer(),
        tokenizer_2=_tokenizer(), unet=unet, scheduler=_scheduler(),
    )  # fmt: skip


def denoise(pipeline: Any, x: Tensor, tokens: Tensor) -> Tensor:
    """Evaluate one branch of a UNet at latents (N, C, h, w) and tokens (N, L, D), its other conditioning zero."""
    added: dict[str, Tensor] = {}
    if pipeline.unet.config.addition_embed_type == "text_time":
        added = {"text_embeds": tokens.new_zeros(len(x), 1280), "time_ids": tokens.new_zeros(len(x), 6)}
    output: Tensor = pipeline.unet(x, 1, encoder_hidden_states=tokens, added_cond_kwargs=added).sample
    return output


def no_tokens(pipeline: Any, rows: int, device: str) -> Tensor:
    """Make token embeddings of zeros, (rows, L, D)."""
    length = pipeline.text_encoder.config.max_position_embeddings
    return torch.zeros(rows, length, pipeline.unet.config.cross_attention_dim, device=device)
