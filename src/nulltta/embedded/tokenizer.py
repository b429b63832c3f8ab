"""A CLIP tokenizer in which each word of the grammar is one token; other words are split into byte pairs and bytes."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from .grammar import words

BOS, EOS = "<|startoftext|>", "<|endoftext|>"
MAX_LENGTH = 24


def byte_alphabet() -> list[str]:
    """Return the 256 printable characters that stand for bytes in byte-level BPE, in byte order (as in GPT-2)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    code = {byte: byte for byte in printable} | {byte: 256 + k for k, byte in enumerate(others)}
    return [chr(code[byte]) for byte in range(256)]


def learn_merges(vocabulary: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return the pairs to merge, most frequent first (ties by spelling), until each word is one piece."""
    spelt = [[*word[:-1], f"{word[-1]}</w>"] for word in vocabulary]
    merges: list[tuple[str, str]] = []
    while True:
        pairs = Counter(pair for word in spelt for pair in pairwise(word))
        if not pairs:
            return merges
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        spelt = [_merge(word, best) for word in spelt]


def _merge(word: list[str], pair: tuple[str, str]) -> list[str]:
    """Join every occurrence of `pair` in a word that is split into pieces."""
    out: list[str] = []
    for piece in word:
        if out and (out[-1], piece) == pair:
            out[-1] += piece
        else:
            out.append(piece)
    return out


def build_tokenizer(vocabulary: tuple[str, ...] | None = None, length: int = MAX_LENGTH) -> Any:
    """Return the `transformers.CLIPTokenizer` of a vocabulary, by default the emoji's; it pads to `length` with EOS."""
    from transformers import CLIPTokenizer

    merges = learn_merges(words() if vocabulary is None else vocabulary)
    letters = byte_alphabet()
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *("".join(pair) for pair in merges), BOS, EOS]
    vocab = {piece: k for k, piece in enumerate(dict.fromkeys(pieces))}
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=length)


def token_ids(tokenizer: Any, prompts: list[str]) -> Any:
    """Return the token ids (B, length) of prompts; longer prompts are cut to the tokenizer's length."""
    return tokenizer(prompts, padding="max_length", truncation=True, return_tensors="pt").input_ids
