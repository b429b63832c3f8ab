"""HPSv3 from a tiny checkpoint under the official names, against the authors' computation."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional

from nulltta.errors import InvalidValue, LoadError
from nulltta.rewards import hpsv3, load

from .checkpoints import hpsv3_directory
from .pictures import picture, tensor

PROMPTS = ["a red cat", "the sun over a blue {sea}"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hpsv3_directory(tmp_path_factory.mktemp("hpsv3"))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 12 tokens per image instead of 256."""
    monkeypatch.setattr(hpsv3, "PIXELS", 84 * 112)


def official(folder: Path, pictures: list[Image.Image], prompts: list[str]) -> Tensor:
    """(μ, σ) as the authors' package computes them, one picture at a time: the embeddings of words and image go through
    the language model without the image's own positions, and the head reads the reward token."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|Reward|>"]}, replace_extra_special_tokens=False)
    reward_token = tokenizer.convert_tokens_to_ids("<|Reward|>")
    processor = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)
    config = transformers.Qwen2VLConfig.from_pretrained(folder)
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    state = load_file(folder / "HPSv3.safetensors")
    renamed = {"visual.": "model.visual.", "model.": "model.language_model."}
    names = {
        next((new + name[len(old) :] for old, new in renamed.items() if name.startswith(old)), name): value
        for name, value in state.items()
        if not name.startswith("rm_head.")
    }
    model.load_state_dict(names)
    found = []
    for image, prompt in zip(pictures, prompts, strict=True):
        text = hpsv3.QUESTION.replace("{text_prompt}", prompt)
        content = [{"type": "image"}, {"type": "text", "text": text}]
        words = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(image, return_tensors="pt")
        places = int(inputs["image_grid_thw"].prod()) // 4
        ids = tokenizer(words.replace("<|image_pad|>", "<|image_pad|>" * places), return_tensors="pt").input_ids
        embedded = model.get_input_embeddings()(ids)
        seen = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        embedded = embedded.masked_scatter((ids == config.image_token_id)[..., None].expand_as(embedded), seen)
        hidden = model.model.language_model(inputs_embeds=embedded, attention_mask=torch.ones_like(ids))[0]
        x = hidden[ids == reward_token]
        for layer in (0, 3, 5):
            x = functional.linear(x, state[f"rm_head.{layer}.weight"], state[f"rm_head.{layer}.bias"])
            x = x.relu() if layer < 5 else x
        found.append(x[0])
    return torch.stack(found).detach()


def test_the_score_is_the_mean_of_the_authors_computation(folder: Path) -> None:
    pictures = [picture(84, 112, seed) for seed in range(2)]
    images = torch.cat([tensor(image) for image in pictures])
    reward = load("hpsv3", folder, device="cpu")
    ours, expected = reward(images, PROMPTS), official(folder, pictures, PROMPTS)[:, 0]
    assert (reward.name, reward.differentiable, ours.dtype, ours.shape) == ("hpsv3", True, torch.float32, (2,))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    assert abs(float(ours[0] - ours[1])) > 1e-3
    assert not torch.allclose(ours, reward(images, PROMPTS[::-1]), atol=1e-4)  # the prompt matters
    alone = torch.cat([reward(images[i : i + 1], PROMPTS[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(ours, alone, rtol=1e-5, atol=1e-5)


def test_the_gradient_to_the_pixels_matches_finite_differences(folder: Path) -> None:
    """To 1e-3: the language model's RMS norms are float32 inside, whatever the model's dtype."""
    reward = load("hpsv3", folder, device="cpu", dtype=torch.float64)
    images = torch.cat([tensor(picture(90, 100, seed), torch.float64) for seed in range(2)]) * 0.4 + 0.3  # is resized
    (gradient,) = torch.autograd.grad(reward(images.requires_grad_(), PROMPTS).sum(), images)
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-4
    with torch.no_grad():
        ends = [reward(images + sign * step * direction, PROMPTS).sum() for sign in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-6)


def test_a_bfloat16_model_scores_in_float32(folder: Path) -> None:
    image = tensor(picture(84, 112))
    exact = load("hpsv3", folder, device="cpu")(image, PROMPTS[:1])
    coarse = load("hpsv3", folder, device="cpu", dtype=torch.bfloat16)(image, PROMPTS[:1])
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0.2, atol=0.2)


@pytest.mark.parametrize("token", ["<|Reward|>", "<|image_pad|>", "<|im_end|>"])
def test_a_prompt_cannot_hold_special_tokens(folder: Path, token: str) -> None:
    with pytest.raises(InvalidValue, match="prompt with the model's own special token"):
        load("hpsv3", folder, device="cpu")(tensor(picture(84, 112)), [f"a cat {token}"])


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rm_head.3.bias", "HPSv3"),
        ("model.norm.weight", "the file lacks 'model.language_model.norm.weight'"),
        ("model.embed_tokens.weight", "the file lacks an embedding of"),
    ],
)
def test_missing_tensors_are_named(folder: Path, tmp_path: Path, name: str, says: str) -> None:
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    state = load_file(copy / "HPSv3.safetensors")
    del state[name]
    save_file(state, copy / "HPSv3.safetensors", {"format": "pt"})
    with pytest.raises(LoadError, match=says):
        load("hpsv3", copy, device="cpu")
