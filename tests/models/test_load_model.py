from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

import nulltta
from nulltta import NullTTAError, load_model
from nulltta.errors import LoadError, OutOfMemory


def test_a_directory_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NullTTAError, match=r"not a diffusers model: it has no model_index.json"):
        load_model(str(tmp_path))


def test_a_broken_index_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text("{oops")
    with pytest.raises(NullTTAError, match="not JSON"):
        load_model(str(tmp_path))


def test_a_directory_with_missing_parts_is_refused_in_one_line(tmp_path: Path) -> None:
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.42.1"}
    index |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    with pytest.raises(NullTTAError, match="does not load") as caught:
        load_model(str(tmp_path))
    assert "\n" not in str(caught.value)


def test_a_missing_library_is_said_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "sentencepiece", None)  # as if it were not installed
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "KolorsPipeline"}))
    with pytest.raises(NullTTAError, match=r"needs sentencepiece: pip install 'nulltta\[kolors\]'"):
        load_model(str(tmp_path))


def test_another_family_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "DDPMPipeline"}))
    with pytest.raises(NullTTAError, match="DDPMPipeline is not supported: its call has no prompt"):
        load_model(str(tmp_path))
    with pytest.raises(NullTTAError, match="SimpleNamespace is not supported"):
        load_model(SimpleNamespace(components={}))


@pytest.mark.parametrize("source", ["nowhere", "no/such/thing", "", "a file"])
def test_unknown_models_are_refused(source: str, tmp_path: Path) -> None:
    if source == "a file":
        source = str(tmp_path / "model.ckpt")
        Path(source).write_text("x")
    with pytest.raises(NullTTAError, match=r"unknown model|may hold code"):
        load_model(source)


def test_a_hub_model_that_is_not_cached_says_so_offline_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    said = "model 'nulltta-tests/not-there' is not in the hub's cache, and cannot be downloaded"
    with pytest.raises(LoadError, match=said):  # HF_HUB_OFFLINE is set for all tests
        load_model("nulltta-tests/not-there")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    began = time.monotonic()
    with pytest.raises(LoadError, match=said):
        load_model("nulltta-tests/not-there")
    assert time.monotonic() - began < 5  # the hub's own client asks again for half a minute


def test_a_loaded_model_answers_the_protocol(checkpoint: Path) -> None:
    assert isinstance(load_model(checkpoint), nulltta.GuidedModel)


@pytest.mark.parametrize("where", ["from_pretrained", "to"])
def test_a_model_that_does_not_fit_into_memory_is_one_line(
    checkpoint: Path, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from diffusers import DiffusionPipeline

    def full(*args: object, **kwargs: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 20 GiB")

    monkeypatch.setattr(DiffusionPipeline, where, full)
    with pytest.raises(OutOfMemory, match=r"out of memory: load .* in bfloat16"):
        nulltta.load_model(checkpoint, device="cpu")
