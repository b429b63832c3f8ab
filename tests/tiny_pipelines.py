"""Tiny pipelines of further classes, beside the families of the contract suite (`tiny_families`)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image

from .tiny import clip_tokenizer, qwen_text_encoder
from .tiny_families import FAMILIES, _clip, _listen, _t5, _t5_tokenizer, _vae

PICTURE = Image.fromarray(np.random.default_rng(0).integers(0, 255, (32, 32, 3), dtype=np.uint8))
SMALL = PICTURE.resize((16, 16))
WHOLE = Image.new("L", (32, 32), 255)
HALF = Image.new("L", (32, 32), 255)
HALF.paste(0, (0, 0, 16, 32))
CHAT = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
"""A chat template that adds nothing to the text."""


def _tokenizer(length: int = 512, **options: Any) -> Any:
    tokenizer = clip_tokenizer(length, **options)
    tokenizer.chat_template = CHAT
    return tokenizer


def _decoder_only(name: str, tokenizer: Any, width: int = 16, layers: int = 3, head: str = "Model") -> Any:
    """A language model by the name of its family in transformers: "Gemma2", "Qwen3" or "Llama"."""
    import transformers

    config = getattr(transformers, f"{name}Config")(
        hidden_size=width, intermediate_size=16, num_hidden_layers=layers, num_attention_heads=2,
        num_key_value_heads=2, head_dim=8, vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, attn_implementation="eager",
    )  # fmt: skip
    return getattr(transformers, f"{name}{head}")(config).eval()


def _eightfold() -> Any:
    """An autoencoder of the usual factor of 8, where a pipeline takes it for granted."""
    blocks = {"block_out_channels": (4,) * 4, "down_block_types": ("DownEncoderBlock2D",) * 4}
    return _vae(**blocks, up_block_types=("UpDecoderBlock2D",) * 4)


def _shifted() -> Any:
    return _vae(scaling_factor=0.3611, shift_factor=0.1159)


def cogview3(diffusers: Any) -> Any:
    transformer = diffusers.CogView3PlusTransformer2DModel(
        patch_size=2, in_channels=4, num_layers=1, attention_head_dim=4, num_attention_heads=2, out_channels=4,
        text_embed_dim=32, time_embed_dim=8, condition_dim=2, pos_embed_max_size=8, sample_size=8,
    )  # fmt: skip
    return diffusers.CogView3PlusPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=_vae(),
        transformer=_listen(transformer, "patch_embed.text_proj", by=3),
        scheduler=diffusers.CogVideoXDDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
            rescale_betas_zero_snr=True, set_alpha_to_one=True, snr_shift_scale=4.0, timestep_spacing="trailing",
            clip_sample=False,
        ),
    )  # fmt: skip


def hunyuandit(diffusers: Any) -> Any:
    from transformers import BertConfig, BertModel

    tokenizer = clip_tokenizer()
    transformer = diffusers.HunyuanDiT2DModel(
        sample_size=16, num_layers=2, patch_size=2, attention_head_dim=8, num_attention_heads=3, in_channels=4,
        cross_attention_dim=32, cross_attention_dim_t5=32, pooled_projection_dim=16, hidden_size=24,
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    return diffusers.HunyuanDiTPipeline(
        vae=_eightfold(), text_encoder=BertModel(bert).eval(), tokenizer=tokenizer,
        transformer=_listen(transformer, "attn2.to_v", "attn2.to_out", "proj_out", by=5),
        scheduler=diffusers.DDPMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.02, prediction_type="v_prediction",
            clip_sample=False, steps_offset=1,
        ),
        safety_checker=None, feature_extractor=None, requires_safety_checker=False, text_encoder_2=_t5(),
        tokenizer_2=_t5_tokenizer(),
    )  # fmt: skip


def lumina2(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    transformer = diffusers.Lumina2Transformer2DModel(
        sample_size=8, patch_size=2, in_channels=4, hidden_size=16, num_layers=2, num_refiner_layers=1,
        num_attention_heads=2, num_kv_heads=2, multiple_of=8, axes_dim_rope=(4, 2, 2), axes_lens=(512, 32, 32),
        cap_feat_dim=16,
    )  # fmt: skip
    return diffusers.Lumina2Pipeline(
        transformer=_listen(transformer, "caption_embedder", "attn.to_v", "attn.to_out", by=4),
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=6.0), vae=_shifted(), tokenizer=tokenizer,
        text_encoder=_decoder_only("Gemma2", tokenizer),
    )  # fmt: skip


def chroma(diffusers: Any) -> Any:
    transformer = diffusers.ChromaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=32, axes_dims_rope=(4, 4, 8), approximator_hidden_dim=32, approximator_layers=1,
        approximator_num_channels=16,
    )  # fmt: skip
    return diffusers.ChromaPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=1.0), vae=_shifted(), text_encoder=_t5(),
        tokenizer=_t5_tokenizer(), transformer=_listen(transformer, "context_embedder", by=3),
    )  # fmt: skip


def z_image(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    transformer = diffusers.ZImageTransformer2DModel(
        all_patch_size=(2,), all_f_patch_size=(1,), in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2,
        n_kv_heads=2, cap_feat_dim=16, rope_theta=256.0, t_scale=1000.0, axes_dims=[8, 4, 4], axes_lens=[512, 32, 32],
    )  # fmt: skip
    return diffusers.ZImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=_shifted(), tokenizer=tokenizer,
        text_encoder=_decoder_only("Qwen3", tokenizer),
        transformer=_listen(transformer, "cap_embedder", "to_v", "to_out", by=3),
    )  # fmt: skip


def hidream(diffusers: Any) -> Any:
    tokenizer, clip = clip_tokenizer(128), clip_tokenizer()
    transformer = diffusers.HiDreamImageTransformer2DModel(
        patch_size=2, in_channels=4, out_channels=4, num_layers=1, num_single_layers=1, attention_head_dim=8,
        num_attention_heads=4, caption_channels=[32, 16], text_emb_dim=64, num_routed_experts=2,
        num_activated_experts=1, axes_dims_rope=(4, 2, 2), max_resolution=(32, 32), llama_layers=(0, 1),
        force_inference_output=True,
    )  # fmt: skip
    return diffusers.HiDreamImagePipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0), vae=_shifted(),
        text_encoder=_clip(clip, projected=True), tokenizer=clip, text_encoder_2=_clip(clip, projected=True),
        tokenizer_2=clip, text_encoder_3=_t5(), tokenizer_3=_t5_tokenizer(),
        text_encoder_4=_decoder_only("Llama", tokenizer, head="ForCausalLM"), tokenizer_4=tokenizer,
        transformer=loud(_listen(transformer, "caption_projection", "p_embedder", by=5)),
    )  # fmt: skip


def kandinsky5(diffusers: Any) -> Any:
    tokenizer, clip = _tokenizer(1024), clip_tokenizer()
    transformer = diffusers.Kandinsky5Transformer3DModel(
        in_visual_dim=4, in_text_dim=16, in_text_dim2=32, time_dim=32, out_visual_dim=4, patch_size=(1, 2, 2),
        model_dim=16, ff_dim=16, num_text_blocks=1, num_visual_blocks=1, axes_dims=(4, 2, 2), visual_cond=False,
    )  # fmt: skip
    return diffusers.Kandinsky5T2IPipeline(
        transformer=loud(transformer), vae=_vae(), text_encoder=qwen_text_encoder(tokenizer),
        tokenizer=tokenizer, text_encoder_2=_clip(clip), tokenizer_2=clip,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=3.0),
    )  # fmt: skip


def bria(diffusers: Any) -> Any:
    transformer = diffusers.BriaTransformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=8, num_attention_heads=2,
        joint_attention_dim=32, pooled_projection_dim=None, axes_dims_rope=[0, 4, 4],
    )  # fmt: skip
    return diffusers.BriaPipeline(
        transformer=_listen(transformer, "context_embedder", by=3), vae=_vae(), text_encoder=_t5(),
        tokenizer=_t5_tokenizer(), scheduler=diffusers.FlowMatchEulerDiscreteScheduler(), feature_extractor=None,
        image_encoder=None,
    )  # fmt: skip


def cogvideox(diffusers: Any) -> Any:
    transformer = diffusers.CogVideoXTransformer3DModel(
        num_attention_heads=2, attention_head_dim=16, in_channels=4, out_channels=4, time_embed_dim=2,
        text_embed_dim=32, num_layers=1, sample_width=2, sample_height=2, sample_frames=9, patch_size=2,
        temporal_compression_ratio=4, max_text_seq_length=16,
    )  # fmt: skip
    return diffusers.CogVideoXPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=_cogvideox_vae(diffusers),
        transformer=_listen(transformer, "patch_embed.text_proj", by=3),
        scheduler=diffusers.CogVideoXDDIMScheduler(
            beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, prediction_type="v_prediction",
            rescale_betas_zero_snr=True, set_alpha_to_one=True, snr_shift_scale=3.0, timestep_spacing="trailing",
            clip_sample=False,
        ),
    )  # fmt: skip


def _cogvideox_vae(diffusers: Any) -> Any:
    return diffusers.AutoencoderKLCogVideoX(
        down_block_types=("CogVideoXDownBlock3D",) * 4, up_block_types=("CogVideoXUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip


def mochi(diffusers: Any) -> Any:
    transformer = diffusers.MochiTransformer3DModel(
        patch_size=2, num_attention_heads=2, attention_head_dim=8, num_layers=2, pooled_projection_dim=16,
        in_channels=12, qk_norm="rms_norm", text_embed_dim=32, time_embed_dim=4, max_sequence_length=16,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLMochi(
        latent_channels=12, out_channels=3, encoder_block_out_channels=(32, 32, 32, 32),
        decoder_block_out_channels=(32, 32, 32, 32), layers_per_block=(1, 1, 1, 1, 1),
    )  # fmt: skip
    return diffusers.MochiPipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(invert_sigmas=True), vae=vae, text_encoder=_t5(),
        tokenizer=_t5_tokenizer(), transformer=transformer,
    )  # fmt: skip


def hunyuan_video(diffusers: Any) -> Any:
    tokenizer, clip = _tokenizer(), clip_tokenizer()
    transformer = diffusers.HunyuanVideoTransformer3DModel(
        in_channels=4, out_channels=4, num_attention_heads=2, attention_head_dim=10, num_layers=1, num_single_layers=1,
        num_refiner_layers=1, patch_size=1, patch_size_t=1, guidance_embeds=True, text_embed_dim=16,
        pooled_projection_dim=32, rope_axes_dim=(2, 4, 4),
    )  # fmt: skip
    vae = diffusers.AutoencoderKLHunyuanVideo(
        latent_channels=4, block_out_channels=(8, 8, 8, 8), layers_per_block=1, norm_num_groups=4,
        down_block_types=("HunyuanVideoDownBlock3D",) * 4, up_block_types=("HunyuanVideoUpBlock3D",) * 4,
        mid_block_add_attention=True,
    )  # fmt: skip
    return diffusers.HunyuanVideoPipeline(
        text_encoder=_decoder_only("Llama", tokenizer), tokenizer=tokenizer, transformer=transformer, vae=vae,
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(shift=7.0), text_encoder_2=_clip(clip), tokenizer_2=clip,
    )  # fmt: skip


def latte(diffusers: Any) -> Any:
    transformer = diffusers.LatteTransformer3DModel(
        sample_size=8, num_layers=1, patch_size=2, attention_head_dim=8, num_attention_heads=3, caption_channels=32,
        in_channels=4, cross_attention_dim=24, out_channels=8, attention_bias=True, activation_fn="gelu-approximate",
        num_embeds_ada_norm=1000, norm_type="ada_norm_single", norm_elementwise_affine=False, norm_eps=1e-6,
        video_length=1,
    )  # fmt: skip
    return diffusers.LattePipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=_vae(),
        transformer=_listen(transformer, "attn2.to_v", "attn2.to_out", "proj_out", by=5),
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )  # fmt: skip


def allegro(diffusers: Any) -> Any:
    transformer = diffusers.AllegroTransformer3DModel(
        num_attention_heads=2, attention_head_dim=12, in_channels=4, out_channels=4, num_layers=1,
        cross_attention_dim=24, sample_width=8, sample_height=8, sample_frames=8, caption_channels=32,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLAllegro(
        down_block_types=("AllegroDownBlock3D",) * 4, up_block_types=("AllegroUpBlock3D",) * 4,
        block_out_channels=(8, 8, 8, 8), latent_channels=4, layers_per_block=1, norm_num_groups=2,
        temporal_compression_ratio=4,
    )  # fmt: skip
    return diffusers.AllegroPipeline(
        tokenizer=_t5_tokenizer(), text_encoder=_t5(), vae=vae, transformer=transformer,
        scheduler=diffusers.DDIMScheduler(clip_sample=False),
    )  # fmt: skip


def _flux2(diffusers: Any, **transformer: Any) -> dict[str, Any]:
    """The scheduler, autoencoder and transformer of FLUX.2."""
    net = diffusers.Flux2Transformer2DModel(
        patch_size=1, in_channels=16, num_layers=1, num_single_layers=1, attention_head_dim=16, num_attention_heads=2,
        joint_attention_dim=48, timestep_guidance_channels=16, axes_dims_rope=(4, 4, 4, 4), **transformer,
    )  # fmt: skip
    vae = diffusers.AutoencoderKLFlux2(
        block_out_channels=(4, 8), layers_per_block=1, norm_num_groups=2, latent_channels=4,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True)
    return {"scheduler": scheduler, "vae": vae, "transformer": _listen(net, "context_embedder", by=3)}


def klein(diffusers: Any) -> Any:
    tokenizer = _tokenizer()
    encoder = _decoder_only("Qwen3", tokenizer, head="ForCausalLM")
    parts = _flux2(diffusers, guidance_embeds=False)
    return diffusers.Flux2KleinPipeline(**parts, tokenizer=tokenizer, text_encoder=encoder)


def flux2(diffusers: Any) -> Any:
    """FLUX.2-dev, whose chat messages hold lists of texts."""
    tokenizer = _tokenizer()
    tokenizer.chat_template = CHAT.replace("['content']", "['content'][0]['text']")
    encoder = _decoder_only("Mistral", tokenizer, head="ForCausalLM")
    return diffusers.Flux2Pipeline(**_flux2(diffusers), tokenizer=tokenizer, text_encoder=encoder)


def loud(net: Any) -> Any:
    """An untrained control network's last layers are zeros, which would prove nothing."""
    for name, parameter in net.named_parameters():
        if name.endswith("gate.weight"):  # HiDream leaves its gates as the memory was; trained ones are decided
            torch.nn.init.normal_(parameter, std=10.0)
        elif not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return net.eval()


