"""VQAScore from tiny checkpoints of the models it supports, through the public path."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

from nulltta import NullTTAError
from nulltta.rewards import REWARDS, catalogue, load

from .checkpoints import SIDE, clip_directory, instructblip_directory, qwen_directory, sharded
from .official import vqascore
from .pictures import picture, tensor

PROMPTS = ["a red cat", "the sun over a blue sea"]
BUILD: dict[str, Callable[[Path], Path]] = {
    "qwen": qwen_directory,
    "qwen2": lambda folder: qwen_directory(folder, "2"),
    "qwen3": lambda folder: qwen_directory(folder, "3"),
    "instructblip-t5": lambda folder: instructblip_directory(folder, "t5"),
    "instructblip-llama": lambda folder: instructblip_directory(folder, "llama"),
}
NAMES = list(BUILD)


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    made: dict[str, Path] = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = BUILD[name](tmp_path_factory.mktemp(name))
        return made[name]

    return get


@pytest.fixture
def copied(checkpoints: Any, tmp_path: Path) -> Callable[[str], Path]:
    """Return a copy to be damaged."""
    return lambda name: Path(shutil.copytree(checkpoints(name), tmp_path / name))


def _pictures(name: str) -> list[Image.Image]:
    """Of a size that the model's processor does not change: Qwen's own, and 12 tokens in two windows."""
    size = {"qwen": (84, 112), "qwen2": (84, 112), "qwen3": (96, 128)}.get(name, (SIDE, SIDE))
    return [picture(*size, seed) for seed in range(2)]


def _images(name: str, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.cat([tensor(image, dtype) for image in _pictures(name)])


@pytest.mark.parametrize("name", NAMES)
def test_scores_are_those_of_generate_with_the_official_processor(checkpoints: Any, name: str) -> None:
    folder, images = checkpoints(name), _images(name)
    reward = load("vqascore", folder, device="cpu")
    ours = reward(images, PROMPTS)
    expected = vqascore(name, folder, _pictures(name), PROMPTS)
    assert (reward.name, reward.differentiable, ours.dtype, ours.shape) == ("vqascore", True, torch.float32, (2,))
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-7)
    crossed, swapped = reward(images, PROMPTS[::-1]), reward(images.flip(0), PROMPTS)
    assert (ours / crossed).log().abs().max() > 0.1  # prompts and pictures matter
    assert (ours / swapped).log().abs().max() > 0.1


@pytest.mark.parametrize("name", NAMES)
def test_a_score_does_not_depend_on_the_batch(checkpoints: Any, name: str) -> None:
    reward, images = load("vqascore", checkpoints(name), device="cpu"), _images(name).requires_grad_()
    together = reward(images, PROMPTS)
    (gradient,) = torch.autograd.grad(together.sum(), images)
    for i in range(2):
        alone = reward(images[i : i + 1], PROMPTS[i : i + 1])
        torch.testing.assert_close(alone[0], together[i], rtol=1e-5, atol=1e-7)
        (own,) = torch.autograd.grad(alone, images)
        torch.testing.assert_close(own[i], gradient[i], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_to_the_pixels_matches_finite_differences(checkpoints: Any, name: str) -> None:
    """To 1e-3: the language models' RMS norms are float32 inside, whatever the tower's dtype."""
    reward = load("vqascore", checkpoints(name), device="cpu", dtype=torch.float64)
    images = torch.cat([tensor(picture(90, 100, seed), torch.float64) for seed in range(2)]) * 0.4 + 0.3  # is resized
    (gradient,) = torch.autograd.grad(reward(images.requires_grad_(), PROMPTS).sum(), images)
    assert bool(gradient.isfinite().all())
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    step = 1e-4
    with torch.no_grad():
        ends = [reward(images + sign * step * direction, PROMPTS).sum() for sign in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_a_bfloat16_model_scores_in_float32(checkpoints: Any, name: str) -> None:
    images = _images(name)
    exact = load("vqascore", checkpoints(name), device="cpu")(images, PROMPTS)
    reward: Any = load("vqascore", checkpoints(name), device="cpu", dtype=torch.bfloat16)
    coarse = reward(images, PROMPTS)
    assert coarse.dtype == torch.float32
    torch.testing.assert_close(coarse, exact, rtol=0.2, atol=0)
    logits = reward.model.logits(images, PROMPTS)
    assert (logits != logits.bfloat16()).float().mean() > 0.9  # not rounded: they would be 0.125 apart near 20
    assert reward.model.model.get_input_embeddings().weight.dtype == torch.bfloat16


@pytest.mark.parametrize("name", NAMES)
def test_questions_are_tokenised_once_and_parameters_frozen(
    checkpoints: Any, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    reward: Any = load("vqascore", checkpoints(name), device="cpu")
    expected = reward(_images(name), PROMPTS)
    monkeypatch.setattr(reward.model, "words", None)
    assert torch.equal(reward(_images(name), PROMPTS), expected)
    assert not reward.model.model.training
    assert not any(parameter.requires_grad for parameter in reward.model.model.parameters())


@pytest.mark.parametrize("name", ["qwen", "instructblip-t5"])
def test_scores_differ_little_from_those_of_the_official_preprocessing(checkpoints: Any, name: str) -> None:
    """Of pictures that are resized, whose pixels differ a little; docs/rewards.md states these figures."""
    reward = load("vqascore", checkpoints(name), device="cpu")
    pictures = [picture(*size, seed) for seed, size in enumerate([(96, 96), (150, 110), (224, 200), (300, 225)])]
    ours = torch.cat([reward(tensor(image), PROMPTS[:1]) for image in pictures]).log()
    official = vqascore(name, checkpoints(name), pictures, PROMPTS[:1] * 4).log()
    assert (ours - official).abs().mean() < 0.02
    assert ours.std() > 10 * (ours - official).abs().mean()


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize("name", ["qwen", "instructblip-t5"])
def test_shards_are_loaded_and_a_damaged_or_missing_one_is_named(copied: Any, name: str, kind: str) -> None:
    folder = copied(name)
    expected = load("vqascore", folder, device="cpu")(_images(name), PROMPTS)
    shard = sharded(folder, kind)[-1]
    torch.testing.assert_close(load("vqascore", folder, device="cpu")(_images(name), PROMPTS), expected)
    shard.write_bytes(shard.read_bytes()[:-100])
    with pytest.raises(NullTTAError, match=f"{shard.name}' is not a weights file, or is truncated: [^\n]*$"):
        load("vqascore", folder, device="cpu")
    shard.unlink()
    with pytest.raises(NullTTAError, match=f"needs {shard.name}: '{folder}' has none$"):
        load("vqascore", folder, device="cpu")


@pytest.mark.parametrize("name", ["qwen", "instructblip-t5"])
def test_a_missing_or_misshapen_tensor_is_refused(copied: Any, name: str) -> None:
    path = copied(name) / "model.safetensors"
    state = load_file(path)
    key = next(key for key in state if key.endswith("norm2.weight"))
    save_file({**state, key: torch.ones(3)}, path, {"format": "pt"})
    with pytest.raises(NullTTAError, match=r"model.safetensors' is not such a \w+: .* has another shape for '.*norm2"):
        load("vqascore", path.parent, device="cpu")
    del state[key]
    save_file(state, path, {"format": "pt"})
    with pytest.raises(NullTTAError, match=r"model.safetensors' is not such a \w+: the file lacks '.*norm2.weight'$"):
        load("vqascore", path.parent, device="cpu")


@pytest.mark.parametrize(
    ("name", "file", "says"),
    [
        ("qwen", "config.json", "needs config.json: "),
        ("qwen", "preprocessor_config.json", "needs preprocessor_config.json or processor_config.json: "),
        ("qwen", "tokenizer.json", r"needs a tokenizer \(tokenizer.json\): none was found in "),
        ("qwen", "chat_template.jinja", "needs chat_template.json: "),
        ("instructblip-t5", "processor_config.json", "needs preprocessor_config.json or processor_config.json: "),
        ("instructblip-t5", "qformer_tokenizer/tokenizer.json", r"a tokenizer \(qformer_tokenizer/tokenizer.json\)"),
        ("instructblip-t5", "tokenizer_config.json", "the tokenizer cuts 'Yes' into 2 tokens"),
    ],
)
def test_a_missing_file_is_named(copied: Any, name: str, file: str, says: str) -> None:
    folder = copied(name)
    (folder / file).unlink()
    with pytest.raises(NullTTAError, match=says) as caught:
        load("vqascore", folder, device="cpu")
    assert "\n" not in str(caught.value)


def test_a_chat_template_of_the_processor_is_read_too(copied: Any) -> None:
    folder = copied("qwen")
    expected = load("vqascore", folder, device="cpu")(_images("qwen"), PROMPTS)
    template = folder / "chat_template.jinja"
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": template.read_text()}))
    template.unlink()
    assert torch.equal(load("vqascore", folder, device="cpu")(_images("qwen"), PROMPTS), expected)
    (folder / "chat_template.json").write_text(json.dumps({"chat_template": "{{ messages[0]['role'] }}"}))
    with pytest.raises(NullTTAError, match="the tokenizer's chat template gives an image 0 places, not 1"):
        load("vqascore", folder, device="cpu")


def test_an_instructblip_without_a_token_for_pictures_is_refused(copied: Any) -> None:
    path = copied("instructblip-t5") / "config.json"
    settings = json.loads(path.read_text())
    del settings["image_token_index"]
    path.write_text(json.dumps(settings))
    with pytest.raises(NullTTAError, match=r"InstructBLIP's config\.json lacks image_token_index"):
        load("vqascore", path.parent, device="cpu")


def test_other_models_and_single_files_are_refused(checkpoints: Any, tmp_path: Path) -> None:
    classes = "Qwen2VL.*, Qwen2_5_VL.*, Qwen3VL.*, InstructBlipForConditionalGeneration"
    with pytest.raises(NullTTAError, match=f"is a clip model, not one of the supported {classes}$"):
        load("vqascore", clip_directory(tmp_path), device="cpu")
    with pytest.raises(NullTTAError, match="is a file: give the checkpoint's directory or its hub id"):
        load("vqascore", checkpoints("qwen") / "model.safetensors", device="cpu")


@pytest.mark.parametrize(
    ("name", "token"), [("qwen", "<|image_pad|>"), ("qwen", "<|im_end|>"), ("instructblip-t5", "<image>")]
)
def test_a_prompt_with_the_models_special_tokens_is_refused(checkpoints: Any, name: str, token: str) -> None:
    reward = load("vqascore", checkpoints(name), device="cpu")
    with pytest.raises(NullTTAError, match="prompt with the model's own special token '") as caught:
        reward(_images(name)[:1], [f"a cat {token} a dog"])
    assert token in str(caught.value)
    assert reward(_images(name)[:1], ["a {cat} ☃"]).isfinite()  # neither braces nor letters it does not know


def test_a_prompt_longer_than_the_qformer_reads_is_refused(checkpoints: Any) -> None:
    reward = load("vqascore", checkpoints("instructblip-t5"), device="cpu")
    with pytest.raises(NullTTAError, match=r"prompt of \d+ tokens: InstructBLIP's Q-Former reads 128"):
        reward(_images("instructblip-t5")[:1], ["cat " * 100])


def test_a_cached_repository_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of the hub's layout and in shards: listed as present once all of them are."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NullTTAError, match=r"needs config.json of Qwen/Qwen2.5-VL-3B-Instruct: it is not in the hub's"):
        load("vqascore", device="cpu")
    repository, commit = tmp_path / "models--Qwen--Qwen2.5-VL-3B-Instruct", "0" * 40
    folder = qwen_directory(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    shard = sharded(folder)[0]
    scores = load("vqascore", device="cpu")(_images("qwen"), PROMPTS)
    torch.testing.assert_close(scores, load("vqascore", folder, device="cpu")(_images("qwen"), PROMPTS))
    rows = {row.name: row for row in catalogue()}
    assert rows["vqascore"].present
    shard.unlink()
    assert not {row.name: row for row in catalogue()}["vqascore"].present
    with pytest.raises(NullTTAError, match=f"needs {shard.name} of Qwen/"):
        load("vqascore", device="cpu")


def test_on_a_gpu_vision_language_models_default_to_bfloat16_and_small_networks_to_float32() -> None:
    cuda = torch.device("cuda")
    for name in ("vqascore", "hpsv3", "soft-tifa", "soft-tifa-mean", "unifiedreward"):
        assert REWARDS[name].default_dtype(cuda) == torch.bfloat16, name
    assert REWARDS["clip"].default_dtype(cuda) == torch.float32
    assert REWARDS["vqascore"].default_dtype(torch.device("cuda")) == torch.bfloat16
    assert REWARDS["vqascore"].default_dtype(torch.device("cpu")) == torch.float32
