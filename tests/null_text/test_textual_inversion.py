"""Null texts of learnt tokens: what they are, and the textual inversions that other tools read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import DoesNotFit, InvalidValue, NullText
from nulltta.cli import main
from nulltta.models.learnt_tokens import LearntTokens
from nulltta.null_text import loading
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import FORMS, TokensForm, free_shapes
from nulltta.null_text.identity import identity
from nulltta.null_text.replay import replay
from nulltta.null_text.textual_inversion import export

from ..tiny import save_stable_diffusion, stable_diffusion
from ..tiny_families import save_pixart, save_sdxl

STEPS = {"num_inference_steps": 2, "guidance_scale": 4.0, "eta": 0.0}


def made(model: Any, count: int = 3) -> FittedNullText:
    """Return a null text of random tokens."""
    encoder = LearntTokens(model, count)
    source = torch.Generator().manual_seed(0)
    tokens = {name: 0.5 * torch.randn(t.shape, generator=source) for name, t in encoder.initial().items()}
    form = TokensForm(free_shapes(model.encode(["a"], [""])[1]), tokens, encoder)
    about = {"model": identity(model), "form": "tokens", "where": model.placement(2), "config": STEPS}
    timesteps = [step.timestep for step in model.schedule(2)]
    null_text = FittedNullText(timesteps, form.requires_grad_(False), (0, 2), about)
    cond, null = model.encode(["a"], [""])
    null_text.embedding(timesteps[0], null, cond)
    return null_text


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tokens")
    return {"sd": save_stable_diffusion(folder / "sd"), "sdxl": save_sdxl(folder / "sdxl")}


@pytest.fixture(scope="module")
def models(folders: dict[str, Path]) -> dict[str, Any]:
    return {name: nulltta.load_model(folder, device="cpu") for name, folder in folders.items()}


@pytest.fixture(scope="module")
def null_texts(models: dict[str, Any]) -> dict[str, FittedNullText]:
    return {name: made(model) for name, model in models.items()}


@pytest.mark.parametrize("name", ["embedded", "sd"])
def test_the_first_tokens_encode_to_the_empty_prompt_where_it_is_padded_with_its_end(
    models: dict[str, Any], name: str
) -> None:
    model = models.get(name) or nulltta.load_model("embedded", device="cpu")
    encoder = LearntTokens(model, 4)
    _, null = model.encode(["a cat"], [""])
    learnt = encoder(encoder.initial())
    torch.testing.assert_close(dict(learnt), dict(null), rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["sd", "sdxl"])
def test_the_gradient_of_every_text_encoders_tokens_is_that_of_finite_differences(
    models: dict[str, Any], name: str
) -> None:
    encoder = LearntTokens(models[name], 2)
    tokens = {key: vectors.requires_grad_() for key, vectors in encoder.initial().items()}

    def loss() -> Tensor:
        null = encoder(tokens)
        return torch.stack([(tensor * torch.linspace(-1, 1, tensor.numel()).view_as(tensor)).sum()
                            for tensor in null.values()]).sum()  # fmt: skip

    gradients = torch.autograd.grad(loss(), list(tokens.values()))
    for gradient, vectors in zip(gradients, tokens.values(), strict=True):
        direction = gradient / gradient.norm()
        with torch.no_grad():
            vectors += 1e-2 * direction
            up = loss()
            vectors -= 2e-2 * direction
            down = loss()
            vectors += 1e-2 * direction
        assert float((up - down) / 2e-2) == pytest.approx(float(gradient.norm()), rel=0.05)
    encoders = [getattr(models[name].pipeline, key) for key in tokens]
    assert all(weight.grad is None for each in encoders for weight in each.parameters())


def stock(folder: Path) -> Any:
    from diffusers import StableDiffusionXLPipeline

    if "sdxl" not in folder.name:
        return stable_diffusion(folder)
    pipeline = StableDiffusionXLPipeline.from_pretrained(folder, add_watermarker=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # NumPy's, in diffusers' Euler scheduler
@pytest.mark.parametrize(("name", "suffix"), [("sd", ".safetensors"), ("sd", ".pt"), ("sdxl", ".safetensors")])
def test_as_the_negative_prompt_of_stock_diffusers_it_gives_the_pictures_of_apply_and_replay(
    models: dict[str, Any], null_texts: dict[str, FittedNullText], folders: dict[str, Path], tmp_path: Path, name: str,
    suffix: str,
) -> None:  # fmt: skip
    from safetensors.torch import load_file

    model, null_text = models[name], null_texts[name]
    export(null_text, tmp_path / f"better{suffix}")
    pipeline = stock(folders[name])
    if name == "sd":
        pipeline.load_textual_inversion(tmp_path, weight_name=f"better{suffix}", token="better")
    else:
        tensors = load_file(tmp_path / "better.safetensors")
        for key, number in (("clip_l", ""), ("clip_g", "_2")):
            parts = {part: getattr(pipeline, part + number) for part in ("text_encoder", "tokenizer")}
            pipeline.load_textual_inversion({"better": tensors[key]}, token="better", **parts)
    latents = model.initial_latents(1, torch.Generator().manual_seed(0))
    call = {"num_inference_steps": 2, "guidance_scale": 4.0, "latents": latents, "output_type": "pt"}
    theirs = pipeline("two cats", negative_prompt="better", **call).images
    with null_text.apply(model.pipeline):
        applied = model.pipeline("two cats", **call).images
    torch.testing.assert_close(theirs, applied, rtol=0, atol=1e-5)
    assert float((theirs - model.pipeline("two cats", negative_prompt="", **call).images).abs().max()) > 1e-3


def test_it_is_saved_loaded_and_replayed_without_its_text_encoders(
    models: dict[str, Any], null_texts: dict[str, FittedNullText], tmp_path: Path
) -> None:
    path = tmp_path / "n.safetensors"
    null_texts["sdxl"].save(path)
    loaded = loading.load(path, models["sdxl"])
    ours, theirs = (replay(models["sdxl"], each, prompt="a cat") for each in (null_texts["sdxl"], loaded))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=0)


def read_by_comfyui(path: Path, key: str) -> Tensor:
    """Return what ComfyUI's `load_embed` (comfy/sd1_clip.py) takes for a text encoder: its own choice, in its order."""
    from safetensors.torch import load_file

    embed = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    if "string_to_param" in embed:
        return next(iter(embed["string_to_param"].values()))
    return embed[key] if key in embed else next(iter(embed.values()))


