"""`nulltta serve`."""

from __future__ import annotations

import json
import os
import tomllib
from collections.abc import Sequence
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from nulltta.cli.flags import Compile, Device, Dtype, Model, Offload, Start, TinyDecoder, call_flags
from nulltta.cli.messages import quiet
from nulltta.errors import InvalidValue, MissingExtra, blaming, first_line
from nulltta.files import absolute
from nulltta.runs.request import ModelSettings, default_reward
from nulltta.server.auth import VARIABLE, read_keys
from nulltta.server.settings import ServerSettings
from nulltta.server.tracing import ENDPOINTS, wanted

if TYPE_CHECKING:
    from nulltta.contracts import GuidedModel

CLIENTS, LIMITS, RAY = "Clients", "Limits", "Several GPUs or machines"
LIBRARIES = ("fastapi", "python_multipart", "prometheus_client", "uvicorn")
ENVIRONMENT = "NULLTTA_SERVE"
"""What the environment variables begin with that give a value to a flag, as in NULLTTA_SERVE_MAX_STEPS."""


def _limit(text: str) -> Any:
    return typer.Option(help=text, rich_help_panel=LIMITS)


def _client(text: str, **options: Any) -> Any:
    return typer.Option(help=text, rich_help_panel=CLIENTS, **options)


def _read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Take the flags' defaults from a TOML file whose keys are their names, as in max_steps = 50."""
    if file is None:
        return None
    try:
        found = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidValue(f"cannot read '{file}': {first_line(error)}") from error
    names = {word.lstrip("-").replace("-", "_"): each.name for each in context.command.params for word in each.opts}
    for key, value in found.items():
        if (name := names.get(key.replace("-", "_"))) in (None, "config", "help"):
            near = get_close_matches(key, names, n=1)
            raise InvalidValue(
                f"'{file}' has an unknown setting '{key}'{f': did you mean {near[0]!r}?' if near else ''}"
            )
        if isinstance(value, dict):
            value = [f"{field}={json.dumps(each)}" for field, each in value.items()]
        context.default_map = {**(context.default_map or {}), str(name): value}
    return file


