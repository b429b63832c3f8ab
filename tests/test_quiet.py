"""Loading prints nothing and restores the caller's settings."""

from __future__ import annotations

import subprocess
import sys
import warnings

import diffusers.utils.logging as of_diffusers
import pytest
import transformers.utils.logging as of_transformers
from huggingface_hub.utils.tqdm import are_progress_bars_disabled

from nulltta.quiet import quiet_libraries


def test_loading_the_embedded_model_prints_nothing() -> None:
    script = (
        "import nulltta; from transformers.utils import logging; before = logging.get_verbosity();"
        "nulltta.load_model('embedded'); assert logging.get_verbosity() == before"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("shown", [True, False])
def test_every_setting_is_restored(shown: bool) -> None:
    libraries = (of_diffusers, of_transformers)

    def settings() -> list[object]:
        found = [(library.get_verbosity(), library.is_progress_bar_enabled()) for library in libraries]
        return [*found, are_progress_bars_disabled(), list(warnings.filters)]

    original = settings()
    try:
        for library in libraries:
            library.set_verbosity_info()
            library.enable_progress_bar() if shown else library.disable_progress_bar()
        before = settings()
        with quiet_libraries():
            assert settings() != before
            assert not any(library.is_progress_bar_enabled() for library in libraries)
            assert are_progress_bars_disabled() != shown  # progress bars of downloads are still shown
        assert settings() == before
    finally:
        for library, (level, bar) in zip(libraries, original, strict=False):  # type: ignore[misc]
            library.set_verbosity(level)
            library.enable_progress_bar() if bar else library.disable_progress_bar()


def test_warnings_of_this_package_still_appear() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with quiet_libraries():
            warnings.warn_explicit("theirs", UserWarning, "file", 1, module="transformers.models")
            warnings.warn_explicit("ours", UserWarning, "file", 1, module="nulltta.models")
    assert [str(warning.message) for warning in caught] == ["ours"]
