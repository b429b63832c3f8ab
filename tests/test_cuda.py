"""The promises that only a CUDA GPU can keep: they are skipped elsewhere.

    pytest tests/test_cuda.py -W default -p no:cacheprovider

Images in [0, 1] are compared after few steps. Float32 runs switch TensorFloat-32 off, which rounds to 10 bits.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullText, NullTTAConfig, OutOfMemory, align, rewards
from nulltta.alignment import METHODS
from nulltta.cli import main
from nulltta.fit.settings import FitSettings
from nulltta.fit.training import FitProblem, fit
from nulltta.models.offload import OFFLOADS
from nulltta.null_text.replay import replay
from nulltta.testing.stock import stock_images

from .tiny import save_stable_diffusion, stable_diffusion
from .tiny_families import FAMILIES
from .tiny_pipelines import FAMILY_PIPELINES, PIPELINES, comparable

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")

HALVES = (torch.bfloat16, torch.float16)
SHORT = NullTTAConfig.embedded(num_inference_steps=3, inner_steps=(1, 2), num_particles=2, optimise_between=(0.0, 1.0))
TINY = NullTTAConfig(num_inference_steps=2, inner_steps=(1, 2), num_particles=2, guidance_scale=3.0, annealing="auto")
PLAIN = NullTTAConfig(num_inference_steps=3, inner_steps=(1, 1), num_particles=1, guidance_scale=4.0, eta=0.0)
PROMPT, PROMPTS = "a fox on a blue background, noto style", ["a red apple", "a fox on a blue background, noto style"]
CLASSES = {case.name: case for case in (*FAMILY_PIPELINES, *PIPELINES)}
CHOSEN = (
    "StableDiffusionPipeline", "StableDiffusionXLPipeline", "StableDiffusion3Pipeline", "FluxPipeline",
    "PixArtSigmaPipeline", "SanaPipeline", "QwenImagePipeline", "WanPipeline", "CogVideoXPipeline",
)  # fmt: skip
STOCK_TOLERANCE = {torch.float32: 2e-3, torch.bfloat16: 8e-2, torch.float16: 2e-2}
"""Of the pixels of three steps in a loop of ours and in the pipeline's own: rounding in another order."""


@pytest.fixture(autouse=True)
def exact_float32() -> Iterator[None]:
    """Multiply float32 in float32."""
    before = torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32 = before


@pytest.fixture(scope="module")
def on_cpu() -> Any:
    return nulltta.load_model("embedded", device="cpu")


@pytest.fixture(scope="module")
def on_gpu() -> Any:
    return nulltta.load_model("embedded", device="cuda", dtype=torch.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tiny")


@pytest.fixture(scope="module")
def sd(folder: Path) -> Path:
    return save_stable_diffusion(folder / "own")


def same(a: Tensor, b: Tensor, tolerance: float) -> None:
    """Compare images on any devices."""
    torch.testing.assert_close(a.float().cpu(), b.float().cpu(), rtol=0, atol=tolerance)


# Devices and types


def test_by_default_a_model_is_on_the_gpu_in_bfloat16_and_its_reward_too() -> None:
    model: Any = nulltta.load_model("embedded")
    weight = next(model.pipeline.unet.parameters())
    expected = torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    assert (weight.device.type, model.dtype) == ("cuda", expected)
    result = align(model, PROMPT, "clip", config=SHORT)
    assert result.images.device.type == "cuda"
    assert result.problem.null["encoder_hidden_states"].dtype == torch.float32


def test_float32_images_are_the_cpus(on_cpu: Any, on_gpu: Any) -> None:
    ours, theirs = (align(model, PROMPTS, "clip", config=SHORT, seed=[0, 1]) for model in (on_gpu, on_cpu))
    same(ours.baseline, theirs.baseline, 1e-4)
    same(ours.images, theirs.images, 2e-3)
    same(ours.rewards, theirs.rewards, 2e-3)
    for a, b in zip(ours.trace, theirs.trace, strict=True):
        torch.testing.assert_close(a.inner_rewards, b.inner_rewards, rtol=0, atol=2e-3)


def test_tensor_float_is_accepted_and_close(on_cpu: Any) -> None:
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = True
    model = nulltta.load_model("embedded", device="cuda", dtype=torch.float32)
    images = [align(each, PROMPT, "clip", config=SHORT, method="plain").images for each in (model, on_cpu)]
    same(images[0], images[1], 5e-2)


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_half_precision_is_accepted_and_gains(dtype: torch.dtype) -> None:
    model = nulltta.load_model("embedded", device="cuda", dtype=dtype)
    config = NullTTAConfig.embedded(num_inference_steps=6, inner_steps=(3, 5), optimise_between=(0.0, 1.0))
    result = align(model, PROMPTS, "clip", config=config, seed=[0, 1])
    assert bool(result.images.isfinite().all())
    assert float((result.rewards - result.baseline_rewards).mean()) > 0


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-3), (torch.bfloat16, 0.3)], ids=str)
def test_a_prompt_does_not_depend_on_its_batch(dtype: torch.dtype, tolerance: float) -> None:
    model = nulltta.load_model("embedded", device="cuda", dtype=dtype)
    config = replace(SHORT, num_particles=1)  # so that rounding cannot choose another candidate
    together = align(model, PROMPTS, "clip", config=config, seed=[0, 1]).images
    for i, prompt in enumerate(PROMPTS):
        same(together[i : i + 1], align(model, prompt, "clip", config=config, seed=i).images, tolerance)