@call_flags
def serve(
    model: Model = "embedded",
    *,
    config: Annotated[  # noqa: ARG001 - it has given the other flags their values
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A TOML file of values for these flags, as in max_steps = 50; {ENVIRONMENT}_MAX_STEPS=50 in the "
            "environment overrides it, and a flag overrides both.",
            callback=_read_config,
            is_eager=True,
        ),
    ] = None,
    of_call: dict[str, Any],
    name: Annotated[
        str | None,
        typer.Option(help="What clients call the model (default: as --model, of a directory the last part)."),
    ] = None,
    reward: Annotated[
        list[str] | None,
        typer.Option(
            help="A reward to offer, the first as the default; may be repeated (default: with an embedded model, all "
            "without a download that know its pictures)."
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            help="A method to offer, the first as the default; may be repeated (default: null-tta, plain; with a null "
            "text to start from plain, null-tta)."
        ),
    ] = None,
    start: Start = None,
    host: Annotated[
        str, typer.Option(help="The address to listen on; one that other machines reach needs an API key.")
    ] = ServerSettings.host,
    port: Annotated[int, typer.Option(help="The port to listen on; 0 for any free one.")] = ServerSettings.port,
    api_key_file: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help=f"A file with one API key per line, or NAME KEY (default: the key in {VARIABLE}); it is read again "
            "when it changes.",
        ),
    ] = None,
    public_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Where clients reach the server, for pictures by URL.")
    ] = None,
    image_folder: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Where pictures by URL are kept over restarts (default: a temporary one)."),
    ] = None,
    default: Annotated[
        list[str] | None,
        _client(
            "The value of a setting of the method for requests without it, as in num_inference_steps=30; may be "
            "repeated (default: the model's preset).",
            metavar="FIELD=VALUE",
        ),
    ] = None,
    model_alias: Annotated[
        list[str] | None, _client("Another name of the model, such as dall-e-3; may be repeated.", metavar="NAME")
    ] = None,
    strict: Annotated[
        bool, _client("Refuse values of OpenAI's parameters that have no effect here.")
    ] = ServerSettings.strict,
    cors_origin: Annotated[
        list[str] | None, _client("An origin whose pages may use the server, or '*'; may be repeated.", metavar="URL")
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        _client("A host name to answer to without a key, beside loopback; may be repeated.", metavar="NAME"),
    ] = None,
    log_prompts: Annotated[bool, typer.Option(help="Allow prompts in the log.")] = False,
    otlp_endpoint: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            help="Where to send OpenTelemetry's traces, such as http://localhost:4318 (default: where "
            f"{ENDPOINTS[0]} says, if anywhere).",
        ),
    ] = None,
    device: Device = None,
    dtype: Dtype = None,
    tiny_decoder: TinyDecoder = None,
    compiled: Compile = False,
    offload: Offload = "none",
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Serve from this process, or with Ray Serve.", rich_help_panel=RAY)
    ] = "local",
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            help="The address of a running cluster (default: a new one on this machine).",
            rich_help_panel=RAY,
        ),
    ] = None,
    replicas: Annotated[
        tuple[int, int] | None,
        typer.Option(
            metavar="MIN MAX",
            help="How many replicas, depending on the load (default: one per GPU, else one per machine).",
            rich_help_panel=RAY,
        ),
    ] = None,
    max_images: Annotated[int, _limit("The most images per request.")] = ServerSettings.max_images,
    batch_size: Annotated[int, _limit("Images sampled at a time.")] = ServerSettings.batch_size,
    queue_size: Annotated[int, _limit("The most requests that wait.")] = ServerSettings.queue_size,
    max_prompt: Annotated[int, _limit("The most characters per prompt.")] = ServerSettings.max_prompt,
    max_body: Annotated[int, _limit("The most bytes per request.")] = ServerSettings.max_body,
    max_upload: Annotated[int, _limit("The same for requests with a picture to start from.")] = (
        ServerSettings.max_upload
    ),
    max_pixels: Annotated[
        int | None, _limit("The most pixels per picture or video (default: twice the model's own).")
    ] = ServerSettings.max_pixels,
    max_steps: Annotated[int, _limit("The largest num_inference_steps.")] = ServerSettings.max_steps,
    max_inner_steps: Annotated[int, _limit("The largest inner_steps.")] = ServerSettings.max_inner_steps,
    max_candidates: Annotated[
        int, _limit("The largest num_particles and zeroth_order_samples.")
    ] = ServerSettings.max_candidates,
    timeout: Annotated[float, _limit("The most seconds per request, waiting included.")] = ServerSettings.timeout,
    stall: Annotated[
        float, _limit("The most seconds without progress before the probes say so.")
    ] = ServerSettings.stall,
    grace: Annotated[float, _limit("Seconds to finish requests in when told to stop.")] = ServerSettings.grace,
    url_lifetime: Annotated[
        float, _limit("Seconds that a picture can be fetched by URL.")
    ] = ServerSettings.url_lifetime,
) -> None:
    """Serve images over HTTP, with the interface of OpenAI's images API."""
    with blaming("api_key_file"):
        keys = read_keys(api_key_file, os.environ)
    start = start and absolute(start)  # a replica may have another current directory
    offered = ServerSettings.methods if start is None else ServerSettings.methods[::-1]
    if missing := [library for library in LIBRARIES if find_spec(library) is None]:
        raise MissingExtra("nulltta serve", missing[0], "server")
    if not reward:
        default_reward(model)  # refused where there is none
    from nulltta.server.defaults import parse_defaults

    settings = ServerSettings(
        rewards=tuple(reward or ()), methods=tuple(method or offered), start=start, host=host, port=port,
        keys=keys, key_file=api_key_file and api_key_file.absolute(),
        name=name or (Path(model).name if Path(model).is_dir() else model),
        aliases=tuple(model_alias or ()), defaults=parse_defaults(default or ()), strict=strict,
        cors_origins=tuple(cors_origin or ()), allowed_hosts=tuple(allowed_host or ()),
        image_folder=image_folder and image_folder.absolute(),
        max_upload=max_upload, public_url=public_url, log_prompts=log_prompts, otlp_endpoint=otlp_endpoint,
        max_images=max_images,
        batch_size=batch_size,
        queue_size=queue_size, max_prompt=max_prompt, max_body=max_body, max_pixels=max_pixels, max_steps=max_steps,
        max_inner_steps=max_inner_steps, max_candidates=max_candidates, timeout=timeout, stall=stall,
        grace=grace,
        url_lifetime=url_lifetime,
    )  # fmt: skip
    wanted(settings)  # refused before the model is loaded where OpenTelemetry is missing
    if engine == "local" and (ray_address is not None or replicas is not None):
        raise InvalidValue("--ray-address and --replicas need --engine ray")
    model_settings = ModelSettings(
        model=absolute(model),
        device=device,
        dtype=dtype,
        tiny_decoder=tiny_decoder,
        compile=compiled,
        offload=offload,
        **of_call,
    )
    load = partial(_load, model_settings, settings.rewards)
    with quiet(lambda: "the server had not started yet"):
        if engine == "ray":
            from nulltta.server.ray_deployment import RayDeployment

            RayDeployment(ray_address, replicas, device)(settings, load)
        else:
            from nulltta.server.run import serve as run

            run(settings, load)


def _load(settings: ModelSettings, rewards: Sequence[str]) -> GuidedModel:
    """Load the model in the process that serves it, unless one of the rewards does not know its pictures."""
    from nulltta.runs.loading import load_model, refuse_toy_scorers

    for reward in rewards:
        refuse_toy_scorers(reward, settings.model)
    return load_model(settings)
