"""The grammar of reward expressions."""

from __future__ import annotations

import pytest

from nulltta import NullTTAError
from nulltta.rewards.expression import DEEPEST, Name, Node, Standard, Sum, parse, with_source, written

CLIP, CLIP_B, BRIGHT = Name("clip"), Name("clip-b"), Name("brightness")


@pytest.mark.parametrize(
    ("text", "node"),
    [
        ("clip", CLIP),
        ("clip-b", CLIP_B),
        ("(clip)", CLIP),
        ("0.7*clip + 0.3*colourfulness", Sum(((0.7, CLIP), (0.3, Name("colourfulness"))))),
        ("clip-0.5*brightness", Sum(((1.0, CLIP), (-0.5, BRIGHT)))),
        ("-brightness", Sum(((-1.0, BRIGHT),))),
        ("  2*clip  -  clip-b ", Sum(((2.0, CLIP), (-1.0, CLIP_B)))),
        ("1e-2*clip+.5*hpsv2.1", Sum(((0.01, CLIP), (0.5, Name("hpsv2.1"))))),
        ("2*(clip - brightness)", Sum(((2.0, Sum(((1.0, CLIP), (-1.0, BRIGHT)))),))),
        ("((clip) - (-brightness))", Sum(((1.0, CLIP), (-1.0, Sum(((-1.0, BRIGHT),)))))),
        ("z(clip)", Standard(CLIP)),
        ("z(clip, -0.21, 1e-2)", Standard(CLIP, -0.21, 0.01)),
        ("z(clip) + 2*z(clip + brightness, 1, 2)",
         Sum(((1.0, Standard(CLIP)), (2.0, Standard(Sum(((1.0, CLIP), (1.0, BRIGHT))), 1.0, 2.0))))),
        ("z", Name("z")),
        ("aesthetic-v2.5-.5*clip", Sum(((1.0, Name("aesthetic-v2.5")), (-0.5, CLIP)))),
        ("target-colour:#FF8800", Name("target-colour", "#FF8800")),
        ("clipscore:openai/clip-vit-b + clip", Sum(((1.0, Name("clipscore", "openai/clip-vit-b")), (1.0, CLIP)))),
        ('aesthetic:"my models/sac+logos.pth"', Name("aesthetic", "my models/sac+logos.pth")),
        ("my_rewards.colour:redness", Name("my_rewards.colour", "redness")),
    ],
)  # fmt: skip
def test_expressions_are_parsed(text: str, node: Node) -> None:
    assert parse(text) == node
    assert parse(written(node)) == node  # and as written, they read back


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("", "its end"),
        ("0.5*", "its end"),
        ("clip +", "its end"),
        ("0.5 clip", "'clip'"),
        ("clip clip", "'clip'"),
        ("clip * 2", r"'\* 2'"),
        ("__import__('os')", r"'__import__\('os'\)'"),
        ("clip; rm", "'; rm'"),
        ("+ clip", r"'\+ clip'"),
        ("(clip", "its end"),
        ("clip)", r"'\)'"),
        ("2*(clip + )", r"'\)'"),
        ("z(clip, 1)", r"'\)'"),
        ("z(clip, 1, 0)", r"'0\)'"),
        ("z(clip, 1, -2)", r"'-2\)'"),
        ("z()", r"'\)'"),
        ("q(clip)", r"'\(clip\)'"),
        ('clipscore:"open', "':\"open'"),
        ("(" * (DEEPEST + 1) + "clip", "'clip'"),
    ],
)
def test_malformed_expressions_point_at_the_place(text: str, place: str) -> None:
    with pytest.raises(NullTTAError, match=f"malformed at {place}"):
        parse(text)


@pytest.mark.parametrize("source", ["org/model", "../my models/clip (2).pt", "#00ff80", "a,b"])
def test_a_source_is_written_so_that_it_reads_back(source: str) -> None:
    assert parse(with_source("clipscore", source)) == Name("clipscore", source)
    assert with_source("clipscore + clip", None) == "clipscore + clip"


@pytest.mark.parametrize(
    ("text", "source", "says"),
    [
        ("clip + clipscore", "org/model", "is for a reward given by name, not for 'clip [+] clipscore'"),
        ("clipscore:org/one", "org/two", "not for 'clipscore:org/one'"),
        ("clipscore", 'a"b', "is not a source"),
        ("clipscore", "", "is not a source"),
    ],
)
def test_a_source_for_a_reward_without_one_is_refused(text: str, source: str, says: str) -> None:
    with pytest.raises(NullTTAError, match=says):
        with_source(text, source)
