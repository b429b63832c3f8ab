"""The files of deploy/: what they name exists, they agree with each other, and the server accepts what they give it."""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from nulltta.cli.commands import parser
from nulltta.server.settings import ServerSettings

from .serving import Running
from .wire import get

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
MARGIN = 2
"""Seconds that the worker may need after the grace."""


def _instructions() -> list[tuple[str, str]]:
    """Return the Dockerfile's instructions and their arguments, in their order."""
    text = re.sub(r"^#.*\n", "", (DEPLOY / "Dockerfile").read_text(), flags=re.M).replace("\\\n", " ")
    return [(line.partition(" ")[0], line.partition(" ")[2].strip()) for line in text.splitlines() if line.strip()]


DOCKER = _instructions()
ENVIRONMENT = dict(pair.split("=") for name, words in DOCKER if name == "ENV" for pair in words.split())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
KUBERNETES = {each["kind"]: each for each in yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text())}
POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
[CONTAINER] = POD["containers"]
UNIT = (DEPLOY / "nulltta.service").read_text()
NGINX = (DEPLOY / "nginx.conf").read_text()
ARGUMENTS = {
    "kubernetes": CONTAINER["args"], "compose": COMPOSE["services"]["nulltta"]["command"],
    "systemd": shlex.split(re.findall(r"^ExecStart=\S+ serve (.*)$", UNIT, re.M)[0]),
}  # fmt: skip


def parsed(words: list[str]) -> typer.Context:
    command: Any = parser()
    return command.commands["serve"].make_context("serve", words, auto_envvar_prefix="NULLTTA_SERVE")  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ARGUMENTS)
def test_the_server_accepts_the_flags_of_the_deployment(name: str) -> None:
    settings = str(DEPLOY / "server.toml")
    context = parsed([settings if word.endswith("/server.toml") else word for word in ARGUMENTS[name]])
    assert context.params["api_key_file"]
    assert context.params["default"]


def test_the_image_has_the_files_of_the_package_and_settings_that_the_server_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    copied = [word for name, words in DOCKER if name == "COPY" for word in words.split()[:-1]]
    assert all((ROOT / name).exists() for name in copied)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {"pyproject.toml", project["readme"], "LICENSE", "src"} <= set(copied)
    [extras] = re.findall(r"'\.\[([^\]]*)\]'", str(DOCKER))
    assert set(extras.split(",")) <= set(project["optional-dependencies"])
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    params = parsed([]).params
    assert (params["host"], str(params["port"])) == ("0.0.0.0", dict(DOCKER)["EXPOSE"])
    assert json.loads(dict(DOCKER)["VOLUME"]) == [ENVIRONMENT["HF_HOME"], str(params["image_folder"])]


def test_the_images_own_health_check_passes_on_a_server(shared: Running) -> None:
    [check] = [words for name, words in DOCKER if name == "HEALTHCHECK"]
    _, *words = json.loads(check.partition("CMD")[2])
    words = [word.replace(f":{ENVIRONMENT['NULLTTA_SERVE_PORT']}/", f":{shared.port}/") for word in words]
    assert subprocess.run([sys.executable, *words], timeout=60).returncode == 0


def test_the_platforms_wait_for_the_server_to_stop() -> None:
    waits = (
        COMPOSE["services"]["nulltta"]["stop_grace_period"].removesuffix("s"), POD["terminationGracePeriodSeconds"],
        re.findall(r"TimeoutStopSec=(\d+)", UNIT)[0],
    )  # fmt: skip
    assert all(int(seconds) > ServerSettings.grace + MARGIN for seconds in waits)


def test_kubernetes_mounts_what_the_image_needs_and_asks_paths_that_exist(shared: Running) -> None:
    mounts = {each["mountPath"]: each["name"] for each in CONTAINER["volumeMounts"]}
    assert {ENVIRONMENT["HF_HOME"], ENVIRONMENT["NULLTTA_SERVE_IMAGE_FOLDER"]} <= set(mounts)
    volumes = {each.pop("name"): each for each in POD["volumes"]}
    assert set(mounts.values()) == set(volumes)
    claim = volumes["weights"]["persistentVolumeClaim"]["claimName"]
    assert claim == KUBERNETES["PersistentVolumeClaim"]["metadata"]["name"]
    assert f"--uid {POD['securityContext']['runAsUser']} " in str(DOCKER)
    labels = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["labels"]
    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    [port] = CONTAINER["ports"]
    assert str(port["containerPort"]) == ENVIRONMENT["NULLTTA_SERVE_PORT"]
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = CONTAINER[probe]["httpGet"]
        assert asked["port"] == port["containerPort"]
        assert get(shared, asked["path"], authorization=None)[0] == 200


def test_nginx_passes_on_what_the_server_takes() -> None:
    services, volumes = COMPOSE["services"], COMPOSE["volumes"]
    [upstream] = re.findall(r"proxy_pass http://(\w+):(\d+);", NGINX)
    assert upstream == (next(iter(services)), ENVIRONMENT["NULLTTA_SERVE_PORT"])
    [listens] = re.findall(r"listen (\d+);", NGINX)
    assert services["nginx"]["ports"][0].endswith(f":{listens}")
    assert int(re.findall(r"client_max_body_size (\d+)m;", NGINX)[0]) << 20 == ServerSettings.max_upload
    assert int(re.findall(r"proxy_read_timeout (\d+)s;", NGINX)[0]) > ServerSettings.timeout
    for volume in services["nulltta"]["volumes"]:
        source = volume.split(":")[0]
        assert source in volumes or (DEPLOY / source).exists()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = tmp_path / "nulltta.service"
    unit.write_text(re.sub(r"ExecStart=\S+", f"ExecStart={shutil.which('true')}", UNIT))
    said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60)
    assert (said.returncode, str(unit) in said.stderr) == (0, False)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="needs nginx")
def test_nginx_accepts_its_configuration(tmp_path: Path) -> None:
    server = re.sub(r"http://\w+:", "http://127.0.0.1:", NGINX)  # the container's name is not known here
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid; events {{}} http {{ {server} }}")
    command = ["nginx", "-t", "-q", "-e", str(tmp_path / "errors"), "-c", str(tmp_path / "nginx.conf")]
    said = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, said.stderr
