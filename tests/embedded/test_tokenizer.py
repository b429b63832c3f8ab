"""The tokenizer: each word of the grammar is one token."""

from __future__ import annotations

import random
from typing import Any

import pytest

from nulltta.embedded.grammar import caption, sample, words
from nulltta.embedded.tokenizer import MAX_LENGTH, build_tokenizer, byte_alphabet, token_ids


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return build_tokenizer()


def test_each_word_of_the_grammar_is_one_token(tokenizer: Any) -> None:
    for word in words():
        assert len(tokenizer(word).input_ids) == 3, word


def test_other_words_are_split_without_unknown_tokens(tokenizer: Any) -> None:
    ids = tokenizer("zygote Ωmega 7").input_ids[1:-1]
    assert tokenizer.unk_token_id not in ids
    assert tokenizer.decode(ids) == "zygote ωmega 7"
    assert len(set(byte_alphabet())) == 256


def test_every_caption_fits(tokenizer: Any) -> None:
    rng = random.Random(0)
    captions = [caption(sample(rng, "gpu", held=None)) for _ in range(300)]
    assert max(len(tokenizer(text).input_ids) for text in captions) <= MAX_LENGTH
    assert token_ids(tokenizer, captions[:2]).shape == (2, MAX_LENGTH)


def test_a_saved_tokenizer_is_the_same(tokenizer: Any, tmp_path: Any) -> None:
    tokenizer.save_pretrained(tmp_path)
    again = type(tokenizer).from_pretrained(tmp_path)
    text = "two foxes on an orange background, noto style"
    assert again(text).input_ids == tokenizer(text).input_ids
    assert again.model_max_length == MAX_LENGTH
