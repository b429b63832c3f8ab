"""Where a source is: a file or folder of this machine, a model that ships, or the hub."""

from __future__ import annotations

from pathlib import Path

import pytest

from nulltta.files import absolute


def test_a_file_is_found_from_elsewhere_and_other_sources_are_left_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("null.safetensors").touch()
    Path("embedded").mkdir()  # does not replace the model of that name
    assert absolute("null.safetensors") == str(tmp_path / "null.safetensors")
    assert [absolute(source) for source in ("user/repo", "embedded", "")] == ["user/repo", "embedded", ""]
