"""`nulltta fit`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from nulltta.cli.flags import Device, Dtype, Guidance, MicroBatch, Model, Preset, Reward, RewardSource, Steps
from nulltta.cli.messages import quiet
from nulltta.config import FormName, NullTTAConfig
from nulltta.config.presets import require_preset
from nulltta.fit.settings import PRIOR_WEIGHTS, FitSettings
from nulltta.runs.fit_request import FitRequest, require_consistent
from nulltta.runs.prompt_sources import training_prompts
from nulltta.runs.request import ModelSettings, default_reward


def fit(
    prompts: Annotated[
        str,
        typer.Option(
            "--prompts",
            metavar="SOURCE",
            show_default=False,
            help="The training prompts: a file with one per line, a .jsonl, .csv or .parquet file with a column "
            "'prompt', 'caption' or 'text', or a dataset's folder or hub id.",
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The null text, a .safetensors file.", show_default=False)],
    model: Model = "embedded",
    reward: Reward = None,
    reward_source: RewardSource = None,
    form: Annotated[
        FormName, typer.Option(metavar="FORM", help="What the null text is: constant, steps, prompt or tokens.")
    ] = FitSettings.form,
    tokens: Annotated[
        int, typer.Option(help="Of the form tokens, how many are learnt for each text encoder.")
    ] = FitSettings.tokens,
    guard: Annotated[
        list[str] | None,
        typer.Option(metavar="REWARD", help="A reward that must not fall on the validation prompts; may be repeated."),
    ] = None,
    validation: Annotated[
        str | None,
        typer.Option(metavar="SOURCE", help="Validation prompts, likewise (default: the last eighth, 2 to 48)."),
    ] = None,
    updates: Annotated[int, typer.Option(help="Updates of the null text.")] = FitSettings.updates,
    rows: Annotated[int, typer.Option(help="Latents per update.")] = FitSettings.rows,
    learning_rate: Annotated[float | None, typer.Option(help="Peak learning rate (default: the form's own)")] = None,
    validate_every: Annotated[int, typer.Option(help="Updates between validations.")] = FitSettings.validate_every,
    seed: Annotated[int, typer.Option(help="The seed of all draws.")] = FitSettings.seed,
    preset: Preset = None,
    num_inference_steps: Steps = None,
    guidance_scale: Guidance = None,
    prior_weight: Annotated[
        float | None,
        typer.Option(help="λ2: weight of the null text's prior (default: 0.0003; of the form tokens, the preset's)"),
    ] = None,
    kl_weight: Annotated[
        float | None, typer.Option(help="λ2: weight of the consistency term (default: the model's preset)")
    ] = None,
    micro_batch: MicroBatch = None,
    device: Device = None,
    dtype: Dtype = None,
) -> None:
    """Learn a null text once, for all prompts: sampling with it costs as much as plain sampling.

    A fit that was stopped goes on when the same command is given again.
    """
    given = {"num_inference_steps": num_inference_steps, "guidance_scale": guidance_scale,
             "prior_weight": prior_weight, "kl_weight": kl_weight}  # fmt: skip
    if preset is not None:
        require_preset(preset)
    asked = {name: value for name, value in given.items() if value is not None}
    held = {"annealing": 0.0} | ({"prior_weight": PRIOR_WEIGHTS[form]} if form in PRIOR_WEIGHTS else {})
    usual: dict[str, Any] = {name: value for name, value in held.items() if name not in asked}
    config = replace(NullTTAConfig.preset(preset or model, **asked), **usual)
    reward = default_reward(model) if reward is None else reward
    require_consistent(out, reward, guard or ())  # before the prompts, which may have to be fetched
    settings = FitSettings(
        form=form, tokens=tokens, updates=updates, rows=rows, learning_rate=learning_rate,
        validate_every=validate_every, seed=seed, pool=max(FitSettings.pool, rows),
    )  # fmt: skip
    request = FitRequest(
        prompts=training_prompts(prompts), out=out,
        validation=() if validation is None else training_prompts(validation, "validation"),
        settings=settings, config=config, model=ModelSettings(model=model, device=device, dtype=dtype),
        reward=reward, reward_source=reward_source, guards=guard or (), micro_batch=micro_batch,
    )  # fmt: skip

    def standing() -> str:
        kept = request.checkpoint
        return f"the same command continues from '{kept}'" if kept.exists() else "nothing was written"

    with quiet(standing):
        from nulltta.runs.fit import run

        run(request)
