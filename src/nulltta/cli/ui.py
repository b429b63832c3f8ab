"""`nulltta ui`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from nulltta.cli.flags import Device, Dtype, Offload
from nulltta.cli.messages import quiet
from nulltta.errors import InvalidValue, MissingExtra
from nulltta.runs.network import is_loopback

PASSWORD = "NULLTTA_UI_PASSWORD"


def ui(
    model: Annotated[
        list[str] | None,
        typer.Option(help="'embedded', a diffusers directory or a hub id; may be repeated, to offer several."),
    ] = None,
    reward: Annotated[
        str, typer.Option(help="The reward that the page starts with; only its sources may be used there.")
    ] = "clip",
    host: Annotated[
        str, typer.Option(help=f"The address to listen on; one that other machines reach needs {PASSWORD}.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 7860,
    device: Device = None,
    dtype: Dtype = None,
    offload: Offload = "none",
) -> None:
    """Open a web page to align pictures in and to watch them being sampled."""
    password = os.environ.get(PASSWORD)
    if not is_loopback(host) and not password:
        raise InvalidValue(
            f"{host!r} can be reached from other machines: set {PASSWORD}; the user is 'nulltta'", "host"
        )
    if find_spec("gradio") is None:
        raise MissingExtra("nulltta ui", "gradio", "ui")
    with quiet():
        from nulltta.ui.app import serve
        from nulltta.ui.engine import PageEngine

        engine = PageEngine(model or ["embedded"], reward, device, dtype, offload)
        serve(engine, host=host, port=port, password=password)