def read_by_automatic1111(path: Path) -> Tensor | dict[str, Tensor]:
    """Return what AUTOMATIC1111's `create_embedding_from_data` (textual_inversion.py) takes, or refuse as it does."""
    from safetensors.torch import load_file

    data = load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    if "string_to_param" in data:
        assert len(data["string_to_param"]) == 1, "embedding file has multiple terms in it"
        return data["string_to_param"]["*"]
    if "clip_g" in data and "clip_l" in data:
        return dict(data)
    assert len(data) == 1, "embedding file has multiple terms in it"
    return next(iter(data.values()))


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_the_loaders_of_comfyui_and_automatic1111_find_the_tokens(
    null_texts: dict[str, FittedNullText], tmp_path: Path, suffix: str
) -> None:
    for name, null_text in null_texts.items():
        path = tmp_path / f"{name}{suffix}"
        export(null_text, path)
        tokens = null_text.form.tokens
        keys = {"text_encoder": "clip_l", **({"text_encoder_2": "clip_g"} if name == "sdxl" else {})}
        for encoder, key in keys.items():
            assert torch.equal(read_by_comfyui(path, key), tokens[encoder])
        theirs = read_by_automatic1111(path)
        for encoder, key in keys.items():
            assert torch.equal(theirs[key] if isinstance(theirs, dict) else theirs, tokens[encoder])


@pytest.mark.parametrize("kind", ["of one prompt", "with noise", *FORMS])
def test_the_loaders_of_comfyui_and_automatic1111_take_no_null_text_for_token_vectors(
    models: dict[str, Any], null_texts: dict[str, FittedNullText], tmp_path: Path, kind: Any
) -> None:
    model, path = models["sd"], tmp_path / "n.safetensors"
    _, null = model.encode(["a"], [""])
    row = {name: tensor[0] for name, tensor in null.items()}
    if kind in FORMS:
        form = FORMS[kind](free_shapes(null), 2) if kind != "tokens" else null_texts["sd"].form
        FittedNullText([2.0, 1.0], form, (0, 2), {"form": kind}).save(path)
    else:
        latents = torch.zeros(4, 8, 8)
        NullText([2.0, 1.0], [row, row], "a", row, {}, latents, [latents] * 2).save(path, noise=kind == "with noise")
    assert read_by_comfyui(path, "clip_l").shape == (1,)  # which no text encoder takes
    with pytest.raises(AssertionError, match="multiple terms"):
        read_by_automatic1111(path)
    assert loading.load(path) is not None


def test_the_command_exports_and_says_what_to_do_with_what_it_cannot_export(
    models: dict[str, Any], null_texts: dict[str, FittedNullText], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    learnt, out = tmp_path / "n.safetensors", tmp_path / "better.safetensors"
    null_texts["sd"].save(learnt)
    assert main(["export", str(learnt), "--out", str(out)]) == 0
    assert "embedding:better" in capsys.readouterr().out
    assert main(["export", str(learnt), "--out", str(out)]) == 2
    assert "--out" in (said := capsys.readouterr().err)
    assert "exists" in said
    assert main(["export", str(learnt), "--out", str(tmp_path / "better.txt")]) == 2
    assert "--out must end in .safetensors or .pt" in capsys.readouterr().err
    _, null = models["sd"].encode(["a"], [""])
    FittedNullText([1.0], FORMS["constant"](free_shapes(null), 1), (0, 1), {"form": "constant"}).save(learnt)
    assert main(["export", str(learnt), "--out", str(tmp_path / "other.pt")]) == 2
    said = capsys.readouterr().err
    assert "--form tokens" in said
    assert len(said.splitlines()) == 1
    assert not (tmp_path / "other.pt").exists()


def test_what_has_no_tokens_to_learn_is_refused(models: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match=r"tokens must be at most 75"):
        LearntTokens(models["sd"], 76)
    with pytest.raises(InvalidValue, match="form 'tokens' needs a pipeline"):
        LearntTokens(nulltta.testing.Gaussian(), 2)
    with pytest.raises(InvalidValue, match="read a word as one token"):
        LearntTokens(nulltta.load_model(save_pixart(tmp_path / "pixart"), device="cpu"), 2)


def test_tokens_of_other_text_encoders_and_of_some_steps_have_no_format(
    null_texts: dict[str, FittedNullText], tmp_path: Path
) -> None:
    from dataclasses import replace

    with pytest.raises(DoesNotFit, match="every denoising step"):
        export(replace(null_texts["sd"], between=(1, 2)), tmp_path / "n.pt")
    form = TokensForm({"a": (2, 3)}, {"text_encoder_3": torch.zeros(1, 3)})
    with pytest.raises(DoesNotFit, match="text_encoder_3"):
        export(replace(null_texts["sd"], form=form), tmp_path / "n.pt")
