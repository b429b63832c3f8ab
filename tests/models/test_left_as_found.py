"""A live pipeline is left as it was found, whatever happens in a recording."""

from __future__ import annotations

import functools
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import nulltta
from nulltta import NullTTAConfig, NullTTAError, align

from ..tiny import save_stable_diffusion

SETTINGS = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 1), num_particles=1, guidance_scale=3.0)


@pytest.fixture
def pipeline(checkpoint: Path) -> Any:
    """A live Stable Diffusion, each time a new one."""
    from diffusers import StableDiffusionPipeline

    return StableDiffusionPipeline.from_pretrained(checkpoint, safety_checker=None, requires_safety_checker=False)


def _state(pipeline: Any) -> dict[str, Any]:
    """All that recordings touch: attributes, hooks, overruled methods, processors, classes, scheduler and precision."""
    found = {f"pipeline.{key}": value for key, value in vars(pipeline).items() if not key.startswith("_internal")}
    for name, part in pipeline.components.items():
        if not isinstance(part, torch.nn.Module):
            continue
        for path, module in part.named_modules():
            key = f"{name}.{path}"
            found[f"{key} class"] = type(module)
            found[f"{key} own"] = {k: v for k, v in vars(module).items() if not k.startswith("_") and callable(v)}
            found[f"{key} hooks"] = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
        found[f"{name} processors"] = getattr(part, "attn_processors", None)
        found[f"{name} dtype"] = part.dtype
    found["scheduler"] = {k: v if not torch.is_tensor(v) else v.tolist() for k, v in vars(pipeline.scheduler).items()}
    found["config"] = dict(pipeline.config)
    return found


def test_after_a_run(pipeline: Any) -> None:
    nulltta.load_model(pipeline)
    before = _state(pipeline)
    align(pipeline, "a cat", "brightness", config=SETTINGS)
    assert _state(pipeline) == before


@pytest.mark.parametrize("part", ["text_encoder", "unet", "vae"])
def test_after_a_failure_anywhere(pipeline: Any, part: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = nulltta.load_model(pipeline)

    def fails(*args: Any, **kwargs: Any) -> Any:
        raise ZeroDivisionError

    monkeypatch.setattr(getattr(pipeline, part), "decode" if part == "vae" else "forward", fails)
    before = _state(pipeline)
    with pytest.raises(ZeroDivisionError):
        model.encode(["a cat"], [""])
    assert _state(pipeline) == before


def test_the_callers_own_hooks_and_overruled_methods_stay(pipeline: Any) -> None:
    seen: list[int] = []
    pipeline.unet.register_forward_pre_hook(lambda module, args: seen.append(1))
    own = pipeline.vae.decode
    pipeline.vae.decode = lambda *args, **kwargs: own(*args, **kwargs)
    decode = pipeline.vae.decode
    align(pipeline, "a cat", "brightness", config=SETTINGS)
    assert pipeline.vae.decode is decode
    assert seen


def test_the_default_dtype_and_the_global_random_state_do_not_matter(checkpoint: Path) -> None:
    expected = align(nulltta.load_model(checkpoint), "a cat", "brightness", config=SETTINGS).images
    torch.manual_seed(1)
    state = torch.get_rng_state()
    torch.set_default_dtype(torch.float64)
    try:
        found = align(
            nulltta.load_model(checkpoint, dtype=torch.float32), "a cat", "brightness", config=SETTINGS
        ).images
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found, expected)


def test_two_threads_share_a_model_without_mixing_their_results(checkpoint: Path) -> None:
    model = nulltta.load_model(checkpoint)
    prompts = ["a cat", "two red dogs"]
    expected = [align(model, prompt, "brightness", config=SETTINGS, seed=i).images for i, prompt in enumerate(prompts)]
    shared = nulltta.load_model(checkpoint)
    found: dict[int, torch.Tensor] = {}

    def run(index: int) -> None:
        found[index] = align(shared, prompts[index], "brightness", config=SETTINGS, seed=index).images

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(torch.equal(found[i], expected[i]) for i in range(2))


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' schedulers
def test_a_scheduler_that_is_swapped_later_counts(tmp_path: Path) -> None:
    from diffusers import EulerDiscreteScheduler

    model: Any = nulltta.load_model(save_stable_diffusion(tmp_path / "model"))
    before = model.schedule(5)
    model.pipeline.scheduler = EulerDiscreteScheduler.from_config(
        model.pipeline.scheduler.config, use_karras_sigmas=True
    )
    after = model.schedule(5)
    model.pipeline.scheduler.set_timesteps(5)
    sigmas = [step.noise / step.signal for step in after]
    assert sigmas == pytest.approx(model.pipeline.scheduler.sigmas[:-1].tolist(), rel=1e-4)
    assert [step.alpha_bar for step in after] != [step.alpha_bar for step in before]


