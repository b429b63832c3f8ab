"""The progress bar of a run."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nulltta import NullTTAConfig, align
from nulltta.alignment import expected_steps
from nulltta.display.progress import progress
from nulltta.testing import Gaussian, nearness


@pytest.mark.parametrize(("method", "total"), [("null-tta", 6), ("shared-null", 12), ("reno", 102)])
def test_the_bar_ends_at_its_total_for_methods_of_several_passes(method: str, total: int) -> None:
    config = NullTTAConfig(num_inference_steps=3, num_particles=1, inner_steps=(1, 1), guidance_scale=3.0)
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120, color_system=None)
    with progress(console, "nearness", 2, expected_steps(method, config)) as on_step:
        for _ in range(2):
            align(Gaussian(), "red", nearness, config=config, method=method, on_step=on_step)
    assert "batch 2/2" in shown.getvalue()
    assert f"{total}/{total} steps" in shown.getvalue()
