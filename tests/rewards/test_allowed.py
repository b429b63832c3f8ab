"""Reward expressions from untrusted sources."""

from __future__ import annotations

import pytest

from nulltta.errors import NullTTAError
from nulltta.rewards.allowed import parse_allowed
from nulltta.rewards.expression import LONGEST, names, parse

ALLOWED = names(parse("clip + jpeg + target-colour + clipscore:org/model + my.module:function"))


@pytest.mark.parametrize(
    "expression",
    ["clip", "0.7*clip + z(jpeg)", "target-colour:#ff8800", "my.module:function", "clip - clipscore:org/model"],
)
def test_allowed_names_are_accepted_in_any_expression(expression: str) -> None:
    assert parse_allowed(expression, ALLOWED) == parse(expression)


@pytest.mark.parametrize(
    ("expression", "says"),
    [
        ("os:system", "not offered"),
        ("clip + 0.1*os.path:join", "not offered"),
        ("z(os:system)", "not offered"),
        ("clip - (jpeg + z(os:system, 0, 1))", "'os:system' is not offered"),
        ("clipscore", "not offered"),  # its own source was allowed, not the default one
        ("clipscore:/etc", "not offered"),
        ('clip:"/etc/passwd"', "not offered"),
        ("my.module:other", "not offered"),
        ("target-colour:/etc/passwd", "not offered"),
        ("target-colour:#ff88001", "not offered"),
        ("target-colour", "#RRGGBB"),
        ("clap", "choose among clip, jpeg, target-colour:#RRGGBB, clipscore:org/model, my.module:function"),
        ("clip +", "malformed"),
        ("", "malformed"),
        ("clip" * LONGEST, "too long"),
        ("(" * 100 + "clip" + ")" * 100, "malformed"),
    ],
)
def test_everything_else_is_refused(expression: str, says: str) -> None:
    with pytest.raises(NullTTAError, match=says):
        parse_allowed(expression, ALLOWED)


def test_colours_are_refused_unless_they_are_allowed() -> None:
    with pytest.raises(NullTTAError, match="not offered"):
        parse_allowed("target-colour:#ff8800", names(parse("clip")))
