"""docs/install.md lists every extra, and the command works without any of them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

from .pages import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LIBRARIES = (
    "av", "brisque", "fastapi", "gradio", "mkdocs", "nbclient", "onnxruntime", "openai", "playwright",
    "prometheus_client", "pyarrow", "ray", "resvg_py", "sentencepiece", "uvicorn",
)  # fmt: skip


def test_the_extras_are_those_of_the_project() -> None:
    page = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.M)) == set(PROJECT["optional-dependencies"])


def test_the_command_works_without_any_extra_and_other_libraries_print_nothing(tmp_path: Path) -> None:
    short = ["--num-inference-steps", "2", "--inner-steps", "1", "1", "--num-particles", "1", "--out", str(tmp_path)]
    code = f"""
import sys
sys.modules.update(dict.fromkeys({LIBRARIES}))  # None: importing one raises ImportError
from nulltta.cli import main
sys.exit(main(["rewards"]) or main(["align", "--quiet", "a rose", "--reward", "clip", *{short}]))
"""
    unwritable = {**os.environ, "HOME": "/dev/null"}  # where libraries have their caches
    done = subprocess.run([sys.executable, "-c", code], env=unwritable, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "comparison.png").exists()
