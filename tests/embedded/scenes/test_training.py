"""What the training of the scenes world writes, at work: the export, the scorers, the prompts, the verdicts."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

import nulltta
from nulltta.embedded.scenes.evaluate import rates
from nulltta.embedded.scenes.grammar import Claim, Group, caption, parse
from nulltta.embedded.scenes.prompts import test_prompts as reported_prompts
from nulltta.embedded.scenes.prompts import tuning_prompts
from nulltta.embedded.scenes.scorers import NAMES, load_scorer
from nulltta.embedded.scenes.train import autoencoder
from nulltta.embedded.scenes.train.text import fits, tokenizer
from nulltta.embedded.scenes.verdicts import shares, thirds
from nulltta.embedded.train.loop import Budget
from nulltta.errors import InvalidValue, LoadError

PROMPTS = ["two red stars and three blue circles", "a heart above a moon"]


def test_scenes_survive_even_the_untrained_autoencoder_but_not_much_noise(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(autoencoder, "SURVIVAL_SCENES", 30)
    found = autoencoder.survival(autoencoder.load(Budget(trained, math.inf)), (0.0, 3.0))
    assert found[0.0] > 0.5 > found[3.0]


def test_the_generator_is_looked_at_while_it_trains(trained: Path) -> None:
    lines = [json.loads(line) for line in (trained / "verdicts.jsonl").read_text().splitlines()]
    assert len(lines) == 1  # the second step came within half an hour of the first
    assert 0 <= lines[-1]["all"] <= lines[-1]["facts"] <= 1
    assert list(trained.glob("grid-*.png"))


def test_the_export_is_small_and_loads_as_a_model_that_can_be_aligned(trained: Path) -> None:
    size = sum(path.stat().st_size for path in (trained / "w").rglob("*") if path.is_file())
    assert size < 20e6
    assert json.loads((trained / "w" / "training.json").read_text())["stages"]["generator"]["steps"] == 2
    model = nulltta.load_model(trained / "w" / "sd")
    config = nulltta.NullTTAConfig.embedded(num_inference_steps=2, inner_steps=(1, 1), num_particles=2)
    result = nulltta.align(model, PROMPTS[1], load_scorer("scenes-clip", trained / "w"), config=config)
    assert result.images.shape == (1, 3, 64, 64)
    assert result.images.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_every_scorer_scores_images_with_a_gradient(trained: Path, name: str) -> None:
    scorer = load_scorer(name, trained / "w")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    scores = scorer(images, PROMPTS)
    (gradient,) = torch.autograd.grad(scores.sum(), images)
    assert gradient.abs().sum((1, 2, 3)).min() > 0
    torch.testing.assert_close(scorer(images[1:], PROMPTS[1:]), scores[1:])


def test_the_scorers_share_no_weights(trained: Path) -> None:
    towers = [{p.detach().numpy().tobytes() for network in load_scorer(name, trained / "w").networks
               for p in network.parameters() if p.numel() > 1000} for name in NAMES]  # fmt: skip
    assert all(not a & b for a, b in ((towers[0], towers[1]), (towers[0], towers[2]), (towers[1], towers[2])))


def test_missing_and_unknown_scorers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(LoadError, match="make world WORLD=scenes"):
        load_scorer("scenes-conv", tmp_path)
    with pytest.raises(InvalidValue, match="must be one of scenes-clip"):
        load_scorer("clip", tmp_path)


def test_plain_rates_by_prompt(trained: Path) -> None:
    from diffusers import StableDiffusionPipeline

    pipe = StableDiffusionPipeline.from_pretrained(trained / "w" / "sd")
    pipe.set_progress_bar_config(disable=True)
    assert rates(pipe, PROMPTS, seeds=2, steps=2) == [0.0, 0.0]
    found = thirds([0.0, 0.1, 0.5, 0.6, 0.9, 1.0])
    assert found["mean"] == pytest.approx(3.1 / 6)
    assert (found["below 0.2"], found["third1"], found["third3"]) == pytest.approx((1 / 3, 0.05, 0.95))


def test_shares_by_category() -> None:
    verdicts = [{"objects": True, "count": True}, {"objects": None, "count": True}, {"objects": True, "count": False}]
    found = shares(verdicts, ["a star", "two stars", "three stars"])
    assert found == {"all": 0.3333, "one": 1.0, "count": 0.0, "facts": 0.6667, "unclear": 0.3333}


def test_test_and_tuning_prompts_are_stratified_and_apart() -> None:
    reported, tuned = reported_prompts(60), tuning_prompts(60)
    assert reported == reported_prompts(90)[:60]
    assert not set(reported) & set(tuned)
    for prompts in (reported, tuned):
        assert len(set(prompts)) == 60
        assert len({parse(prompt).category for prompt in prompts[:6]}) == 6
    with pytest.raises(InvalidValue, match="n must be 600 or less"):
        reported_prompts(601)


def test_captions_fit_scenes_that_show_what_they_state() -> None:
    red, heart = Group(1, "star", "red"), Group(2, "heart", "blue")
    scene = Claim((red, heart))
    assert fits(Claim((heart, red)), scene)
    assert fits(Claim((Group(1, "star"), Group(2, "heart"))), scene)
    assert not fits(Claim((Group(1, "star", "green"), heart)), scene)
    assert not fits(Claim((red,)), scene)
    assert not fits(Claim((Group(1, "star"), Group(1, "heart")), "above"), scene)


def test_every_word_is_one_token_and_every_caption_fits() -> None:
    words = tokenizer()
    longest = caption(Claim((Group(1, "star", "red"), Group(1, "heart", "orange")), "left of"))
    assert len(words(longest).input_ids) == len(longest.split()) + 2 <= words.model_max_length
