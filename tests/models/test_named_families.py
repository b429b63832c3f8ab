"""Pipelines are observed: where a family is named all the same, docs/add-a-family.md says what for."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import nulltta.models

NAMED = {
    "distilled.py": {"SanaSprintPipeline", "SanaSprintImg2ImgPipeline", "FluxPipeline", "QwenImagePipeline"},
    "sources.py": {"KolorsPipeline"},
}


def test_no_other_family_is_named_in_the_code_of_the_models() -> None:
    found: dict[str, set[str]] = {}
    for file in Path(nulltta.models.__file__).parent.glob("*.py"):
        texts = (node.value for node in ast.walk(ast.parse(file.read_text())) if isinstance(node, ast.Constant))
        names = {text for text in texts if isinstance(text, str) and re.fullmatch(r"[A-Z]\w*Pipeline", text)}
        if names:
            found[file.name] = names
    assert found == NAMED