def _changed_unet(parts: Mapping[str, Any], **config: Any) -> Any:
    torch.manual_seed(0)
    unet = type(parts["unet"]).from_config({**parts["unet"].config, **config})
    return _listen(unet, "attn2.to_v", "attn2.to_out", by=10)


def _nine_channels(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del diffusers
    return {"unet": _changed_unet(parts, in_channels=9)}


def _eight_channels(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del diffusers
    return {"unet": _changed_unet(parts, in_channels=8)}


def _controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    kind = diffusers.ControlNetModel
    return {"controlnet": loud(kind.from_unet(parts["unet"], conditioning_embedding_out_channels=(4, 8)))}


def _sd3_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    kind, options = diffusers.SD3ControlNetModel, {"num_layers": 1, "num_extra_conditioning_channels": 0}
    return {"controlnet": loud(kind.from_transformer(parts["transformer"], **options))}


def _flux_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    sizes = {"num_layers": 1, "num_single_layers": 1, "attention_head_dim": 16, "num_attention_heads": 2}
    return {"controlnet": loud(diffusers.FluxControlNetModel.from_transformer(parts["transformer"], **sizes))}


def _qwen_controlnet(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    kind = diffusers.QwenImageControlNetModel
    accepted = inspect.signature(kind.__init__).parameters
    config = {name: value for name, value in parts["transformer"].config.items() if name in accepted}
    return {"controlnet": loud(kind(**{**config, "num_layers": 1}))}


def _control(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """A transformer that takes a picture's latents beside its own."""
    del diffusers
    config = parts["transformer"].config
    wide = {**config, "in_channels": 2 * config["in_channels"], "out_channels": config["in_channels"]}
    return {"transformer": loud(type(parts["transformer"]).from_config(wide))}


def _adapter(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    """T2I-Adapter, and a UNet whose first block is the one with attention, as those it was made for have it."""
    config = parts["unet"].config
    turned = {name: config[name][::-1] for name in ("down_block_types", "up_block_types")}
    turned |= {name: config[name][::-1] for name in ("attention_head_dim",) if isinstance(config[name], list | tuple)}
    options = {"in_channels": 3, "channels": [4, 8], "num_res_blocks": 1, "downscale_factor": 2}
    return {"adapter": loud(diffusers.T2IAdapter(**options)), "unet": _changed_unet(parts, **turned)}


def _motion(diffusers: Any, parts: Mapping[str, Any]) -> dict[str, Any]:
    del parts
    adapter = diffusers.MotionAdapter(
        block_out_channels=(4, 8), motion_layers_per_block=1, motion_norm_num_groups=2, motion_num_attention_heads=2,
        use_motion_mid_block=False,
    )  # fmt: skip
    return {"motion_adapter": loud(adapter)}


Parts = Callable[[Any, Mapping[str, Any]], dict[str, Any]]
ABSENT = {"safety_checker", "feature_extractor", "image_encoder", "caption_generator", "caption_processor"}
"""Parts that stay None where a case does not make them."""


@dataclass(frozen=True)
class TinyPipeline:
    """A tiny pipeline of one class, with random weights, and how it is called.

    Attributes:
        name: the class.
        build: makes it from nothing; None if it is made of the parts of a family.
        family: whose parts it is made of: a family, or another of these classes.
        parts: makes the parts that it has beside them.
        call: arguments of its call beside those of the family.
        attributes: of the pipeline, set before it is called.
        refused: what the refusal says; empty if it is accepted.
        guidance: "nag" where its call has no null branch.
        steps: how many the measurements take; 1 where its scheduler's steps draw noise.
    """

    name: str
    build: Callable[[Any], Any] | None = None
    family: str = ""
    parts: Parts | None = None
    call: Mapping[str, Any] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    refused: str = ""
    guidance: Literal["cfg", "nag"] = "cfg"
    steps: int = 3

    def __str__(self) -> str:
        return self.name

    def load(self, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
        """Return the pipeline, loaded from a checkpoint in the folder, and its call's arguments."""
        import diffusers

        call = dict(self.call)
        torch.manual_seed(0)
        if self.build is not None:
            built = self.build(diffusers)
            built.save_pretrained(folder / self.name)
            given = {name: part for name, part in built.components.items() if not hasattr(part, "save_pretrained")}
            pipeline = diffusers.DiffusionPipeline.from_pretrained(folder / self.name, **given, **options)
        else:
            base, shared = self._base(folder, **options)
            pipeline = self._composed(diffusers, base, **options)
            accepted = inspect.signature(type(pipeline).__call__).parameters
            call = {key: value for key, value in shared.items() if key in accepted} | call
        for name, value in self.attributes.items():
            setattr(pipeline, name, value)
        pipeline.set_progress_bar_config(disable=True)
        return pipeline, call

    def _base(self, folder: Path, **options: Any) -> tuple[Any, Mapping[str, Any]]:
        """The pipeline whose parts this one is made of, and its call's arguments."""
        import diffusers

        if self.family not in FAMILIES:
            return next(case for case in PIPELINES if case.name == self.family).load(folder, **options)
        if not (folder / self.family).exists():
            FAMILIES[self.family].save(folder / self.family)
        return diffusers.DiffusionPipeline.from_pretrained(folder / self.family, **options), FAMILIES[self.family].call

    def _composed(self, diffusers: Any, base: Any, **options: Any) -> Any:
        kind, parts = getattr(diffusers, self.name), dict(base.components)
        torch.manual_seed(0)
        more = self.parts(diffusers, parts) if self.parts is not None else {}
        dtype = options.get("dtype", torch.float32)
        parts |= {name: part.to(dtype) if isinstance(part, torch.nn.Module) else part for name, part in more.items()}
        wanted = [each for each in inspect.signature(kind.__init__).parameters if each != "self"]
        given = {each: parts[each] for each in wanted if each in parts}
        absent = ABSENT & set(wanted) - set(given)
        given |= dict.fromkeys(absent)
        return kind(**given, **({"requires_safety_checker": False} if "requires_safety_checker" in wanted else {}))


SIZE: dict[str, Any] = {"height": 16, "width": 16}
MASKED: dict[str, Any] = {"image": PICTURE, "mask_image": WHOLE}
PICTURED: dict[str, Any] = {"image": SMALL, **SIZE}
_PAG = "3 branches where two were expected"
_OTHER_TEXT = "controlnet reads another text than its denoiser does"

PIPELINES: tuple[TinyPipeline, ...] = (
    TinyPipeline("CogView3PlusPipeline", cogview3, call=SIZE),
    TinyPipeline(
        "HunyuanDiTPipeline", hunyuandit, call={"height": 64, "width": 64, "use_resolution_binning": False}
    ),
    TinyPipeline("Lumina2Pipeline", lumina2, call=SIZE),
    TinyPipeline("ChromaPipeline", chroma, call=SIZE),
    TinyPipeline("ZImagePipeline", z_image, call=SIZE),
    TinyPipeline(
        "HiDreamImagePipeline", hidream, call={**SIZE, "max_sequence_length": 77},
        attributes={"default_sample_size": 8},  # every size is scaled to the area of this one
    ),
    TinyPipeline(
        "Kandinsky5T2IPipeline", kandinsky5, call={"height": 64, "width": 64}, attributes={"resolutions": [(64, 64)]}
    ),
    TinyPipeline("BriaPipeline", bria, call=SIZE),
    TinyPipeline("Flux2KleinPipeline", klein, call={**SIZE, "text_encoder_out_layers": (1, 2, 3)}),
    TinyPipeline("Flux2Pipeline", flux2, call={**SIZE, "text_encoder_out_layers": (1, 2, 3)}, guidance="nag"),
    TinyPipeline("CogVideoXPipeline", cogvideox, call={**SIZE, "num_frames": 9, "max_sequence_length": 16}),
    TinyPipeline("MochiPipeline", mochi, call={**SIZE, "num_frames": 7, "max_sequence_length": 16}),
    TinyPipeline(
        "HunyuanVideoPipeline", hunyuan_video,
        call={
            **SIZE, "num_frames": 5, "prompt_template": {"template": "{}", "crop_start": 0}, "max_sequence_length": 16
        },
    ),
    TinyPipeline("LattePipeline", latte, call={**SIZE, "video_length": 1, "mask_feature": False}),
    TinyPipeline("AllegroPipeline", allegro, call={**SIZE, "num_frames": 8}, refused="Decoding without tiling"),
    TinyPipeline("PixArtAlphaPipeline", family="pixart"),
    TinyPipeline("StableDiffusionImg2ImgPipeline", family="sd", call={"image": SMALL, "strength": 0.6}),
    TinyPipeline("StableDiffusionXLImg2ImgPipeline", family="sdxl", call={"image": SMALL, "strength": 0.6}),
    TinyPipeline("KolorsImg2ImgPipeline", family="kolors", call={**PICTURED, "strength": 0.6}),
    TinyPipeline("StableDiffusion3Img2ImgPipeline", family="sd3", call={**PICTURED, "strength": 0.6}),
    TinyPipeline("FluxImg2ImgPipeline", family="flux", call={**PICTURED, "strength": 0.6}),
    TinyPipeline("QwenImageImg2ImgPipeline", family="qwen", call={"image": PICTURE, "strength": 0.6}),
    TinyPipeline(
        "FluxKontextPipeline", family="flux",
        call={**SIZE, "image": PICTURE, "max_area": 256, "_auto_resize": False},  # a picture of another size
    ),
    TinyPipeline(
        "StableDiffusionInpaintPipeline", family="sd", parts=_nine_channels,
        call={**MASKED, "mask_image": HALF, "height": 32, "width": 32},
    ),
    TinyPipeline(
        "StableDiffusionXLInpaintPipeline", family="sdxl", parts=_nine_channels,
        call={**MASKED, "mask_image": HALF, "height": 32, "width": 32, "strength": 0.99},
    ),
    TinyPipeline("FluxInpaintPipeline", family="flux", call={**MASKED, "strength": 1.0}),
    TinyPipeline("QwenImageInpaintPipeline", family="qwen", call={**MASKED, "strength": 1.0}),
    TinyPipeline("StableDiffusionControlNetPipeline", family="sd", parts=_controlnet, call=PICTURED),
    TinyPipeline("StableDiffusionXLControlNetPipeline", family="sdxl", parts=_controlnet, call=PICTURED),
    TinyPipeline(
        "StableDiffusionControlNetImg2ImgPipeline", family="sd", parts=_controlnet,
        call={**PICTURED, "control_image": SMALL, "strength": 0.6},
    ),
    TinyPipeline(
        "StableDiffusion3ControlNetPipeline", family="sd3", parts=_sd3_controlnet,
        call={**SIZE, "control_image": SMALL},
    ),
    TinyPipeline(
        "FluxControlNetPipeline", family="flux", parts=_flux_controlnet, call={"control_image": SMALL},
        refused=_OTHER_TEXT,
    ),
    TinyPipeline(
        "QwenImageControlNetPipeline", family="qwen", parts=_qwen_controlnet, call={"control_image": PICTURE},
        refused=_OTHER_TEXT,
    ),
    TinyPipeline(  # the noise with which it encodes the control picture has the size of its latents
        "CogView4ControlPipeline", family="cogview4", parts=_control, call={**SIZE, "control_image": SMALL}
    ),
    TinyPipeline("StableDiffusionXLAdapterPipeline", family="sdxl", parts=_adapter, call=PICTURED),
    TinyPipeline(
        "StableDiffusionAdapterPipeline", family="sd", parts=_adapter, call=PICTURED,
        refused="returns a ndarray where output_type='pt' means a tensor",
    ),
    TinyPipeline("StableDiffusionPAGPipeline", family="sd", call={"pag_scale": 0.0}),
    TinyPipeline("StableDiffusionXLPAGPipeline", family="sdxl", call={"pag_scale": 0.0}),
    TinyPipeline("KolorsPAGPipeline", family="kolors", call={"pag_scale": 0.0}),
    TinyPipeline("StableDiffusion3PAGPipeline", family="sd3", call={"pag_scale": 0.0}),
    TinyPipeline("PixArtSigmaPAGPipeline", family="pixart", call={"pag_scale": 0.0}),
    TinyPipeline("SanaPAGPipeline", family="sana", call={"pag_scale": 0.0}),
    TinyPipeline(
        "StableDiffusionInstructPix2PixPipeline", family="sd", parts=_eight_channels, call={"image": SMALL},
        refused=_PAG,
    ),
    TinyPipeline("StableDiffusionPanoramaPipeline", family="sd", call=SIZE, refused="changes them in place"),
    TinyPipeline(
        "LTXImageToVideoPipeline", family="ltx", call={"image": PICTURE}, refused="keeps a part of its latents"
    ),
    TinyPipeline(
        "AnimateDiffPipeline", family="sd", parts=_motion, call={**SIZE, "num_frames": 2},
        refused="the latents reach the decoder in a way that is not known",
    ),
)  # fmt: skip
ACCEPTED = tuple(each for each in PIPELINES if not each.refused)
REFUSED = tuple(each for each in PIPELINES if each.refused)
FAMILY_PIPELINES = tuple(
    TinyPipeline(name, family=family)
    for name, family in {
        "StableDiffusionPipeline": "sd", "StableDiffusionXLPipeline": "sdxl", "KolorsPipeline": "kolors",
        "StableDiffusion3Pipeline": "sd3", "PixArtSigmaPipeline": "pixart", "SanaPipeline": "sana",
        "FluxPipeline": "flux", "QwenImagePipeline": "qwen", "AuraFlowPipeline": "auraflow",
        "CogView4Pipeline": "cogview4", "WanPipeline": "wan", "LTXPipeline": "ltx",
    }.items()
)  # fmt: skip
"""The classes of the families, which the contract suite tests."""


def comparable(pipeline: Any) -> None:
    """Let the pipeline's own steps be of first order and without noise, as ours are at η = 0."""
    from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler

    if isinstance(pipeline.scheduler, DDPMScheduler):
        pipeline.scheduler = DDIMScheduler.from_config(pipeline.scheduler.config, clip_sample=False)
    if isinstance(pipeline.scheduler, DPMSolverMultistepScheduler):
        pipeline.scheduler = DPMSolverMultistepScheduler.from_config(pipeline.scheduler.config, solver_order=1)
