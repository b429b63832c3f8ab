"""Null texts saved to files, replayed, and applied in stock diffusers."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import NullText, NullTTAConfig, NullTTAError, align
from nulltta.null_text.exact import RowByRow
from nulltta.null_text.replay import replay
from nulltta.testing import Gaussian, nearness

from ..tiny import save_stable_diffusion

CONFIG = NullTTAConfig(num_inference_steps=4, inner_steps=(2, 2), num_particles=3, guidance_scale=4.0)


def brightness(images: Tensor, prompts: Sequence[str]) -> Tensor:
    return images.flatten(1).mean(1)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    return nulltta.load_model(save_stable_diffusion(tmp_path_factory.mktemp("sd") / "sd"), device="cpu")


@pytest.fixture(scope="module")
def result(model: Any) -> Any:
    return align(model, ["a cat", "a dog"], brightness, config=CONFIG, seed=[3, 4])


def _stock(model: Any) -> Any:
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline(**model.pipeline.components, requires_safety_checker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_a_file_contains_the_null_text_and_its_settings(model: Any, result: Any, tmp_path: Path) -> None:
    kept = result.null_text[1]
    kept.save(tmp_path / "dog.safetensors", licence="CC0-1.0")
    loaded = NullText.load(tmp_path / "dog.safetensors", model)
    assert loaded.prompt == "a dog"
    assert list(loaded.timesteps) == [step.timestep for step in result.trace]
    assert torch.equal(loaded.null["encoder_hidden_states"], kept.null["encoder_hidden_states"])
    for ours, theirs in zip(loaded.values, kept.values, strict=True):
        torch.testing.assert_close(
            ours["encoder_hidden_states"], theirs["encoder_hidden_states"], rtol=0, atol=1e-3
        )  # float16 of a difference
    assert loaded.latents is None
    about = loaded.about
    assert about["reward"] == "brightness"
    assert about["seed"] == 4
    assert about["licence"] == "CC0-1.0"
    assert about["scheduler"] == "DDIMScheduler"
    assert NullTTAConfig(**about["config"]) == result.problem.config
    assert about["versions"]["nulltta"] == nulltta.__version__
    assert about["model"]["pipeline"] == "StableDiffusionPipeline"


def test_exact_replay_needs_a_file_with_noise(result: Any, tmp_path: Path) -> None:
    kept = result.null_text[0]
    kept.save(tmp_path / "cat.safetensors", noise=True)
    loaded = NullText.load(tmp_path / "cat.safetensors")
    assert all(
        torch.equal(a["encoder_hidden_states"], b["encoder_hidden_states"])
        for a, b in zip(loaded.values, kept.values, strict=True)
    )
    assert torch.equal(loaded.latents, kept.latents)
    assert torch.equal(loaded.image, result.images[0])
    kept.save(tmp_path / "small.safetensors")
    assert (tmp_path / "small.safetensors").stat().st_size < (tmp_path / "cat.safetensors").stat().st_size
    with pytest.raises(NullTTAError, match="holds no noise"):
        NullText.load(tmp_path / "small.safetensors").save(tmp_path / "x", noise=True)


@pytest.mark.parametrize("row", [0, 1])
def test_replay_with_recorded_noise_is_the_aligned_image_bit_for_bit(model: Any, tmp_path: Path, row: int) -> None:
    whole = align(RowByRow(model), ["a cat", "a dog"], brightness, config=CONFIG, seed=[3, 4])
    whole.null_text[row].save(tmp_path / "n.safetensors", noise=True)
    loaded = NullText.load(tmp_path / "n.safetensors")
    assert torch.equal(replay(model, loaded, exact=True)[0], whole.images[row])
    stock = _stock(model)
    scheduler = stock.scheduler
    with loaded.apply(stock, exact=True):
        call = {"num_inference_steps": 4, "guidance_scale": 4.0, "output_type": "pt"}
        image = stock(loaded.prompt, latents=loaded.latents[None], **call).images[0]
        with pytest.raises(NullTTAError, match="num_inference_steps must be 4"):
            stock(loaded.prompt, latents=loaded.latents[None], **{**call, "num_inference_steps": 5})
    assert torch.equal(image, whole.images[row])
    assert stock.scheduler is scheduler
    assert "forward" not in vars(stock.unet)


def test_exact_replay_of_a_run_of_one_prompt_is_bit_for_bit(tmp_path: Path) -> None:
    """On the embedded model, a row alone and in a batch differ in their last bits."""
    model: Any = nulltta.load_model("embedded", device="cpu")
    config = NullTTAConfig.embedded(num_inference_steps=4, inner_steps=(1, 1), optimise_between=(0.25, 0.75))
    alone = align(model, "two foxes", brightness, config=config, seed=3)
    alone.null_text[0].save(tmp_path / "n.safetensors", noise=True)
    loaded = NullText.load(tmp_path / "n.safetensors")
    assert torch.equal(replay(model, loaded, exact=True), alone.images)
    stock = _stock(model)
    with loaded.apply(stock, exact=True):
        call = {"num_inference_steps": 4, "guidance_scale": config.guidance_scale, "output_type": "pt"}
        image = stock(loaded.prompt, latents=loaded.latents[None], **call).images
    assert torch.equal(image, alone.images)
    assert "decode" not in vars(stock.vae)


def test_exact_replay_of_a_batched_run_differs_only_by_rounding(model: Any, result: Any) -> None:
    for row in (0, 1):
        again = replay(model, result.null_text[row], exact=True)[0]
        torch.testing.assert_close(again, result.images[row], rtol=0, atol=1e-4)


def test_apply_in_a_stock_pipeline_equals_replay(model: Any, result: Any) -> None:
    """At η = 0 neither draws noise; the seeds and the number of steps are new, and there are two images per prompt."""
    stock, kept = _stock(model), result.null_text[0]
    config = NullTTAConfig(num_inference_steps=7, guidance_scale=4.0, eta=0.0)
    ours = replay(model, kept, seeds=[8, 9], config=config)
    latents = torch.cat([nulltta.algorithm.randomness.initial_latents(model, [seed], 1, 3)[:, 0] for seed in (8, 9)])
    call = {"num_inference_steps": 7, "guidance_scale": 4.0, "latents": latents, "output_type": "pt"}
    with kept.apply(stock):
        theirs = stock("a cat", num_images_per_prompt=2, **call).images
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)
    plain = stock("a cat", num_images_per_prompt=2, **call).images  # the pipeline is as before
    torch.testing.assert_close(replay(model, kept, seeds=[8, 9], config=config, plain=True), plain, rtol=0, atol=1e-5)
    assert float((theirs - plain).abs().max()) > 1e-3


def test_plain_replay_is_plain_sampling(model: Any, result: Any) -> None:
    config = NullTTAConfig(**{**result.null_text[0].about["config"], "num_particles": 1})
    plain = align(model, "a cat", brightness, config=config, seed=8, method="plain")
    torch.testing.assert_close(replay(model, result.null_text[0], seeds=[8], plain=True), plain.images)


def test_a_call_without_guidance_is_refused(model: Any, result: Any) -> None:
    stock = _stock(model)
    with pytest.raises(NullTTAError, match="no classifier-free guidance"), result.null_text[0].apply(stock):
        stock("a cat", num_inference_steps=2, guidance_scale=1.0, output_type="pt")
    stock("a cat", num_inference_steps=2, guidance_scale=1.0, output_type="pt")  # the hook is gone


def test_the_nearest_timestep_is_used() -> None:
    values = [{"tokens": torch.full((1,), float(i))} for i in range(3)]
    null_text = NullText([900, 500, 100], values, "a cat")
    assert [float(null_text.at(t)["tokens"]) for t in (999, 701, 700, 699, 500, 0)] == [0, 0, 0, 1, 1, 2]
    assert float(null_text.mean()["tokens"]) == 1


def test_another_model_is_refused_with_the_difference(result: Any, model: Any, tmp_path: Path) -> None:
    result.null_text[0].save(tmp_path / "cat.safetensors")
    with pytest.raises(NullTTAError, match="made for StableDiffusionPipeline, this is Gaussian"):
        NullText.load(tmp_path / "cat.safetensors", Gaussian())
    other: Any = nulltta.load_model(save_stable_diffusion(tmp_path / "other"), device="cpu")
    NullText.load(tmp_path / "cat.safetensors", other)
    half = nulltta.load_model(tmp_path / "other", device="cpu", dtype=torch.bfloat16)
    NullText.load(tmp_path / "cat.safetensors", half)  # the same model in another precision
    next(iter(other.pipeline.text_encoder.parameters())).data += 1
    with pytest.raises(NullTTAError, match="the text encoder differs") as caught:
        NullText.load(tmp_path / "cat.safetensors", other)
    assert "configuration" not in str(caught.value)
    other.pipeline.unet.register_to_config(cross_attention_dim=16)
    with pytest.raises(NullTTAError, match="denoiser's configuration differs; the text encoder differs"):
        replay(other, result.null_text[0])


def test_low_rank_is_smaller_and_records_its_error(model: Any, result: Any, tmp_path: Path) -> None:
    kept, path = result.null_text[0], tmp_path / "cat.safetensors"
    exact = torch.stack([value["encoder_hidden_states"] for value in kept.values]) - kept.null["encoder_hidden_states"]
    sizes, errors = [], []
    for rank in (1, 4, 77):
        kept.save(path, rank=rank, licence="CC0-1.0")
        loaded = NullText.load(path, model)
        change = (
            torch.stack([value["encoder_hidden_states"] for value in loaded.values])
            - loaded.null["encoder_hidden_states"]
        )
        said = loaded.about["low_rank"]
        assert said["rank"] == rank
        assert said["relative_error"]["encoder_hidden_states"] == pytest.approx(
            float((change - exact).norm() / exact.norm()), rel=1e-3
        )
        sizes.append(path.stat().st_size)
        errors.append(said["relative_error"]["encoder_hidden_states"])
        mean = torch.stack([value["encoder_hidden_states"] for value in loaded.values]).mean(0)
        torch.testing.assert_close(loaded.mean()["encoder_hidden_states"], mean)
    kept.save(path)
    assert sizes[0] < sizes[1] < path.stat().st_size
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 1e-3
    assert "low_rank" not in NullText.load(path).about
    torch.testing.assert_close(replay(model, loaded, seeds=[8]), replay(model, kept, seeds=[8]), rtol=0, atol=1e-3)


def test_a_bad_rank_writes_nothing(result: Any, tmp_path: Path) -> None:
    kept, path = result.null_text[0], tmp_path / "cat.safetensors"
    with pytest.raises(NullTTAError, match="from 1 to 77"):
        kept.save(path, rank=78)
    with pytest.raises(NullTTAError, match="leave out rank or noise"):
        kept.save(path, rank=2, noise=True)
    toy = align(Gaussian(), "red", nearness, config=CONFIG).null_text[0]
    with pytest.raises(NullTTAError, match="no tokens"):
        toy.save(path, rank=1)
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_written_is_refused_in_one_line(result: Any, tmp_path: Path) -> None:
    with pytest.raises(NullTTAError, match=r"cannot write '.*none/cat.safetensors': No such file or directory"):
        result.null_text[0].save(tmp_path / "none" / "cat.safetensors")
    assert list(tmp_path.iterdir()) == []


def _save(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    from safetensors.torch import save_file

    save_file(tensors, path, metadata)


GOOD = '{"prompt": "a", "timesteps": [1.0], "model": {}}'
NULL = {"null.tokens": torch.zeros(2, 3)}
ONE = {**NULL, "difference.tokens": torch.zeros(1, 2, 3)}
FACTORS = {"left.tokens": torch.full((2, 1), 1e20), "right.tokens": torch.full((1, 1, 3), 1e20)}


@pytest.mark.parametrize(
    ("tensors", "metadata", "says"),
    [
        (ONE, {}, "its format is 'unnamed'"),
        (ONE, {"format": "nulltta null text 9", "about": GOOD}, "its format is 'nulltta null text 9'"),
        (ONE, {"format": "nulltta null text 1", "about": "{"}, "is not a null text"),
        (ONE, {"format": "nulltta null text 1", "about": "[" * 100_000}, "is not a null text"),
        (ONE, {"format": "nulltta null text 1", "about": "[]"}, "is not a null text"),
        (ONE, {"format": "nulltta null text 1", "about": GOOD.replace("1.0", "NaN")}, "timestep is not finite"),
        (ONE, {"format": "nulltta null text 1", "about": GOOD.replace("1.0", "1.0, 2.0")}, "has shape"),
        (NULL, {"format": "nulltta null text 1", "about": GOOD}, "difference.tokens"),
        ({**NULL, "difference.tokens": torch.full((1, 2, 3), torch.nan)}, {"about": GOOD}, "is not a null text"),
        ({**NULL, "value.tokens": torch.full((1, 2, 3), torch.inf)}, {"about": GOOD}, "is not a null text"),
        (
            {**ONE, "difference.tokens": torch.zeros(1, 1, 1)},
            {"format": "nulltta null text 1", "about": GOOD},
            "has shape",
        ),
        ({**ONE, "left.tokens": torch.zeros(2, 1)}, {"format": "nulltta null text 1", "about": GOOD}, "right.tokens"),
        (
            {**NULL, **FACTORS, "right.tokens": torch.zeros(1, 9, 3)},
            {"format": "nulltta null text 1", "about": GOOD},
            "has shape",
        ),
        (
            {**NULL, **FACTORS, "left.tokens": torch.zeros(2)},
            {"format": "nulltta null text 1", "about": GOOD},
            "factors have",
        ),
        (
            {**NULL, **FACTORS, "left.tokens": torch.full((2, 1), 1e30)},
            {"format": "nulltta null text 1", "about": GOOD},
            "finite",
        ),
        (
            {**ONE, "latents": torch.zeros(4), "noise": torch.zeros(2, 4)},
            {"format": "nulltta null text 1", "about": GOOD},
            "noise has shape",
        ),
        (ONE, {"format": "nulltta null text 1", "about": GOOD.replace('"a"', '"\\ud800"')}, "is not a null text"),
        (ONE, {"format": "nulltta null text 1", "about": GOOD.replace('"a"', "7")}, "is not a null text"),
        (ONE, {"format": "nulltta null text 1", "about": GOOD.replace("1.0", "9" * 400)}, "is not a null text"),
        ({"x": torch.zeros(1)}, {"format": "nulltta null text 1", "about": GOOD}, "missing"),
    ],
)
def test_a_file_that_is_not_a_null_text_is_refused_in_one_line(
    tmp_path: Path, tensors: dict[str, Tensor], metadata: dict[str, str], says: str
) -> None:
    _save(tmp_path / "bad.safetensors", tensors, metadata)
    with pytest.raises(NullTTAError, match=says) as caught:
        NullText.load(tmp_path / "bad.safetensors")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["absent", "empty", "text", "cut", "huge header", "folder"])
def test_a_damaged_file_is_refused_in_one_line(result: Any, tmp_path: Path, content: str) -> None:
    path = tmp_path / "bad.safetensors"
    result.null_text[0].save(path)
    whole = path.read_bytes()
    path.unlink()
    if content == "folder":
        path.mkdir()
    elif content != "absent":
        cut = {"empty": b"", "text": b"hello, world", "cut": whole[: len(whole) // 2], "huge header": b"\xff" * 64}
        path.write_bytes(cut[content])
    with pytest.raises(NullTTAError, match=r"bad\.safetensors") as caught:
        NullText.load(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"about": {"batch": 3}}, "batches makes no sense"),
        (
            {"about": {"batch": {"candidates": 2, "joint": True, "rows": [0, 0, 0, 0, 2], "inner_steps": [1] * 4}}},
            "batches makes no sense",
        ),
        (
            {"about": {"batch": {"candidates": 2, "joint": True, "rows": [0], "inner_steps": [1] * 4}}},
            "batches makes no sense",
        ),
        (
            {"about": {"batch": {"candidates": "x", "joint": True, "rows": [0] * 5, "inner_steps": []}}},
            "batches makes no",
        ),
        (
            {"about": {"batch": {"candidates": 10**9, "joint": True, "rows": [0] * 5, "inner_steps": [1] * 4}}},
            "batches makes no sense",
        ),
        ({"about": {"config": {"num_inference_steps": "4"}}}, "num_inference_steps must be a whole number"),
        ({"about": {"config": [1]}}, "settings makes no sense"),
        ({"about": {"config": {"eta": "x"}}}, "eta must be a number"),
        ({"null": {"tokens": torch.zeros(77, 5)}}, r"the null text's 'tokens' of shape \(77, 5\) has 0 places"),
        ({"null": {"encoder_hidden_states": torch.zeros(77, 5)}}, r"its tensors are \{'encoder_hidden_states': "),
        ({"null": {"words": torch.zeros(77, 32)}}, "does not fit"),
        ({"null": {"encoder_hidden_states": torch.zeros(77, 32).long()}}, "does not fit"),
        ({"latents": torch.zeros(3, 2, 2)}, r"latents have shape \(3, 2, 2\)"),
    ],
)
def test_a_file_with_false_records_is_refused_when_it_is_replayed(
    model: Any, result: Any, changed: dict[str, Any], says: str
) -> None:
    kept = result.null_text[0]
    about = {**kept.about, **changed.pop("about", {})}
    with pytest.raises(NullTTAError, match=says) as caught:
        replay(model, replace(kept, about=about, **changed), exact=True)
    assert "\n" not in str(caught.value)


def test_the_closed_form_models_null_text_replays() -> None:
    config = NullTTAConfig(num_inference_steps=5, inner_steps=(1, 3), guidance_scale=3.0)
    result = align(Gaussian(), ["red", "green"], nearness, config=config, seed=2)
    for b in (0, 1):
        torch.testing.assert_close(replay(Gaussian(), result.null_text[b], exact=True)[0], result.images[b])


@pytest.mark.parametrize("conventions", ["paper", "release"])
def test_a_null_text_keeps_its_noise_without_keeping_its_model_and_reward_alive(conventions: str) -> None:
    model = Gaussian()
    config = NullTTAConfig(
        num_inference_steps=4, inner_steps=(1, 2), guidance_scale=3.0, num_particles=3, conventions=conventions
    )
    result = align(model, ["red", "green"], nearness, config=config, seed=[3, 4])
    (null_text, other), problem = result.null_text, result.problem
    expected = [
        problem.noise(i, step, problem.latents[:, 0], 3)[0, int(taken.selected[0])]
        for i, (step, taken) in enumerate(zip(problem.schedule(), result.trace, strict=True))
    ]
    assert null_text.noise is not None
    assert all(torch.equal(drawn, kept) for drawn, kept in zip(null_text.noise, expected[:-1], strict=False))
    gone = [weakref.ref(model), weakref.ref(problem.reward)]
    del model, problem, result, other
    gc.collect()
    assert [reference() for reference in gone] == [None, None]
    assert len(list(null_text.noise)) == 4
