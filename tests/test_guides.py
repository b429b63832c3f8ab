"""The code that the guides show."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from nulltta import NullText

GUIDE = Path(__file__).parent.parent / "docs" / "null-texts.md"


def test_the_modular_guider_overrules_the_null_embedding_at_each_step() -> None:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.S) if "guiders" in block)
    values = [{"tokens": torch.full((2, 3), float(i))} for i in (1, 2)]
    names: dict[str, Any] = {"null_text": NullText([900, 100], values, "a cat")}
    exec(code, names)
    given = {"prompt_embeds": (torch.full((4, 2, 3), 7.0), torch.zeros((4, 2, 3)))}
    for step, (timestep, learnt) in enumerate([(950, 1.0), (50, 2.0)]):
        names["guider"].set_state(step=step, num_inference_steps=2, timestep=torch.tensor(timestep))
        cond, null = names["guider"].prepare_inputs(given)
        assert torch.equal(cond.prompt_embeds, given["prompt_embeds"][0])
        assert torch.equal(null.prompt_embeds, torch.full((4, 2, 3), learnt))
