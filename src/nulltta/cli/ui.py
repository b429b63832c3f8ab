"""`nulltta ui`."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import Annotated

import typer

from nulltta.cli.flags import DEVICE, DTYPE, Dtype
from nulltta.cli.messages import quiet
from nulltta.errors import InvalidValue
from nulltta.runs.network import is_loopback

PASSWORD = "NULLTTA_UI_PASSWORD"


def ui(
    model: Annotated[
        list[str] | None,
        typer.Option(help="'embedded', a diffusers directory, or a hub id; repeat it to offer several."),
    ] = None,
    reward: Annotated[str, typer.Option(help="What the page starts with; its sources may be used there.")] = "clip",
    host: Annotated[str, typer.Option(help=f"To listen on; beyond this machine only with {PASSWORD}.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="To listen on.", min=1, max=65535)] = 7860,
    device: Annotated[str | None, DEVICE] = None,
    dtype: Annotated[Dtype | None, DTYPE] = None,
) -> None:
    """Open a web page to align pictures in, and watch."""
    password = os.environ.get(PASSWORD)
    if not is_loopback(host) and not password:
        raise InvalidValue(f"{host} can be reached from other machines: set {PASSWORD}, whose user is 'nulltta'")
    if find_spec("gradio") is None:
        raise InvalidValue("nulltta ui needs gradio: pip install 'nulltta[ui]'")
    with quiet():
        from nulltta.ui.app import serve
        from nulltta.ui.engine import PageEngine

        serve(PageEngine(model or ["embedded"], reward, device, dtype), host=host, port=port, password=password)