def test_a_seed_gives_the_same_images_twice(on_gpu: Any) -> None:
    images = [align(on_gpu, PROMPTS, "clip", config=SHORT, seed=3).images for _ in range(2)]
    same(images[0], images[1], 1e-4)


def test_deterministic_algorithms_give_the_same_bits(on_gpu: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        images = [align(on_gpu, PROMPT, "clip", config=SHORT).images for _ in range(2)]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(*images)


# Methods, rewards, guidance


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs(method: str, on_gpu: Any) -> None:
    result = align(on_gpu, PROMPTS, "clip", config=SHORT, method=method, seed=[0, 1])
    assert bool(result.images.isfinite().all())
    assert result.images.device.type == "cuda"


@pytest.mark.parametrize(
    "changes",
    [
        {"guidance": "nag"}, {"guidance": "cfg+nag"}, {"gradient": "zeroth-order"}, {"kl_target": 0.01},
        {"gradient": "zeroth-order", "zeroth_order_directions": "white"}, {"noise_tilt": 0.3},
        {"inner_decoder": "tiny"}, {"conventions": "release"}, {"conventions": "exact", "eta": "auto"},
    ],
    ids=str,
)  # fmt: skip
def test_every_kind_of_setting_gives_the_cpus_images(changes: dict[str, Any], on_cpu: Any, on_gpu: Any) -> None:
    config = replace(SHORT, num_inference_steps=2, **changes)
    images = [align(model, PROMPTS, "clip", config=config, seed=[0, 1]).images for model in (on_gpu, on_cpu)]
    # Adam turns a small difference of an estimated gradient into a step of another sign
    same(images[0], images[1], 0.2 if changes == {"gradient": "zeroth-order"} else 5e-3)


@pytest.mark.parametrize("reward", ["clip", "0.7*clip + 0.3*sharpness", "z(clip) + z(colourfulness)", "jpeg"])
def test_rewards_score_on_the_gpu(reward: str, on_gpu: Any) -> None:
    result = align(on_gpu, PROMPT, reward, config=SHORT)
    assert bool(result.rewards.isfinite().all())
    assert result.reward_components


@pytest.mark.parametrize("dtype", HALVES, ids=str)
def test_a_reward_in_half_precision_scores_as_in_float32(dtype: torch.dtype, on_gpu: Any) -> None:
    images = align(on_gpu, PROMPTS, "clip", config=SHORT, method="plain").images
    half, full = (rewards.load("clip", device="cuda", dtype=each)(images, PROMPTS) for each in (dtype, torch.float32))
    same(half, full, 3e-2)
    gradient = torch.autograd.grad(
        rewards.load("clip", device="cuda", dtype=dtype)(images.requires_grad_(), PROMPTS).sum(), images
    )[0]
    assert bool(gradient.isfinite().all())
    assert bool(gradient.any())


# Null texts


def test_null_texts_go_from_cuda_to_the_cpu_and_back(on_cpu: Any, on_gpu: Any, tmp_path: Path) -> None:
    for made, other in ((on_gpu, on_cpu), (on_cpu, on_gpu)):
        result = align(made, PROMPT, "clip", config=SHORT)
        result.null_text[0].save(tmp_path / "null.safetensors", noise=True)
        for model in (made, other):
            kept = NullText.load(tmp_path / "null.safetensors", model)
            same(replay(model, kept, exact=True), result.images, 2e-3)
            assert bool(replay(model, kept, seeds=[0, 1]).isfinite().all())


def test_a_start_from_a_null_text_of_the_cpu(on_cpu: Any, on_gpu: Any) -> None:
    learnt = align(on_cpu, PROMPT, "clip", config=SHORT).null_text[0]
    images = [align(m, PROMPT, "clip", config=SHORT, start=learnt).images for m in (on_gpu, on_cpu)]
    same(images[0], images[1], 5e-3)


@pytest.mark.parametrize("exact", [False, True])
def test_apply_puts_the_null_text_into_the_pipelines_own_call(exact: bool, sd: Path, tmp_path: Path) -> None:
    pipeline = stable_diffusion(sd).to("cuda")
    result = align(pipeline, "a cat", "brightness", config=TINY)
    result.null_text[0].save(tmp_path / "null.safetensors", noise=True)
    kept = NullText.load(tmp_path / "null.safetensors", pipeline)
    first = {"latents": kept.latents[None].to("cuda")} if exact else {}
    with kept.apply(pipeline, exact=exact):
        images = pipeline("a cat", num_inference_steps=2, guidance_scale=3.0, output_type="pt", **first).images
    assert bool(images.isfinite().all())
    if exact:
        same(images, result.images, 1e-3)


def test_a_fit_of_two_updates(on_gpu: Any, tmp_path: Path) -> None:
    settings = FitSettings(updates=2, rows=2, pool=2, fresh=1, refresh_every=1, validate_every=2)
    problem = FitProblem(
        on_gpu, rewards.load("clip", device="cuda"), ["a red apple", "a blue star"], ["a fox", "an owl"],
        config=replace(SHORT, guidance_scale=4.0), settings=settings,
    )  # fmt: skip
    stream = fit(problem, tmp_path / "checkpoint.pt")
    while True:
        try:
            next(stream)
        except StopIteration as end:
            fitted = end.value
            break
    assert bool(replay(on_gpu, fitted, prompt="a red apple").isfinite().all())


# Memory


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("offload", OFFLOADS)
def test_offloading_gives_the_same_images_and_frees_the_gpu(offload: str, family: str, folder: Path) -> None:
    case = FAMILIES[family]
    source = folder / family
    if not source.exists():
        case.save(source)
    gc.collect()
    before = torch.cuda.memory_allocated()
    whole: Any = nulltta.load_model(source, device="cuda", dtype=torch.float32, **case.call)
    taken = torch.cuda.memory_allocated() - before
    expected = align(whole, "a cat", "brightness", config=TINY).images.cpu()
    del whole
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated()
    model: Any = nulltta.load_model(source, device="cuda", dtype=torch.float32, offload=offload, **case.call)
    held = torch.cuda.memory_allocated() - before
    assert held == taken if offload == "none" else held < taken
    same(align(model, "a cat", "brightness", config=TINY).images, expected, 1e-4)
    if offload == "text-encoders":
        assert next(model.pipeline.text_encoder.parameters()).device.type == "cpu"
        assert next(model.pipeline.unet.parameters()).device.type == "cuda"
    if offload in ("model", "text-encoders"):  # after a prompt is encoded anew, its encoders are away again
        model.encode(["a dog"], [""])
        assert next(model.pipeline.text_encoder.parameters()).device.type == "cpu"


@pytest.mark.parametrize("how", ["enable_model_cpu_offload", "enable_sequential_cpu_offload"])
def test_a_live_pipeline_that_offloads_is_left_as_found(how: str, sd: Path) -> None:
    expected = align(stable_diffusion(sd).to("cuda"), "a cat", "brightness", config=TINY).images
    pipeline = stable_diffusion(sd)
    getattr(pipeline, how)(device="cuda")
    call = {"num_inference_steps": 2, "output_type": "pt"}
    before = pipeline("a cat", generator=torch.Generator().manual_seed(0), **call).images
    hooks = [type(getattr(part, "_hf_hook", None)) for part in (pipeline.unet, pipeline.vae, pipeline.text_encoder)]
    same(align(pipeline, "a cat", "brightness", config=TINY).images, expected, 1e-4)
    parts = pipeline.unet, pipeline.vae, pipeline.text_encoder
    assert hooks == [type(getattr(part, "_hf_hook", None)) for part in parts]
    same(pipeline("a cat", generator=torch.Generator().manual_seed(0), **call).images, before, 1e-5)
    assert next(pipeline.unet.parameters()).device.type in ("cpu", "meta")


class Greedy:
    """A reward that needs a given number of bytes per image while it scores."""

    differentiable, name = True, "greedy"

    def __init__(self, size: int) -> None:
        self.size = size

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        room = torch.empty((len(images), self.size), dtype=torch.uint8, device=images.device)
        room[:, :1] = 1
        return images.flatten(1).mean(1) * room[:, 0]


@pytest.fixture
def little_memory() -> Iterator[int]:
    """Leave half a GiB to PyTorch, and return its bytes."""
    torch.cuda.empty_cache()
    room = 2**29
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + room) / total)
    yield room
    torch.cuda.set_per_process_memory_fraction(1.0)
    torch.cuda.empty_cache()


