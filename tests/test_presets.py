"""Which settings a model starts from."""

from __future__ import annotations

import inspect
import json
from pathlib import Path

import pytest

from nulltta import NullTTAConfig, NullTTAError
from nulltta.config.presets import PRESETS, STOCK, preset_name, require_preset


@pytest.mark.parametrize("name", sorted(STOCK))
def test_a_familys_preset_takes_the_defaults_of_its_stock_call(name: str) -> None:
    import diffusers

    family, steps, scale = STOCK[name]
    kind = getattr(diffusers, f"{family}Pipeline", None) or getattr(diffusers, f"{family}SigmaPipeline")
    accepted = inspect.signature(kind.__call__).parameters
    assert accepted["num_inference_steps"].default == steps
    stock = accepted["true_cfg_scale" if "true_cfg_scale" in accepted else "guidance_scale"].default
    assert stock == (1.0 if name == "flux" else scale)  # Flux leaves true guidance off
    assert preset_name(kind.__name__) == name


@pytest.mark.parametrize("name", sorted(PRESETS))
def test_every_preset_is_valid_and_keeps_what_it_does_not_name(name: str) -> None:
    config = NullTTAConfig.preset(name, num_particles=7)
    assert config.num_particles == 7
    assert config.conventions == PRESETS[name].get("conventions", "paper")
    if name in STOCK:
        assert config.annealing == "auto"
        assert config.inner_steps == NullTTAConfig().inner_steps
    require_preset(name)


def test_the_published_settings_are_a_preset_and_that_of_stable_diffusion() -> None:
    assert NullTTAConfig.preset("paper") == NullTTAConfig.preset("StableDiffusionPipeline") == NullTTAConfig()
    with pytest.raises(NullTTAError, match="preset must be one of paper, embedded, sdxl"):
        require_preset("sdxxl")


def test_the_preset_of_a_directory_is_that_of_its_index(tmp_path: Path) -> None:
    (tmp_path / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusion3Img2ImgPipeline"}))
    assert preset_name(str(tmp_path)) == "sd3"
    (tmp_path / "model_index.json").write_text("[")
    assert preset_name(str(tmp_path)) == "paper"


def test_a_hub_model_that_cannot_be_reached_takes_the_published_settings() -> None:
    assert preset_name("no-such-organisation/no-such-model") == "paper"
