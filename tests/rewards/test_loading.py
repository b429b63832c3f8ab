"""Missing, truncated and wrong files of weights, and towers that rewards share."""

from __future__ import annotations

import gc
import hashlib
import json
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from nulltta import NullTTAError
from nulltta.rewards import catalogue, load
from nulltta.rewards.compose import parts

from .checkpoints import (
    aesthetic_directory,
    clip_directory,
    hps_directory,
    imagereward_directory,
    naflex_directory,
    sharded,
    siglip_directory,
)
from .pictures import picture, tensor

LEARNED = [
    "pickscore", "clipscore", "siglip", "vqascore", "aesthetic", "aesthetic-v2.5", "hpsv2", "hpsv2.1", "imagereward",
    "cyclereward", "hpsv3", "nsfw", "brisque",
]  # fmt: skip


def test_loading_a_network_prints_nothing(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    folder = clip_directory(tmp_path / "clip")
    capfd.readouterr()
    load("clipscore", folder, device="cpu")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("pickscore", "model.safetensors of yuvalkirstain/PickScore_v1"),
        ("clipscore", "model.safetensors of openai/clip-vit-large-patch14"),
        ("hpsv2", "HPS_v2_compressed.pt of xswu/HPSv2"),
        ("hpsv2.1", "HPS_v2.1_compressed.pt of xswu/HPSv2"),
        ("imagereward", "ImageReward.pt of THUDM/ImageReward"),
    ],
)
def test_offline_and_not_cached_says_which_file_it_wants(
    name: str, file: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NullTTAError, match=f"reward '{name}' needs {file}: it is not in the hub's cache"):
        load(name, device="cpu")


@pytest.mark.parametrize("name", LEARNED)
def test_missing_files_and_directories_are_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(NullTTAError, match=f"reward '{name}' needs .*: '{tmp_path}' has none"):
        load(name, tmp_path, device="cpu")
    with pytest.raises(NullTTAError, match="there is no '/no/where'"):
        load(name, "/no/where", device="cpu")


def _spoilt(path: Path, how: str) -> None:
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    elif how == "text":
        path.write_text("not found")
    elif how == "pickle":  # a class, which weights_only must not build
        torch.save({"state_dict": Path("x")}, path)


@pytest.mark.parametrize("how", ["truncated", "text"])
@pytest.mark.parametrize(
    ("name", "build", "file"),
    [
        ("clipscore", clip_directory, "model.safetensors"),
        ("hpsv2", hps_directory, "HPS_v2_compressed.pt"),
        ("imagereward", imagereward_directory, "ImageReward.pt"),
        ("aesthetic", aesthetic_directory, "sac+logos+ava1-l14-linearMSE.pth"),
    ],
)
def test_a_damaged_file_is_named(
    name: str, build: Callable[[Path], Path], file: str, how: str, tmp_path: Path
) -> None:  # fmt: skip
    path = build(tmp_path) / file
    _spoilt(path, how)
    with pytest.raises(NullTTAError, match="is not a weights file, or is truncated") as caught:
        load(name, tmp_path, device="cpu")
    assert file in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_torch_file_runs_no_code(tmp_path: Path) -> None:
    path = hps_directory(tmp_path) / "HPS_v2_compressed.pt"
    _spoilt(path, "pickle")
    with pytest.raises(NullTTAError, match="is not a weights file"):
        load("hpsv2", tmp_path, device="cpu")


@pytest.mark.parametrize(
    ("name", "build", "file", "first"),
    [
        ("hpsv2", hps_directory, "HPS_v2_compressed.pt", "visual.transformer.resblocks.1.mlp.c_fc.weight"),
        ("imagereward", imagereward_directory, "ImageReward.pt", "blip.visual_encoder.blocks.1.attn.qkv.weight"),
        ("imagereward", imagereward_directory, "ImageReward.pt", "mlp.layers.4.bias"),
        ("aesthetic", aesthetic_directory, "sac+logos+ava1-l14-linearMSE.pth", "layers.2.bias"),
    ],
)
def test_missing_unknown_and_misshapen_keys_are_named(
    name: str, build: Callable[[Path], Path], file: str, first: str, tmp_path: Path
) -> None:
    path = build(tmp_path) / file
    whole = torch.load(path, weights_only=True)
    state = whole.get("state_dict", whole)
    kept = state.pop(first)
    torch.save(whole, path)
    with pytest.raises(NullTTAError, match="the file lacks '"):
        load(name, tmp_path, device="cpu")
    state[first] = kept
    state["blip.surprise" if name == "imagereward" else "surprise"] = torch.ones(1)
    torch.save(whole, path)
    with pytest.raises(NullTTAError, match="has the unknown 'surprise'"):
        load(name, tmp_path, device="cpu")


