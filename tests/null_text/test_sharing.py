"""Null texts from elsewhere: bare embeddings of others, and repositories of the Hugging Face Hub."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from PIL import Image

import nulltta
from nulltta import DoesNotFit, InvalidValue, LoadError, NullText
from nulltta.cli import main
from nulltta.null_text import loading, sharing
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import ConstantForm
from nulltta.null_text.replay import replay

from ..tiny_families import save_sdxl

SHAPE = (1, 77, 32)


@pytest.fixture(scope="module")
def model(checkpoint: Path) -> Any:
    return nulltta.load_model(checkpoint, device="cpu")


def embedding() -> torch.Tensor:
    return torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["reneg.bin", "reneg.pt", "reneg.safetensors"])
def test_a_bare_embedding_gives_the_pictures_of_diffusers_negative_embeds(
    model: Any, tmp_path: Path, name: str
) -> None:
    from safetensors.torch import save_file

    path = tmp_path / name
    held = {"neg_embeddings": embedding()}
    {".bin": lambda: torch.save(embedding(), path), ".pt": lambda: torch.save(held, path),
     ".safetensors": lambda: save_file(held, path)}[path.suffix]()  # fmt: skip
    null_text = NullText.load(path, model)
    pipeline = model.pipeline
    latents = model.initial_latents(1, torch.Generator().manual_seed(0))
    call = {"prompt": "a cat", "num_inference_steps": 3, "latents": latents, "output_type": "pt"}
    with null_text.apply(pipeline):
        ours = pipeline(**call).images
    theirs = pipeline(negative_prompt_embeds=embedding(), **call).images
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_a_bare_embedding_is_replayed_and_saved_like_any_other(model: Any, tmp_path: Path) -> None:
    torch.save(embedding(), tmp_path / "reneg.bin")
    null_text = loading.load(tmp_path / "reneg.bin", model)
    config = nulltta.NullTTAConfig(num_inference_steps=2, eta=0.0, num_particles=1)
    ours, plain = (replay(model, null_text, prompt="a cat", config=config, plain=each) for each in (False, True))
    assert float((ours - plain).abs().max()) > 1e-3
    assert isinstance(null_text, NullText)
    null_text.save(tmp_path / "saved.safetensors")
    again = replay(model, NullText.load(tmp_path / "saved.safetensors", model), prompt="a cat", config=config)
    torch.testing.assert_close(again, ours, rtol=0, atol=1e-2)  # differences are kept in float16
    with pytest.raises(InvalidValue, match="prompt is needed"):
        replay(model, null_text)
    started = nulltta.align(model, "a cat", lambda images, _: images.flatten(1).mean(1), method="plain", config=config,
                            start=tmp_path / "reneg.bin")  # fmt: skip
    torch.testing.assert_close(started.images, ours)


def test_a_bare_embedding_is_compared_on_the_command_line(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save(embedding(), tmp_path / "reneg.bin")
    words = ["replay", str(tmp_path / "reneg.bin"), "--model", str(checkpoint), "--device", "cpu", "--prompt", "a cat",
             "--num-inference-steps", "2", "--reward", "brightness", "--out", str(tmp_path / "out")]  # fmt: skip
    assert main(words) == 0
    assert "brightness" in capsys.readouterr().out
    assert (tmp_path / "out" / "000-plain.png").exists()


class _Code:
    def __reduce__(self) -> Any:
        return (print, ("this must not run",))


@pytest.mark.parametrize(
    ("held", "error", "said"),
    [
        (torch.zeros(1, 70, 32), DoesNotFit, r"shape \(1, 70, 32\)"),
        (torch.zeros(2, 77, 32), DoesNotFit, r"shape \(2, 77, 32\)"),
        (torch.zeros(8, 32), DoesNotFit, "textual inversion"),
        (torch.full(SHAPE, float("nan")), LoadError, "not finite"),
        ({"a": torch.zeros(SHAPE), "b": torch.zeros(SHAPE)}, LoadError, "not a negative embedding"),
        (torch.zeros(SHAPE, dtype=torch.int64), LoadError, "not a negative embedding"),
        (b"nonsense", LoadError, "damaged"),
        (_Code(), LoadError, "more than tensors"),
    ],
)
def test_a_file_that_is_no_such_embedding_is_refused_in_one_line(
    model: Any, tmp_path: Path, held: Any, error: type[Exception], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path, content = tmp_path / "n.bin", io.BytesIO()
    torch.save(held, content) if not isinstance(held, bytes | _Code) else None
    path.write_bytes(held if isinstance(held, bytes) else content.getvalue() or pickle.dumps(held, 2))
    with pytest.raises(error, match=said) as refused:
        NullText.load(path, model)
    assert "\n" not in str(refused.value)
    assert capsys.readouterr().out == ""


def test_a_bare_embedding_needs_a_model_that_has_one(model: Any, tmp_path: Path) -> None:
    torch.save(embedding(), tmp_path / "n.bin")
    with pytest.raises(InvalidValue, match="model is needed"):
        NullText.load(tmp_path / "n.bin")
    with pytest.raises(DoesNotFit, match="has 2: 'encoder_hidden_states'"):
        NullText.load(tmp_path / "n.bin", nulltta.load_model(save_sdxl(tmp_path / "sdxl"), device="cpu"))
    with pytest.raises(LoadError, match="there is no file"):
        NullText.load(tmp_path / "missing.bin", model)


def fitted() -> FittedNullText:
    gain = {
        "n": 8,
        "plain": 0.25,
        "aligned": 0.5,
        "mean": 0.25,
        "low": 0.125,
        "high": 0.375,
        "spread": 1.0,
        "wins": 1.0,
    }
    about = {"model": {}, "model_name": "org/model", "form": "constant", "reward": "clip", "config": {}, "licence": "",
             "validation": {"prompts": 8, "update": 2, "gains": {"clip": gain, "sharp|ness": gain}}}  # fmt: skip
    return FittedNullText([2.0, 1.0], ConstantForm({"a": (2, 3)}, 2).requires_grad_(False), (0, 2), about)


def test_what_is_uploaded_says_what_it_raises_how_it_was_measured_and_under_which_licence(tmp_path: Path) -> None:
    pictures = {"a cat](http://elsewhere) <b>": Image.new("RGB", (8, 8), "red")}
    sharing.prepare(fitted(), tmp_path, "user/better", licence="CC0-1.0", pictures=pictures)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["README.md", "null_text.safetensors", "picture-0.png"]
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.to_dict() == {
        "license": "cc0-1.0", "library_name": "nulltta", "base_model": "org/model",
        "tags": ["null-text", "diffusers", "text-to-image"],
    }  # fmt: skip
    text = card.text
    assert "**Raises:** `clip`" in text
    assert "| `clip` | 0.25 | 0.5 | +0.25 | +0.125 to +0.375 |" in text
    assert "`sharp/ness`" in text  # a name cannot break the table
    assert 'loading.load("user/better")' in text
    (picture,) = (line for line in text.splitlines() if line.startswith("!["))
    assert picture.endswith("](picture-0.png)")
    assert "elsewhere)" not in picture
    with Image.open(tmp_path / "picture-0.png") as shown:
        assert shown.size == (8, 8)
    assert FittedNullText.load(tmp_path / "null_text.safetensors").about["licence"] == "CC0-1.0"


def test_the_card_of_one_prompt_shows_its_own_picture_and_claims_no_measures(tmp_path: Path) -> None:
    row = {"a": torch.zeros(2, 3)}
    null_text = NullText([1.0], [row], "a `cat`", row, {"reward": "clip"}, image=torch.rand(3, 8, 8))
    sharing.prepare(null_text, tmp_path, "user/cat")
    text = (tmp_path / "README.md").read_text()
    assert "the prompt `a 'cat'`" in text
    assert "No measures" in text
    assert "none was stated" in text
    assert "picture-0.png" in text
    assert "license" not in text.split("---")[1]


def in_cache(cache: Path, repository: str) -> Path:
    """Make the hub's own layout of a repository: refs/main names a commit, whose files are in snapshots/COMMIT."""
    home, commit = cache / f"models--{repository.replace('/', '--')}", "0" * 40
    (home / "refs").mkdir(parents=True)
    (home / "refs" / "main").write_text(commit)
    (home / "snapshots" / commit).mkdir(parents=True)
    return home / "snapshots" / commit


def test_a_repository_loads_from_the_hubs_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    sharing.prepare(fitted(), in_cache(tmp_path, "user/better"), "user/better")
    row = {"a": torch.zeros(2, 3)}
    sharing.prepare(NullText([1.0], [row], "a cat", row, {}), in_cache(tmp_path, "user/cat"), "user/cat")
    assert FittedNullText.load("user/better").about["reward"] == "clip"
    assert loading.load("user/better").about["form"] == "constant"
    assert NullText.load("user/cat").prompt == "a cat"


def test_a_repository_that_is_not_here_is_told_from_a_file_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(LoadError, match=r"user/absent.*cannot be fetched \(offline\)"):
        NullText.load("user/absent")
    with pytest.raises(LoadError, match=r"there is no file 'out/cat\.safetensors'"):
        NullText.load("out/cat.safetensors")


def test_an_upload_that_is_impossible_is_refused_in_one_line() -> None:
    with pytest.raises(InvalidValue, match="repo must be of the form user/repo, not 'better'"):
        fitted().push_to_hub("better")
    with pytest.raises(InvalidValue, match="cannot be uploaded to 'user/better'") as refused:
        fitted().push_to_hub("user/better")  # the tests are offline
    assert "\n" not in str(refused.value)
