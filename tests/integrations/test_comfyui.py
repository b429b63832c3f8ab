"""The ComfyUI nodes: what they do to the calls of ComfyUI's sampler, by its contract, with real denoisers."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import nulltta
from nulltta import DoesNotFit, NullText
from nulltta.null_text.fitted import FittedNullText
from nulltta.null_text.forms import FORMS, TokensForm, free_shapes
from nulltta.null_text.identity import identity

from ..tiny_families import save_sdxl

FOLDER = Path(__file__).parents[2] / "integrations" / "comfyui"
STEPS = 3


def loaded(name: str) -> Any:
    """Import a module of the package of nodes, which is not installed."""
    spec = importlib.util.spec_from_file_location(f"comfyui_{name}", FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


unconditional = loaded("unconditional")


@pytest.fixture(scope="module")
def models(checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    from diffusers import DDIMScheduler

    sd = nulltta.load_model(checkpoint, device="cpu")
    sdxl = nulltta.load_model(save_sdxl(tmp_path_factory.mktemp("sdxl") / "sdxl"), device="cpu")
    sdxl.pipeline.scheduler = DDIMScheduler.from_config(sd.pipeline.scheduler.config)
    return {"sd": sd, "sdxl": sdxl}


def made(model: Any, form: Any) -> Any:
    """Return a null text with random values: of one form, or of one prompt."""
    _, null = model.encode(["a"], [""])
    source = torch.Generator().manual_seed(0)
    timesteps = [step.timestep for step in model.schedule(STEPS)]
    about = {"model": identity(model), "form": form, "where": model.placement(STEPS)}
    if form == "of one prompt":
        phi = {name: tensor[0] for name, tensor in null.items()}
        values = [{n: t + 0.5 * torch.randn(t.shape, generator=source) for n, t in phi.items()} for _ in timesteps]
        return NullText(timesteps, values, "a cat", phi, about)
    shapes = free_shapes(null)
    shift = FORMS[form](shapes, STEPS) if form != "tokens" else TokensForm(shapes, {"text_encoder": torch.zeros(1, 2)})
    for tensor in (*shift.parameters(), *shift.buffers()):
        tensor.data = 0.3 * torch.randn(tensor.shape, generator=source)
    return FittedNullText(timesteps, shift.requires_grad_(False), (1, STEPS), about)


class Sampler:
    """ComfyUI's side: sigmas, `BaseModel.apply_model` for ε-prediction, and the batching of `calc_cond_batch`.

    The denoiser and the scheduler are the pipeline's own, so that its pictures can be compared with.
    """

    def __init__(self, model: Any, together: bool, text_repeats: int = 1) -> None:
        self.pipeline, self.together, self.repeats = model.pipeline, together, text_repeats
        alphas = self.pipeline.scheduler.alphas_cumprod
        self.sigmas = ((1 - alphas) / alphas).sqrt()
        cond, null = model.encode(["a cat"], [""])
        self.text = {0: cond, 1: null}

    def timestep(self, sigma: Tensor) -> Tensor:
        """`ModelSamplingDiscrete.timestep`."""
        distances = sigma.log() - self.sigmas.log()[:, None]
        return distances.abs().argmin(dim=0)

    def apply_model(self, x: Tensor, sigma: Tensor, c_crossattn: Tensor, y: Tensor | None = None, **_: Any) -> Tensor:
        scale, time = (sigma**2 + 1).sqrt().view(-1, 1, 1, 1), self.timestep(sigma)
        text = c_crossattn[:, : c_crossattn.shape[1] // self.repeats]
        more = {} if y is None else {"added_cond_kwargs": {"text_embeds": y[:, :-6], "time_ids": y[:, -6:]}}
        noise = self.pipeline.unet(x / scale, time, encoder_hidden_states=text, **more).sample
        return x - noise * sigma.view(-1, 1, 1, 1)

    def conditioning(self, kind: int, count: int) -> dict[str, Tensor]:
        text, sizes = self.text[kind], torch.tensor([[16.0, 16.0, 0.0, 0.0, 16.0, 16.0]])
        found = {"c_crossattn": text["encoder_hidden_states"].repeat(count, self.repeats, 1)}
        if (pooled := text.get("added_cond_kwargs.text_embeds")) is not None:
            found["y"] = torch.cat([pooled, sizes], 1).repeat(count, 1)
        return found

    @torch.no_grad()
    def __call__(self, latents: Tensor, wrapper: Callable[..., Tensor], scale: float) -> Tensor:
        scheduler, x, count = self.pipeline.scheduler, latents, len(latents)
        scheduler.set_timesteps(STEPS)
        for time in scheduler.timesteps:
            sigma, alpha = self.sigmas[time], scheduler.alphas_cumprod[time]
            denoised: dict[int, Tensor] = {}
            for kinds in [[1, 0]] if self.together else [[1], [0]]:
                each = [self.conditioning(kind, count) for kind in kinds]
                c = {name: torch.cat([part[name] for part in each]) for name in each[0]}
                given = {
                    "input": (x / alpha.sqrt()).repeat(len(kinds), 1, 1, 1), "cond_or_uncond": kinds,
                    "timestep": sigma.repeat(len(kinds) * count), "c": {**c, "transformer_options": {}},
                }  # fmt: skip
                denoised |= dict(zip(kinds, wrapper(self.apply_model, given).chunk(len(kinds)), strict=True))
            guided = denoised[1] + scale * (denoised[0] - denoised[1])
            x = scheduler.step((x / alpha.sqrt() - guided) / sigma, time, x).prev_sample
        return x


@pytest.mark.parametrize("together", [True, False], ids=["one call", "a call each"])
@pytest.mark.parametrize(
    ("name", "form"),
    [("sd", "of one prompt"), ("sd", "constant"), ("sd", "steps"), ("sd", "prompt"), ("sd", "tokens"),
     ("sdxl", "of one prompt"), ("sdxl", "prompt")],
)  # fmt: skip
def test_the_latents_are_those_of_apply_in_the_stock_pipeline(
    models: dict[str, Any], name: str, form: str, together: bool
) -> None:
    model = models[name]
    null_text, sampler = made(model, form), Sampler(model, together)
    latents = model.initial_latents(2, torch.Generator().manual_seed(0))
    call = {"num_inference_steps": STEPS, "guidance_scale": 4.0, "latents": latents, "output_type": "latent"}
    with null_text.apply(model.pipeline):  # without a negative prompt, SDXL's would be zeros instead of the empty one
        expected = model.pipeline(["a cat"] * 2, negative_prompt=[""] * 2, **call).images
    pooled = {"pooled_output": sampler.text[0].get("added_cond_kwargs.text_embeds")}
    positive = [[sampler.text[0]["encoder_hidden_states"], pooled]]
    wrapper = unconditional.wrapper(null_text, sampler.timestep, positive)
    torch.testing.assert_close(sampler(latents, wrapper, 4.0), expected, rtol=0, atol=1e-4)
    plain = sampler(latents, lambda apply, given: apply(given["input"], given["timestep"], **given["c"]), 4.0)
    assert float((plain - expected).abs().max()) > 1e-3


def test_a_text_that_comfyui_repeats_to_the_length_of_a_longer_prompt_is_found(models: dict[str, Any]) -> None:
    model = models["sd"]
    latents = model.initial_latents(1, torch.Generator().manual_seed(0))
    results = []
    for repeats in (1, 2):
        sampler = Sampler(model, True, repeats)
        results.append(sampler(latents, unconditional.wrapper(made(model, "steps"), sampler.timestep), 4.0))
    torch.testing.assert_close(*results)


def test_the_wrapper_that_the_model_had_before_is_called_with_the_null_text(models: dict[str, Any]) -> None:
    model, seen = models["sd"], []
    sampler = Sampler(model, True)

    def before(apply_model: Any, call: dict[str, Any]) -> Tensor:
        seen.append(call["c"]["c_crossattn"])
        return apply_model(call["input"], call["timestep"], **call["c"])

    null_text = made(model, "of one prompt")
    latents = model.initial_latents(1, torch.Generator().manual_seed(0))
    sampler(latents, unconditional.wrapper(null_text, sampler.timestep, inner=before), 4.0)
    for value, text in zip(null_text.values, seen, strict=True):
        assert torch.equal(text[0], value["encoder_hidden_states"])
        assert torch.equal(text[1], sampler.text[0]["encoder_hidden_states"][0])


def call(text: Tensor, kinds: list[int]) -> dict[str, Any]:
    return {"input": torch.zeros(len(kinds), 4, 8, 8), "timestep": torch.ones(len(kinds)), "cond_or_uncond": kinds,
            "c": {"c_crossattn": text}}  # fmt: skip


def test_what_does_not_fit_is_refused_in_one_line(models: dict[str, Any]) -> None:
    null_text = made(models["sd"], "prompt")
    text = torch.zeros(1, 77, 32)
    with pytest.raises(DoesNotFit, match="connect the positive conditioning"):
        unconditional.replaced(null_text, 1, call(text, [1]))
    with pytest.raises(DoesNotFit, match="another model"):
        unconditional.replaced(null_text, 1, call(torch.zeros(2, 77, 48), [1, 0]))
    with pytest.raises(DoesNotFit, match="154 tokens"):
        unconditional.replaced(null_text, 1, call(torch.randn(2, 154, 32), [1, 0]))
    with pytest.raises(DoesNotFit, match="have none"):
        unconditional.replaced(made(models["sdxl"], "constant"), 1, call(torch.zeros(1, 77, 64), [1]))
    row = {"words": torch.zeros(2, 3)}
    with pytest.raises(DoesNotFit, match="no place for the null text's 'words'"):
        unconditional.wrapper(NullText([1.0], [row], "a", row), lambda sigma: sigma)


def test_the_example_workflows_are_connected_and_their_nodes_are_documented() -> None:
    ours: set[str] = set()
    for path in (FOLDER / "example_workflows").glob("*.json"):
        workflow = json.loads(path.read_text())
        nodes = {node["id"]: node for node in workflow["nodes"]}
        for number, origin, out, target, into, kind in workflow["links"]:
            assert number in nodes[origin]["outputs"][out]["links"]
            assert nodes[origin]["outputs"][out]["type"] == kind
            assert nodes[target]["inputs"][into]["link"] == number
            assert nodes[target]["inputs"][into]["type"] == kind
        ours |= {node["type"] for node in nodes.values() if node["type"].startswith("NullTTA")}
    assert ours == {path.stem for path in (FOLDER / "web" / "docs").glob("*.md")}


@pytest.mark.skipif("COMFYUI" not in os.environ, reason="the path of a ComfyUI is not in COMFYUI")
def test_in_a_real_comfyui() -> None:
    run = subprocess.run([sys.executable, str(FOLDER / "check.py"), os.environ["COMFYUI"]], capture_output=True,
                         text=True, check=False)  # fmt: skip
    assert run.returncode == 0, run.stderr
    assert "the same" in run.stdout


def test_a_null_text_of_another_guidance_is_refused() -> None:
    row = {"encoder_hidden_states": torch.zeros(3, 4)}
    with pytest.raises(DoesNotFit, match="normalized attention guidance"):
        unconditional.require_known(NullText([1.0], [row], "a", row, {"config": {"guidance": "nag"}}))