def test_a_clip_of_other_shapes_and_another_architecture_are_named(tmp_path: Path) -> None:
    path = clip_directory(tmp_path) / "model.safetensors"
    state = load_file(path)
    save_file({**state, "text_projection.weight": torch.ones(3, 3)}, path, {"format": "pt"})
    with pytest.raises(NullTTAError, match=r"has another shape for 'text_projection\.weight'"):
        load("clipscore", tmp_path, device="cpu")
    siglip = siglip_directory(tmp_path / "siglip")
    with pytest.raises(NullTTAError, match="is a siglip model, not a CLIP"):
        load("pickscore", siglip, device="cpu")
    with pytest.raises(NullTTAError, match="is a clip model, not a SigLIP"):
        load("siglip", tmp_path, device="cpu")


def test_a_missing_config_or_tokenizer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip_directory(tmp_path)
    config = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").unlink()
    with pytest.raises(NullTTAError, match=r"needs config.json"):
        load("clipscore", tmp_path, device="cpu")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(NullTTAError, match=r"config.json' is not JSON"):
        load("clipscore", tmp_path, device="cpu")
    (tmp_path / "config.json").write_text(config)
    (tmp_path / "tokenizer.json").unlink()
    monkeypatch.setattr("nulltta.rewards.clip.OPENAI", str(tmp_path / "nowhere"))
    with pytest.raises(NullTTAError, match=r"needs a tokenizer \(tokenizer.json\)"):
        load("clipscore", tmp_path, device="cpu")


def test_positions_that_older_files_carry_are_ignored(tmp_path: Path) -> None:
    path = clip_directory(tmp_path) / "model.safetensors"
    expected = load("clipscore", tmp_path, device="cpu")(tensor(picture(28, 28)), ["a"])
    extra = {"text_model.embeddings.position_ids": torch.arange(77)[None]}
    save_file({**load_file(path), **extra}, path, {"format": "pt"})
    gc.collect()
    torch.testing.assert_close(load("clipscore", tmp_path, device="cpu")(tensor(picture(28, 28)), ["a"]), expected)


def test_a_bin_file_is_read_if_there_are_no_safetensors(tmp_path: Path) -> None:
    path = clip_directory(tmp_path) / "model.safetensors"
    expected = load("clipscore", tmp_path, device="cpu")(tensor(picture(28, 28)), ["a"])
    torch.save(load_file(path), tmp_path / "pytorch_model.bin")
    path.unlink()
    torch.testing.assert_close(load("clipscore", tmp_path, device="cpu")(tensor(picture(28, 28)), ["a"]), expected)


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
@pytest.mark.parametrize(
    ("name", "build"),
    [
        ("pickscore", clip_directory), ("aesthetic", aesthetic_directory), ("siglip", siglip_directory),
        ("siglip", naflex_directory),
    ],
)  # fmt: skip
def test_shards_are_loaded_and_a_damaged_or_missing_one_is_named(
    name: str, build: Callable[[Path], Path], kind: str, tmp_path: Path
) -> None:
    folder, image = build(tmp_path), tensor(picture(28, 28))
    expected = load(name, folder, device="cpu")(image, ["a"])
    shards = sharded(folder, kind)
    assert len(shards) > 1
    torch.testing.assert_close(load(name, folder, device="cpu")(image, ["a"]), expected)
    gc.collect()
    (index,) = folder.glob("*.index.json")
    if name != "aesthetic":  # whose source is the MLP
        torch.testing.assert_close(load(name, index, device="cpu")(image, ["a"]), expected)
        with pytest.raises(NullTTAError, match="lists several files: a SHA-256 can only be checked for"):
            load(name, folder, device="cpu", sha256="00" * 32)
        gc.collect()
    shards[-1].write_bytes(shards[-1].read_bytes()[:-100])
    with pytest.raises(NullTTAError, match=f"{shards[-1].name}' is not a weights file, or is truncated: [^\n]*$"):
        load(name, folder, device="cpu")
    shards[-1].unlink()
    with pytest.raises(NullTTAError, match=f"reward '{name}' needs {shards[-1].name}: '{folder}' has none$"):
        load(name, folder, device="cpu")


@pytest.mark.parametrize(
    "index",
    ["[]", "{}", '{"weight_map": []}', '{"weight_map": {"a": "../model.safetensors"}}', '{"weight_map": {"a": 3}}'],
)
def test_an_index_that_names_no_files_of_its_directory_is_refused(index: str, tmp_path: Path) -> None:
    sharded(clip_directory(tmp_path))
    (tmp_path / "model.safetensors.index.json").write_text(index)
    with pytest.raises(NullTTAError, match=r"model.safetensors.index.json' is not (a JSON object|an index)"):
        load("clipscore", tmp_path, device="cpu")


def test_a_processor_config_of_transformers_5_is_read(tmp_path: Path) -> None:
    path, image = clip_directory(tmp_path) / "preprocessor_config.json", tensor(picture(40, 40))
    settings = {**json.loads(path.read_text()), "image_mean": [0.1, 0.2, 0.3]}
    path.write_text(json.dumps(settings))
    expected = load("clipscore", tmp_path, device="cpu")(image, ["a"])
    path.unlink()
    (tmp_path / "processor_config.json").write_text(json.dumps({"image_processor": settings}))
    gc.collect()
    assert torch.equal(load("clipscore", tmp_path, device="cpu")(image, ["a"]), expected)


