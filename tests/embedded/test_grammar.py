"""The grammar: captions and facts, held-out compositions, and prompts outside it."""

from __future__ import annotations

import random

import pytest

from nulltta.embedded.grammar import Facts, Scene, caption, held_out, parse, sample, unknown_words, vocabulary
from nulltta.embedded.grammar import test_prompts as unseen_prompts
from nulltta.errors import InvalidValue


@pytest.mark.parametrize("size", ["cpu", "gpu"])
def test_a_caption_parses_into_its_scene(size: str) -> None:
    rng = random.Random(0)
    for _ in range(500):
        scene = sample(rng, size, held=None)
        stated = Facts(scene.objects, scene.count, scene.background, scene.style)
        assert parse(caption(scene), size) == stated
        assert parse(caption(scene).upper() + ".", size) == stated
        assert parse(caption(scene, background=False, style=False), size) == Facts(scene.objects, scene.count)


def test_captions_are_english() -> None:
    assert caption(Scene(("cat face",), 1, "blue", "noto")) == "a cat face on a blue background, noto style"
    assert caption(Scene(("fox",), 2, "orange", "noto"), style=False) == "two foxes on an orange background"
    pair = Scene(("octopus", "rose"), 2, "white", "fluent")
    assert caption(pair) == "an octopus and a rose on a white background, fluent style"


@pytest.mark.parametrize(
    "prompt",
    ["", "a dragon", "four foxes", "a fox and a panda and a rose", "a fox on a beige background",
     "a fox, crayon style", "a lion", "a fox on a blue"],
)  # fmt: skip
def test_a_prompt_outside_the_grammar_is_refused_in_one_line(prompt: str) -> None:
    with pytest.raises(InvalidValue) as caught:
        parse(prompt)
    assert "\n" not in str(caught.value)


def test_the_gpu_size_draws_more_than_the_cpu_size() -> None:
    small, large = vocabulary("cpu"), vocabulary("gpu")
    assert (len(small.objects), len(small.styles), len(small.backgrounds)) == (24, 2, 10)
    assert len(large.objects) >= 60
    assert len(large.styles) == 3
    assert set(small.objects) < set(large.objects)


def test_held_out_compositions_never_occur_in_training() -> None:
    rng = random.Random(1)
    trained = {frozenset([*s.objects, s.background, s.style]) for s in (sample(rng) for _ in range(3000))}
    unseen = [parse(prompt) for prompt in unseen_prompts(200, 0)]
    assert not trained & {frozenset([*f.objects, str(f.background), str(f.style)]) for f in unseen}
    vocab = vocabulary("cpu")
    singles = [Scene((o,), 1, b, s) for o in vocab.objects for b in vocab.backgrounds for s in vocab.styles]
    assert 0.10 < sum(map(held_out, singles)) / len(singles) < 0.15


def test_held_out_ignores_order_and_count() -> None:
    rng = random.Random(2)
    for _ in range(100):
        scene = sample(rng, kind="different", held=None)
        turned = Scene(scene.objects[::-1], 2, scene.background, scene.style)
        assert held_out(scene) == held_out(turned)


def test_held_out_prompts_are_stratified_and_stable() -> None:
    prompts = unseen_prompts(30, 7)
    assert prompts == unseen_prompts(60, 7)[:30]
    facts = [parse(prompt) for prompt in prompts]
    assert sum(len(f.objects) == 2 for f in facts) == 10
    assert sum(f.count == 1 for f in facts) == 10
    assert len(set(unseen_prompts(300, 7))) == 300
    with pytest.raises(InvalidValue, match="n must be at most"):
        unseen_prompts(10**6, 0)


def test_words_that_no_caption_contains_are_unknown() -> None:
    assert unknown_words("A dragon riding two foxes, in noto style, dragon") == ["dragon", "riding"]
    assert not any(unknown_words(prompt) for prompt in unseen_prompts(50))
