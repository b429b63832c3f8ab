"""The page about families names the classes that the tests accept."""

from __future__ import annotations

from pathlib import Path

from ..tiny_pipelines import ACCEPTED, FAMILY_PIPELINES

PAGE = Path(__file__).parents[2] / "docs" / "families.md"


def test_every_accepted_class_is_on_the_page() -> None:
    text = PAGE.read_text()
    assert [case.name for case in (*FAMILY_PIPELINES, *ACCEPTED) if f"`{case.name}`" not in text] == []
    assert len({case.name for case in (*FAMILY_PIPELINES, *ACCEPTED)}) >= 35