def test_a_checksum_is_checked(tmp_path: Path) -> None:
    path = clip_directory(tmp_path) / "model.safetensors"
    right = hashlib.sha256(path.read_bytes()).hexdigest()
    load("clipscore", tmp_path, device="cpu", sha256=right.upper())
    with pytest.raises(NullTTAError, match=f"has SHA-256 {right}, not 00"):
        load("clipscore", tmp_path, device="cpu", sha256="00" * 32)


def test_rewards_that_share_a_tower_load_it_once_and_free_it(tmp_path: Path) -> None:
    aesthetic_directory(tmp_path)
    first: Any = load("aesthetic", tmp_path, device="cpu")
    second: Any = load(f"0.5*clipscore:{tmp_path} + brightness", device="cpu")
    assert first.encoder is second.terms[0][1].encoder
    assert second.networks == (first.encoder.model,)
    other: Any = load("clipscore", tmp_path, device="cpu", dtype=torch.float64)
    assert other.encoder is not first.encoder
    tower, weight = weakref.ref(first.encoder), weakref.ref(first.encoder.model.visual_projection.weight)
    del first
    assert tower() is not None
    del second
    gc.collect()
    assert tower() is None
    assert weight() is None


def test_a_cached_repository_needs_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's own layout: models--org--name/{refs/main, snapshots/<commit>/files}."""
    commit = "0" * 40
    repository = tmp_path / "models--yuvalkirstain--PickScore_v1"
    folder = clip_directory(repository / "snapshots" / commit)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    ours = load("pickscore", device="cpu")(tensor(picture(28, 28)), ["a"])
    torch.testing.assert_close(ours, load("pickscore", folder, device="cpu")(tensor(picture(28, 28)), ["a"]))
    rows = {row.name: row for row in catalogue()}
    assert rows["pickscore"].present
    assert not rows["hpsv2"].present


def test_the_catalogue_has_the_size_and_licence_of_each_reward() -> None:
    rows = {row.name: row for row in catalogue()}
    assert rows["brightness"].present
    assert rows["brightness"].gigabytes == 0
    assert not rows["jpeg"].differentiable
    assert rows["imagereward"].source == "THUDM/ImageReward"
    assert all(row.licence and row.gigabytes > 0 for name, row in rows.items() if name in LEARNED)


def test_sources_belong_to_single_learned_rewards() -> None:
    with pytest.raises(NullTTAError, match="loads no file"):
        load("jpeg", "somewhere")
    with pytest.raises(NullTTAError, match="write each one's source into the expression"):
        load("clip + jpeg", "somewhere")
    with pytest.raises(NullTTAError, match="by name"):
        load(lambda images, prompts: images.mean((1, 2, 3)), "somewhere")


def test_your_own_reward_by_import_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "mine_of_today.py").write_text(
        "def redness(images, prompts):\n    return images[:, 0].mean((1, 2))\n\n\n"
        "class Counter:\n    name, differentiable = 'counter', False\n\n"
        "    def __call__(self, images, prompts):\n        return images.mean((1, 2, 3)).round()\n\n\n"
        "number = 3\n"
    )
    monkeypatch.chdir(tmp_path)
    reward = load("2*mine_of_today:redness")
    images = torch.rand(2, 3, 4, 4)
    torch.testing.assert_close(reward(images, ["", ""]), 2 * images[:, 0].mean((1, 2)))
    assert reward.name == "2*mine_of_today:redness"
    assert load("mine_of_today:Counter").name == "counter"
    for text, says in (
        ("mine_of_today:blueness", "no attribute 'blueness'"),
        ("mine_of_tomorrow:redness", "no module 'mine_of_tomorrow'"),
        ("mine_of_today:number", "is of type int: it must be callable"),
    ):
        with pytest.raises(NullTTAError, match=says):
            load(text)


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(NullTTAError, match=r"unknown reward 'pikscore': did you mean 'pickscore'\?"):
        load("clip + pikscore")


def test_the_clip_config_of_the_test_is_the_official_layout(tmp_path: Path) -> None:
    clip_directory(tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["model_type"] == "clip"
    assert "vision_model.pre_layrnorm.weight" in load_file(tmp_path / "model.safetensors")


def test_two_sources_of_one_kind_are_two_parts(tmp_path: Path) -> None:
    one, two = clip_directory(tmp_path / "one", seed=1), clip_directory(tmp_path / "second (2)", seed=2)
    reward = load(f'clipscore:{one} - 2*clipscore:"{two}"', device="cpu")
    image = tensor(picture(28, 28))
    with torch.no_grad():
        found = {name: part(image, ["a"]) for name, part in parts(reward).items()}
        total = reward(image, ["a"])
    assert list(found) == [f"clipscore:{one}", f'clipscore:"{two}"']
    first, second = found.values()
    assert first != second
    torch.testing.assert_close(total, first - 2 * second)
