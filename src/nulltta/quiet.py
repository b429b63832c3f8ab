"""Keep diffusers, transformers and their like silent while something is loaded."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Suppress the progress bars, log messages and warnings of other libraries within a `with` block.

    Progress bars of downloads and this package's own warnings still appear. Afterwards every setting of the caller's
    process is as it was.
    """
    from diffusers.utils import logging as of_diffusers
    from huggingface_hub.utils.tqdm import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars
    from transformers.utils import logging as of_transformers

    libraries = (of_diffusers, of_transformers)
    levels = [library.get_verbosity() for library in libraries]
    bars = [library.is_progress_bar_enabled() for library in libraries]
    downloads = not are_progress_bars_disabled()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"(?!nulltta)")
            for library in libraries:
                library.set_verbosity_error()
                library.disable_progress_bar()  # transformers turns the bars of downloads off as well
            if downloads:
                enable_progress_bars()
            yield
    finally:
        for library, level, bar in zip(libraries, levels, bars, strict=True):
            library.set_verbosity(level)
            if bar:
                library.enable_progress_bar()
        if not downloads and not are_progress_bars_disabled():
            disable_progress_bars()