def test_rows_are_halved_where_memory_runs_out(on_gpu: Any, little_memory: int) -> None:
    config = replace(SHORT, num_particles=4)
    with pytest.warns(UserWarning, match="out of memory with 4 at a time: going on with 2"):
        result = align(on_gpu, PROMPT, Greedy(little_memory // 3), config=config)
    assert bool(result.images.isfinite().all())
    same(result.images, align(on_gpu, PROMPT, Greedy(1), config=config).images, 2e-3)


@pytest.mark.filterwarnings("ignore:out of memory with")
def test_one_row_that_does_not_fit_is_a_named_error(on_gpu: Any, little_memory: int) -> None:
    with pytest.raises(OutOfMemory, match="out of memory: "):
        align(on_gpu, PROMPT, Greedy(2 * little_memory), config=SHORT)
    assert bool(align(on_gpu, PROMPT, "clip", config=SHORT).images.isfinite().all())


def test_activations_are_recomputed_where_one_row_does_not_fit(on_gpu: Any) -> None:
    expected = align(on_gpu, PROMPT, "clip", config=SHORT).images
    model: Any = nulltta.load_model("embedded", device="cuda", dtype=torch.float32)
    assert model.enable_checkpointing()
    assert model.enable_checkpointing()
    same(align(model, PROMPT, "clip", config=SHORT).images, expected, 2e-3)


# Families


@pytest.mark.parametrize("dtype", STOCK_TOLERANCE, ids=str)
@pytest.mark.parametrize("name", CHOSEN)
def test_plain_sampling_is_the_stock_call(name: str, dtype: torch.dtype, folder: Path) -> None:
    pipeline, call = CLASSES[name].load(folder, dtype=dtype)
    comparable(pipeline)
    model: Any = nulltta.load_model(pipeline.to("cuda"), **call)
    images = align(model, "a cat", "brightness", config=PLAIN, seed=3, method="plain").images
    theirs = stock_images(model, "a cat", "", PLAIN, seed=3)
    same(images, theirs.reshape(images.shape), STOCK_TOLERANCE[dtype])
    if dtype == torch.float32:  # the gradients of so small a random network vanish in half precision
        assert bool(align(model, "a cat", "brightness", config=PLAIN, seed=3).images.isfinite().all())


def test_an_image_to_image_call(sd: Path, folder: Path) -> None:
    pipeline, call = CLASSES["StableDiffusionImg2ImgPipeline"].load(folder)
    result = align(nulltta.load_model(pipeline.to("cuda"), **call), "a cat", "brightness", config=TINY)
    assert bool(result.images.isfinite().all())


def test_nag_on_a_transformer(folder: Path) -> None:
    pipeline, call = CLASSES["FluxPipeline"].load(folder)
    model = nulltta.load_model(pipeline.to("cuda"), **call)
    assert bool(align(model, "a cat", "brightness", config=replace(TINY, guidance="nag")).images.isfinite().all())


def test_compiling(sd: Path) -> None:
    plain, compiled = (
        nulltta.load_model(sd, device="cuda", dtype=torch.float32, compile=each) for each in (False, True)
    )
    images = [align(model, "a cat", "brightness", config=TINY).images for model in (compiled, plain)]
    same(images[0], images[1], 2e-3)


# The command line


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--json"]) == 0
    found = capsys.readouterr().out
    assert torch.cuda.get_device_name() in found
    json.loads(found)


def test_align_and_replay_by_the_command_line(tmp_path: Path) -> None:
    out = tmp_path / "out"
    short = [
        "--num-inference-steps",
        "3",
        "--num-particles",
        "2",
        "--inner-steps",
        "1",
        "2",
        "--optimise-between",
        "0",
        "1",
    ]
    kept = ["--save-null-text", "small", "--out", str(out)]
    assert main(["--quiet", "align", PROMPT, "--device", "cuda", *short, *kept]) == 0
    written = json.loads((out / "result.json").read_text())
    assert written["device"] == "cuda:0"
    null = next(out.rglob("null-text.safetensors"))
    assert main(["--quiet", "replay", str(null), "--device", "cuda", "--out", str(tmp_path / "again")]) == 0
