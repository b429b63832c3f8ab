"""`nulltta ui`."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from nulltta.cli.flags import Device, Dtype, Offload
from nulltta.cli.messages import quiet
from nulltta.errors import InvalidValue, MissingExtra
from nulltta.runs.network import bind, is_loopback
from nulltta.runs.request import default_reward

PASSWORD = "NULLTTA_UI_PASSWORD"


def ui(
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="'embedded', 'scenes', a diffusers directory or a hub id; may be repeated, to offer several."
        ),
    ] = None,
    reward: Annotated[
        str | None,
        typer.Option(
            help="The reward that the page starts with; only its sources may be used there. "
            "For an embedded model it is its own score, such as clip, if none is given."
        ),
    ] = None,
    host: Annotated[
        str, typer.Option(help=f"The address to listen on; one that other machines reach needs {PASSWORD}.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 7860,
    allow_host: Annotated[
        list[str] | None,
        typer.Option(help="A further name under which the page is reached, as behind a proxy; may be repeated."),
    ] = None,
    frame_ancestors: Annotated[
        str, typer.Option(help="Which pages may embed this one: \"'self'\", or addresses separated by spaces.")
    ] = "'none'",
    browser: Annotated[bool, typer.Option("--browser", help="Open the page in a browser.")] = False,
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
    if any(character in frame_ancestors for character in ";,\r\n"):
        raise InvalidValue("must be addresses separated by spaces", "frame_ancestors")
    models = model or ["embedded"]
    reward = default_reward(models[0]) if reward is None else reward
    bind(host, port).close()  # a taken port is reported before the model loads
    with quiet(lambda: "the page was not open yet"):
        print(f"loading {', '.join(models[:1])}", file=sys.stderr, flush=True)
        from nulltta.ui.app import PageAccess, serve
        from nulltta.ui.engine import PageEngine

        access = PageAccess(
            host=host, port=port, password=password, allowed_hosts=allow_host or (), frame_ancestors=frame_ancestors,
            open_browser=browser,
        )  # fmt: skip
        serve(PageEngine(models, reward, device, dtype, offload), access)
