"""What is particular to one family, beside the contract that all keep."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align
from nulltta.scoring import score

from ..tiny_families import FAMILIES, save_cogview4, save_ltx, save_pixart, save_qwen, save_wan


def test_the_null_mask_stays_or_opens_as_asked(tmp_path: Path) -> None:
    folder = save_pixart(tmp_path / "model")
    x = torch.randn((1, 4, 8, 8), generator=torch.Generator().manual_seed(0))
    seen = {}
    for null, open_tokens in (("masked", 1), ("open", 300)):
        model = nulltta.load_model(folder, device="cpu", null=null, **FAMILIES["pixart"].call)
        _, phi = model.encode(["a cat"], [""])
        assert int(phi["encoder_attention_mask"].sum()) == open_tokens
        assert not phi["encoder_attention_mask"].is_floating_point()
        tokens = phi["encoder_hidden_states"].requires_grad_()
        prediction = model.predict(x, model.schedule(4)[1], phi)
        (gradient,) = torch.autograd.grad(prediction.square().sum(), tokens)
        seen[null] = int((gradient[0].abs().sum(-1) > 0).sum())
    assert seen == {"masked": 1, "open": 300}


def test_qwens_guidance_has_the_conditional_norm_in_every_patch(tmp_path: Path) -> None:
    model = nulltta.load_model(save_qwen(tmp_path / "model"), device="cpu", **FAMILIES["qwen"].call)
    null, cond = (model.initial_latents(2, torch.Generator().manual_seed(i)) for i in (0, 1))
    patches = model.to_pipeline(model.guide(null, cond, 4.0))
    torch.testing.assert_close(patches.norm(dim=-1), model.to_pipeline(cond).norm(dim=-1))
    plain = model.to_pipeline(null + 4.0 * (cond - null))
    assert float(torch.cosine_similarity(patches, plain, dim=-1).min()) == pytest.approx(1, abs=1e-5)


def test_texts_of_unlike_length_do_not_touch_each_other_in_cogview4(tmp_path: Path) -> None:
    model = nulltta.load_model(save_cogview4(tmp_path / "model"), device="cpu")
    prompts = ["a cat", "a very long prompt about many cats"]
    cond, _ = model.encode(prompts, ["", ""])
    assert cond["encoder_hidden_states.length"].tolist() == [16, 32]
    x, step = torch.randn((2, 4, 8, 8), generator=torch.Generator().manual_seed(0)), model.schedule(4)[1]
    both = model.predict(x, step, cond)
    for i, prompt in enumerate(prompts):
        alone, _ = model.encode([prompt], [""])
        torch.testing.assert_close(both[i : i + 1], model.predict(x[i : i + 1], step, alone), rtol=0, atol=1e-5)


def test_a_video_is_scored_by_the_mean_over_its_frames(tmp_path: Path) -> None:
    def first_pixel(images: Tensor, prompts: Any) -> Tensor:
        assert len(images) == len(prompts)
        return images[:, 0, 0, 0]

    first_pixel.name = "first pixel"  # type: ignore[attr-defined]
    video = torch.zeros((2, 4, 3, 2, 2))
    video[1, :, 0, 0, 0] = torch.tensor([0.0, 0.2, 0.4, 1.0])
    assert score(first_pixel, video, ["a", "b"]).tolist() == pytest.approx([0.0, 0.4])  # type: ignore[arg-type]
    model: Any = nulltta.load_model(save_wan(tmp_path / "model"), device="cpu", **FAMILIES["wan"].call)
    model.scored_frames = 2
    x0 = model.initial_latents(1, torch.Generator().manual_seed(0))
    some = model.decode(x0)
    model.scored_frames = None
    assert torch.equal(some, model.decode(x0)[:, [0, 4]])


@pytest.mark.parametrize(("asked", "drawn"), [(3, 1), (7, 5)])
def test_frames_that_the_pipeline_rounds_in_silence_are_refused(asked: int, drawn: int, tmp_path: Path) -> None:
    case = FAMILIES["wan"]
    pipeline = case.load(case.save(tmp_path / "model")).pipeline
    model = nulltta.load_model(pipeline, **{**case.call, "num_frames": asked})
    with pytest.raises(NullTTAError, match=f"num_frames cannot be {asked}: the pipeline draws {drawn} instead"):
        model.encode(["a cat"], [""])


def test_a_family_of_two_denoisers_is_compiled_where_it_has_one(tmp_path: Path) -> None:
    model: Any = nulltta.load_model(save_wan(tmp_path / "model"), device="cpu", compile=True, **FAMILIES["wan"].call)
    assert model.pipeline.transformer_2 is None
    assert model.pipeline.transformer._compiled_call_impl is not None  # compiled at its first call
    model.enable_checkpointing()
    assert model.recompute


def test_the_first_ltx_whose_decoder_has_no_timestep_is_sampled_as_by_its_pipeline(tmp_path: Path) -> None:
    model: Any = nulltta.load_model(
        save_ltx(tmp_path / "model", timestep_conditioning=False), device="cpu", **FAMILIES["ltx"].call
    )
    config = NullTTAConfig(num_inference_steps=2, num_particles=1, guidance_scale=3.0, eta=0.0)
    ours = align(model, "a cat", lambda images, _: images.flatten(1).mean(1), config=config, method="plain")
    latents = model.to_pipeline(ours.problem.latents[:, 0])
    call = {"height": 32, "width": 32, "num_frames": 9, "num_inference_steps": 2, "output_type": "pt"}
    theirs = model.pipeline("a cat", negative_prompt="", latents=latents, guidance_scale=3.0, **call).frames
    torch.testing.assert_close(ours.images, theirs, rtol=0, atol=1e-5)


def test_an_ltx_whose_decoder_draws_noise_is_refused(tmp_path: Path) -> None:
    folder = save_ltx(tmp_path / "model", decoder_inject_noise=(True, True, True, False, False))
    model = nulltta.load_model(folder, device="cpu", **FAMILIES["ltx"].call)
    for name, parameter in model.pipeline.vae.named_parameters():
        if "per_channel_scale" in name:
            parameter.data.fill_(1.0)  # of an untrained decoder they are 0
    with pytest.raises(NullTTAError, match="decoder_inject_noise"):
        model.encode(["a cat"], [""])


@pytest.mark.parametrize("save", [save_qwen, save_cogview4])
@pytest.mark.parametrize("directions", ["white", "cma"])
def test_zeroth_order_raises_a_reward_where_prompt_and_null_differ_in_length(
    save: Any, directions: Any, tmp_path: Path
) -> None:
    model = nulltta.load_model(save(tmp_path / "model"), device="cpu", **_call(save))
    config = NullTTAConfig(
        num_inference_steps=2, inner_steps=(3, 3), num_particles=1, guidance_scale=4.0, gradient="zeroth-order",
        zeroth_order_directions=directions, zeroth_order_samples=4,
    )  # fmt: skip
    prompt = "a very long prompt about many cats"
    result = align(model, prompt, "brightness", config=config)
    cond, null = model.encode([prompt], [""])
    assert cond["encoder_hidden_states"].shape != null["encoder_hidden_states"].shape
    assert float(result.trace[-1].kl) > 0
    assert bool(result.images.isfinite().all())


def _call(save: Any) -> Any:
    return next(case.call for case in FAMILIES.values() if case.save is save)


def test_a_long_qwen_prompt_has_the_tokens_of_the_stock_call_and_what_is_cut_is_announced(tmp_path: Path) -> None:
    """The stock call keeps 512 tokens of what its text encoder reads; 1024 where it is asked to."""
    folder, prompt = save_qwen(tmp_path / "model"), "cat " * 170 + "the tail"
    calls: list[dict[str, int]] = [{}, {"max_sequence_length": 1024}]
    for call in calls:
        model: Any = nulltta.load_model(folder, device="cpu", height=16, width=16, **call)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            cond, _ = model.encode([prompt], [""])
        assert [("longer than 512 tokens" in str(each.message)) for each in said] == [True] * (not call)
        expected, _ = model.pipeline.encode_prompt(prompt, max_sequence_length=call.get("max_sequence_length", 512))
        assert cond["encoder_hidden_states"].shape == expected.shape
        torch.testing.assert_close(cond["encoder_hidden_states"], expected.float())


def test_a_cut_prompt_is_announced_where_the_pipeline_reads_small_letters_only(tmp_path: Path) -> None:
    model = nulltta.load_model(save_pixart(tmp_path / "model"), device="cpu", **FAMILIES["pixart"].call)
    with pytest.warns(UserWarning, match=r"longer than 300 tokens; cut off: '.*tail'"):
        model.encode(["A Cat " * 80 + "Tail"], [""])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode(["A Cat"], ["Ugly"])


def test_a_prompt_of_a_textual_inversion_of_several_vectors_is_announced_where_it_is_cut(checkpoint: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipeline: Any = StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None)
    width = pipeline.text_encoder.config.hidden_size
    pipeline.load_textual_inversion({"<rose>": torch.randn(8, width)}, token="<rose>")
    model = nulltta.load_model(pipeline)
    with pytest.warns(UserWarning, match=r"longer than 77 tokens; cut off: '.*tail'"):
        model.encode(["<rose> " * 10 + "tail"], [""])  # 10 words of 8 tokens each
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.encode(["<rose> in a vase"], [""])
