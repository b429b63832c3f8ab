"""The files of deploy/: the server accepts what they give it."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nulltta.cli.commands import app

DEPLOY = Path(__file__).parents[2] / "deploy"


def arguments() -> dict[str, list[str]]:
    """Return the words after `nulltta serve` in each file."""
    [container] = [
        document["spec"]["template"]["spec"]["containers"][0]
        for document in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())
        if document["kind"] == "Deployment"
    ]
    compose = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    [unit] = re.findall(r"^ExecStart=\S+ serve (.*)$", (DEPLOY / "nulltta.service").read_text(), re.M)
    return {
        "kubernetes": container["args"], "compose": compose["services"]["nulltta"]["command"],
        "systemd": shlex.split(unit),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["kubernetes", "compose", "systemd"])
def test_the_server_accepts_the_flags_of_the_deployment(name: str) -> None:
    settings = str(DEPLOY / "server.toml")
    words = [settings if word.endswith("/server.toml") else word for word in arguments()[name]]
    command: Any = typer.main.get_command(app)
    serve = command.commands["serve"]
    context = serve.make_context("serve", words, auto_envvar_prefix="NULLTTA_SERVE")
    assert context.params["api_key_file"]
    assert context.params["default"]