def test_inference_mode_is_refused_in_words(checkpoint: Path) -> None:
    model = nulltta.load_model(checkpoint)
    with torch.inference_mode(), pytest.raises(NullTTAError, match="inference_mode"):
        model.encode(["a cat"], [""])


def test_arguments_of_the_call_are_checked_by_name(checkpoint: Path) -> None:
    with pytest.raises(NullTTAError, match="size is not an argument of StableDiffusionPipeline's call: it has height"):
        nulltta.load_model(checkpoint, size=(16, 16))
    with pytest.raises(NullTTAError, match="guidance_scale is set by the run itself"):
        nulltta.load_model(checkpoint, guidance_scale=3.0)


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 8), (32, 16)])
def test_a_size_is_the_pipelines_own(checkpoint: Path, height: int, width: int) -> None:
    model = nulltta.load_model(checkpoint, height=height, width=width)
    result = align(model, "a cat", "brightness", config=SETTINGS)
    assert result.images.shape[-2:] == (height, width)


def test_a_recording_in_one_thread_does_not_touch_what_another_evaluates(pipeline: Any) -> None:
    """A second model of the same pipeline evaluates it while the first records its text encoder."""
    first, second = nulltta.load_model(pipeline), nulltta.load_model(pipeline)
    x0 = torch.randn((1, *first.latent_shape), generator=torch.Generator().manual_seed(0))
    step, (_, null) = second.schedule(4)[1], second.encode(["a cat"], [""])
    expected = second.predict(x0, step, null), second.decode(x0)
    found: list[torch.Tensor] = []

    def evaluate(*_: Any) -> None:
        thread = threading.Thread(target=lambda: found.extend([second.predict(x0, step, null), second.decode(x0)]))
        thread.start()
        thread.join(timeout=20)

    handle = pipeline.text_encoder.register_forward_hook(evaluate)
    first.encode(["a dog"], [""])
    handle.remove()
    assert all(torch.equal(a, b) for a, b in zip(found, expected * (len(found) // 2), strict=True))
    assert found


def test_a_decoder_that_is_swapped_later_counts(checkpoint: Path, pipeline: Any) -> None:
    from diffusers import AutoencoderKL

    model = nulltta.load_model(pipeline)
    x0 = torch.randn((1, *model.latent_shape), generator=torch.Generator().manual_seed(0))
    before = model.decode(x0)
    pipeline.vae = AutoencoderKL.from_pretrained(checkpoint, subfolder="vae", scaling_factor=0.5)
    after = model.decode(x0)
    assert not torch.equal(after, before)
    assert torch.equal(after, nulltta.load_model(pipeline).decode(x0))


def test_methods_that_the_caller_overruled_stay_after_an_exact_replay(pipeline: Any) -> None:
    result = align(pipeline, "a cat", "brightness", config=SETTINGS)
    for part, name in ((pipeline.vae, "decode"), (pipeline.unet, "forward"), (pipeline, "prepare_latents")):
        own = getattr(part, name)
        setattr(part, name, functools.wraps(own)(lambda *args, _own=own, **kwargs: _own(*args, **kwargs)))
    overruled = pipeline.vae.decode, pipeline.unet.forward, pipeline.prepare_latents
    learnt = result.null_text[0]
    with learnt.apply(pipeline, exact=True):
        images = pipeline(
            "a cat", latents=learnt.latents[None], num_inference_steps=2, guidance_scale=3.0, output_type="pt"
        ).images
    assert images.isfinite().all()
    assert (pipeline.vae.decode, pipeline.unet.forward, pipeline.prepare_latents) == overruled


def test_half_precision_gives_the_same_bits_again(checkpoint: Path) -> None:
    model = nulltta.load_model(checkpoint, dtype=torch.bfloat16)
    first, second = (align(model, ["a cat", "two dogs"], "brightness", config=SETTINGS).images for _ in range(2))
    assert torch.equal(first, second)
