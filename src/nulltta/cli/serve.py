"""`nulltta serve`."""

from __future__ import annotations

import os
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from nulltta.cli.flags import COMPILE, DEVICE, DTYPE, MODEL, TINY_DECODER, Dtype
from nulltta.cli.messages import quiet
from nulltta.errors import InvalidValue
from nulltta.runs.request import ModelSettings
from nulltta.server.auth import VARIABLE, read_keys
from nulltta.server.settings import ServerSettings as Settings

if TYPE_CHECKING:
    from nulltta.contracts import GuidedModel

LIMITS, RAY = "Limits", "Several GPUs or machines"
EXTRA = ("fastapi", "prometheus_client", "uvicorn")


def serve(
    model: Annotated[str, MODEL] = "embedded",
    name: Annotated[
        str | None, typer.Option(help="What clients call the model (default: its own; of a directory, the last part).")
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="Offer this reward, the first as the default; repeatable (default: those without a download)."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="Offer this method, the first as the default; repeatable (default: null-tta, plain)."),
    ] = None,
    host: Annotated[str, typer.Option(help="To listen on; beyond this machine only with an API key.")] = Settings.host,
    port: Annotated[int, typer.Option(help="0 for any that is free.")] = Settings.port,
    api_key_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help=f"API keys, one a line; without it, {VARIABLE} is the key.")
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where clients reach the server, for pictures by URL.")
    ] = None,
    log_prompts: Annotated[bool, typer.Option(help="Let the log quote prompts.")] = False,
    device: Annotated[str | None, DEVICE] = None,
    dtype: Annotated[Dtype | None, DTYPE] = None,
    tiny_decoder: Annotated[str | None, TINY_DECODER] = None,
    compiled: Annotated[bool, COMPILE] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Here, or on Ray Serve.", rich_help_panel=RAY)
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", help="Of a running cluster (default: a fresh one here).", rich_help_panel=RAY
        ),
    ] = None,
    replicas: Annotated[
        tuple[int, int] | None,
        typer.Option(metavar="MIN MAX", help="Scaled by load (default: one a GPU, or a machine).", rich_help_panel=RAY),
    ] = None,
    max_images: Annotated[int, typer.Option(help="n at most.", rich_help_panel=LIMITS)] = Settings.max_images,
    batch_size: Annotated[int, typer.Option(help="Images at a time.", rich_help_panel=LIMITS)] = Settings.batch_size,
    queue_size: Annotated[
        int, typer.Option(help="Requests that wait at most.", rich_help_panel=LIMITS)
    ] = Settings.queue_size,
    max_prompt: Annotated[int, typer.Option(help="Characters.", rich_help_panel=LIMITS)] = Settings.max_prompt,
    max_body: Annotated[int, typer.Option(help="Bytes of a request.", rich_help_panel=LIMITS)] = Settings.max_body,
    max_steps: Annotated[
        int, typer.Option(help="Denoising steps, num_inference_steps.", rich_help_panel=LIMITS)
    ] = Settings.max_steps,
    max_inner_steps: Annotated[
        int, typer.Option(help="Inner steps of a denoising step.", rich_help_panel=LIMITS)
    ] = Settings.max_inner_steps,
    max_candidates: Annotated[
        int, typer.Option(help="num_particles and zeroth_order_samples.", rich_help_panel=LIMITS)
    ] = Settings.max_candidates,
    timeout: Annotated[
        float, typer.Option(help="Seconds of a request, waiting included.", rich_help_panel=LIMITS)
    ] = Settings.timeout,
    grace: Annotated[
        float, typer.Option(help="Seconds to finish in when told to stop.", rich_help_panel=LIMITS)
    ] = Settings.grace,
    url_lifetime: Annotated[
        float, typer.Option(help="Seconds that a picture's URL lives.", rich_help_panel=LIMITS)
    ] = Settings.url_lifetime,
) -> None:
    """Serve images over HTTP, in the shape of OpenAI's images API."""
    settings = Settings(
        rewards=tuple(reward or ()), methods=tuple(method or Settings.methods), host=host, port=port,
        keys=read_keys(api_key_file, os.environ), name=name or (Path(model).name if Path(model).is_dir() else model),
        public_url=public_url, log_prompts=log_prompts, max_images=max_images, batch_size=batch_size,
        queue_size=queue_size, max_prompt=max_prompt, max_body=max_body, max_steps=max_steps,
        max_inner_steps=max_inner_steps, max_candidates=max_candidates, timeout=timeout, grace=grace,
        url_lifetime=url_lifetime,
    )  # fmt: skip
    if missing := [library for library in EXTRA if find_spec(library) is None]:
        raise InvalidValue(f"nulltta serve needs {missing[0]}: pip install 'nulltta[server]'")
    if engine == "local" and (ray_address is not None or replicas is not None):
        raise InvalidValue("--ray-address and --replicas go with --engine ray")
    if Path(model).is_dir():
        model = str(Path(model).absolute())  # it is loaded elsewhere
    load = partial(
        _load, ModelSettings(model=model, device=device, dtype=dtype, tiny_decoder=tiny_decoder, compile=compiled)
    )
    with quiet():
        if engine == "ray":
            from nulltta.server.ray_deployment import RayDeployment

            RayDeployment(ray_address, replicas, device)(settings, load)
        else:
            from nulltta.server.run import serve as run

            run(settings, load)


def _load(settings: ModelSettings) -> GuidedModel:
    """Load the model in the process that serves it."""
    from nulltta.runs.loading import load_model

    return load_model(settings)
