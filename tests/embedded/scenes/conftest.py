"""The scenes world after two tiny steps of every stage, stopped and resumed, and its export."""

from __future__ import annotations

import math
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from nulltta.embedded.scenes.train import answerer, autoencoder, generator, scorers
from nulltta.embedded.scenes.train.__main__ import main
from nulltta.embedded.train.loop import Budget


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints after two steps of every stage, and the exported weights in it."""
    folder = tmp_path_factory.mktemp("scenes")
    with pytest.MonkeyPatch.context() as patch:
        for module in (autoencoder, scorers, generator, answerer):
            patch.setattr(module, "BATCH", 4)
        patch.setattr(autoencoder, "PCA_IMAGES", 64)
        patch.setattr(autoencoder, "SURVIVAL_SCENES", 10)
        patch.setattr(generator, "LOOK_PROMPTS", 12)
        patch.setattr(generator, "LOOK_STEPS", 2)
        stages = {
            autoencoder.NAME: autoencoder.run,
            generator.NAME: partial(generator.run, scenes=8),
            answerer.NAME: answerer.run,
            **{name: partial(scorers.run, name) for name in scorers.STEPS},
        }
        for name, run in stages.items():
            for steps in (1, 2):
                run(Budget(folder, math.inf, steps=steps))
                assert torch.load(folder / f"{name}.pt", weights_only=True)["step"] == steps
        patch.setattr(sys, "argv", f"train --stage export --out {folder} --weights {folder}/w".split())
        main()
    return folder
