"""Training: every stage takes two steps at the smallest size, is stopped and resumed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from functools import partial
from itertools import count, islice
from pathlib import Path

import pytest
import torch

from nulltta.embedded.autoencoder import PatchAutoencoder
from nulltta.embedded.tokenizer import build_tokenizer
from nulltta.embedded.train import autoencoder, decoder, denoiser, judge, scorers, tiny
from nulltta.embedded.train.loop import Budget, Recipe, drawn_ahead, draws, learning_rate, train


def steps(folder: Path, stage: str) -> int:
    found: int = torch.load(folder / f"{stage}.pt", weights_only=True)["step"]
    return found


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, batch in ((autoencoder, 2), (scorers, 4), (denoiser, 2), (judge, 2)):
        monkeypatch.setattr(module, "BATCH", batch)
    monkeypatch.setattr(autoencoder, "PCA_IMAGES", 32)
    monkeypatch.setattr(denoiser, "draw_grid", lambda *_: None)


@pytest.mark.usefixtures("small")
def test_every_stage_runs_and_resumes(tmp_path: Path) -> None:
    stages = {
        "autoencoder": autoencoder.run,
        "clip": partial(scorers.run, "clip"),
        "clip-b": partial(scorers.run, "clip-b"),
        "judge": judge.run,
        "decoder": decoder.run,
        "tiny": tiny.run,
        "denoiser": partial(denoiser.run, scenes=8),
    }
    for name, run in stages.items():
        run("cpu", Budget(tmp_path, 1, steps=1))
        assert steps(tmp_path, name) == 1
        run("cpu", Budget(tmp_path, 1, steps=2))
        assert steps(tmp_path, name) == 2


def test_a_resumed_run_whose_data_is_drawn_ahead_equals_an_uninterrupted_one(tmp_path: Path) -> None:
    def result(folder: Path, stops: tuple[int, ...], workers: int) -> torch.Tensor:
        for stop in stops:
            torch.manual_seed(0)
            module = torch.nn.Linear(4, 1)

            def loss(draw: object, module: torch.nn.Linear = module) -> tuple[torch.Tensor, dict[str, float]]:
                noise = torch.randn(8, 4, generator=draw.torch)  # type: ignore[attr-defined]
                return module(draw.data + noise).pow(2).mean(), {}  # type: ignore[attr-defined]

            recipe = Recipe("toy", module, loss, 8, draw=random.Random.random, ema=0.9)
            train(recipe, Budget(folder, 1e9, steps=stop, workers=workers))
        average: torch.Tensor = torch.load(folder / "toy.pt", weights_only=True)["average"]["weight"]
        return average

    torch.testing.assert_close(result(tmp_path / "a", (60,), 0), result(tmp_path / "b", (13, 60), 2))
    line = json.loads((tmp_path / "a" / "toy.jsonl").read_text().splitlines()[-1])
    assert line["step"] == 50


def test_a_spent_budget_trains_no_further(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 1)
    recipe = Recipe("toy", module, lambda d: (module(torch.ones(1, 2)).sum(), {}), 1)
    assert train(recipe, Budget(tmp_path, 0)).step == 0


def test_a_stage_of_a_set_length_ends_there_and_its_learning_rate_with_it(tmp_path: Path) -> None:
    module = torch.nn.Linear(2, 1)
    recipe = Recipe("toy", module, lambda d: (module(torch.ones(1, 2)).sum(), {}), 1, lr=1.0, warmup=1, steps=50)
    assert train(recipe, Budget(tmp_path, 1e9)).step == 50
    line = json.loads((tmp_path / "toy.jsonl").read_text().splitlines()[-1])
    assert line["lr"] == pytest.approx(0.01, rel=0.05)


def test_scenes_are_encoded_once_per_autoencoder_and_version_of_the_world(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "latents.safetensors"
    drawn, models = [], [PatchAutoencoder(latent_channels=4, width=8, blocks=1) for _ in range(2)]

    def scenes(word: str) -> Iterator[tuple[torch.Tensor, list[str]]]:
        for value in (50, 200):
            drawn.append(value)
            yield torch.full((2, 3, 64, 64), value, dtype=torch.uint8), [word, "a red"]

    def encoded(model: PatchAutoencoder, word: str) -> denoiser.Data:
        drawn.clear()
        return denoiser.encode_scenes(path, model.eval(), build_tokenizer(), scenes(word))

    whole = encoded(models[0], "a blue")
    assert len(whole.latents) == len(whole.ids) == 4
    assert torch.equal(encoded(models[0], "a blue").latents, whole.latents)
    assert drawn == [50]
    assert capsys.readouterr().out == ""
    for model, word in ((models[1], "a blue"), (models[1], "a green")):
        encoded(model, word)
        assert drawn == [50, 200]
        assert "it is made anew" in capsys.readouterr().out


def test_draws_and_learning_rate() -> None:
    assert draws("judge", 3).python.random() == draws("judge", 3).python.random()
    assert draws("judge", 3).python.random() != draws("clip", 3).python.random()
    recipe = Recipe("toy", torch.nn.Linear(1, 1), lambda d: (torch.zeros(()), {}), 1, lr=2.0, warmup=10, hold=0.5)
    assert learning_rate(recipe, 4, 0.0) == pytest.approx(1.0)
    assert learning_rate(recipe, 100, 0.5) == pytest.approx(2.0)
    assert learning_rate(recipe, 100, 1.0) == pytest.approx(0.02)


def test_data_that_is_drawn_ahead_does_not_depend_on_who_draws_it() -> None:
    found = [list(islice(drawn_ahead("toy", random.Random.random, count(3), workers), 4)) for workers in (0, 2)]
    assert found[0] == found[1] == [draws("toy", step).python.random() for step in range(3, 7)]
