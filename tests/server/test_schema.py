"""The description at /openapi.json and the server agree: Schemathesis sends what it allows and what it forbids."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import nulltta

from .serving import KEY, running

schemathesis = pytest.importorskip("schemathesis", reason="needs Schemathesis: pip install schemathesis")
hypothesis = pytest.importorskip("hypothesis", reason="needs Schemathesis: pip install schemathesis")

EXAMPLES = 6
"""Requests of each kind per operation."""
SMALL = {
    "max_steps": 2, "max_inner_steps": 1, "max_candidates": 4, "max_images": 2, "max_pixels": 512,
    "methods": ("plain", "null-tta"), "defaults": {"num_inference_steps": 2, "inner_steps": [1, 1]},
}  # fmt: skip
HEADERS = {"Authorization": f"Bearer {KEY}"}
PUBLIC = ("GET /healthz", "GET /readyz", "GET /images/{name}.{kind}")
"""Operations that no request can get wrong: they need no key, and any text may be the name of an image."""
OPERATIONS = (
    *PUBLIC, "POST /v1/images/generations", "POST /v1/images/edits", "POST /v1/images/jobs",
    "GET /v1/images/jobs/{name}", "DELETE /v1/images/jobs/{name}", "GET /v1/models", "GET /v1/models/{name}",
    "GET /v1/rewards", "GET /metrics",
)  # fmt: skip
pytestmark = pytest.mark.filterwarnings("default")  # Schemathesis' and Hypothesis' own


@pytest.fixture(scope="module")
def operations(tiny: nulltta.GuidedModel) -> Iterator[dict[str, Any]]:
    """Return the operations of a server that samples in no time, by method and path."""
    with running(tiny, keys=(KEY,), **SMALL) as at:
        schema = schemathesis.openapi.from_url(f"{at.url}/openapi.json", headers=HEADERS)
        yield {found.ok().label: found.ok() for found in schema.get_all_operations()}


def test_all_operations_are_tested(operations: dict[str, Any]) -> None:
    assert set(operations) == set(OPERATIONS)


@pytest.mark.parametrize(
    ("label", "mode"),
    [
        (label, mode)
        for label in OPERATIONS
        for mode in ("positive", "negative")
        if mode == "positive" or label not in PUBLIC
    ],
)
def test_answers_are_as_described(operations: dict[str, Any], label: str, mode: str) -> None:
    """Whatever is sent, the status, the type and the contents of the answer are among those that are described."""
    from schemathesis.specs.openapi.checks import positive_data_acceptance

    @hypothesis.settings(
        max_examples=EXAMPLES, deadline=None, database=None, derandomize=True, phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )  # fmt: skip
    @hypothesis.given(case=operations[label].as_strategy(generation_mode=schemathesis.GenerationMode(mode)))
    def ask(case: Any) -> None:
        # No schema says which prompts, rewards and combinations of settings are valid, so these may be refused.
        case.call_and_validate(headers=HEADERS, excluded_checks=[positive_data_acceptance])

    ask()
