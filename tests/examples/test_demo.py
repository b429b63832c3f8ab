"""The demo's prompts are held-out compositions that the embedded model can draw."""

from __future__ import annotations

import runpy
from pathlib import Path

import pytest

from nulltta.embedded.grammar import Scene, held_out, parse

DEMO = runpy.run_path(str(Path(__file__).parents[2] / "examples" / "demo.py"), run_name="demo")


def test_there_are_eight_different_prompts() -> None:
    assert len(set(DEMO["EIGHT"])) == 8


@pytest.mark.parametrize("prompt", [DEMO["ONE"], *DEMO["EIGHT"]])
def test_compositions_are_held_out(prompt: str) -> None:
    facts = parse(prompt)
    assert facts.background is not None
    assert facts.style is not None
    assert held_out(Scene(facts.objects, facts.count, facts.background, facts.style))
