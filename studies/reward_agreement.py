"""How far are the learned rewards from the official computations? On tiny checkpoints in the official file formats.

    python studies/reward_agreement.py

The checkpoints have random weights and are those of the tests (tests/rewards/checkpoints.py); the official computations
are in tests/rewards/official.py. Two pictures with two prompts are scored, of sizes that no preprocessing resizes, so
that differences are those of the networks. The table gives both scores of each and the largest difference.
"""

from __future__ import annotations

import json
import sys
import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
import typer
from torch import Tensor

from nulltta.quiet import quiet_libraries
from nulltta.rewards import hpsv3, load

sys.path.insert(0, str(Path(__file__).parents[1]))
checkpoints, official, pictures = (
    import_module(f"tests.rewards.{name}") for name in ("checkpoints", "official", "pictures")
)
PROMPTS = ["a red cat", "the sun over a blue sea"]
LEARNED = {
    "clipscore": checkpoints.clip_directory, "siglip": checkpoints.siglip_directory,
    "hpsv2": checkpoints.hps_directory, "imagereward": checkpoints.imagereward_directory,
    "aesthetic": checkpoints.aesthetic_directory, "aesthetic-v2.5": checkpoints.aesthetic_v2_5_directory,
    "cyclereward": checkpoints.cyclereward_directory, "mps": checkpoints.mps_directory,
}  # fmt: skip
ATOMS = {prompt: [["Is it a picture?", "Yes"], ["Which letter?", "r"]] for prompt in PROMPTS}
SPELLINGS = {"Yes": ["Yes"], "r": ["r", "R"]}


def main() -> None:
    """Print the table."""
    print("| reward | official | ours | largest difference |", "|---" * 4 + "|", sep="\n")
    for name, build in LEARNED.items():
        with tempfile.TemporaryDirectory() as place, quiet_libraries():
            folder, images = build(Path(place)), _images(checkpoints.SIDE, checkpoints.SIDE)
            ours = load(name, folder, device="cpu")(images, PROMPTS)
            _row(name, official.learned(name, folder, images, PROMPTS), ours)
    for name, version in (("vqascore", "2"), ("vqascore", "2.5"), ("vqascore", "3")):
        size = (96, 128) if version == "3" else (84, 112)
        with tempfile.TemporaryDirectory() as place, quiet_libraries():
            folder = checkpoints.qwen_directory(Path(place), version)
            expected = official.vqascore("qwen", folder, _pictures(*size), PROMPTS)
            _row(f"{name}, Qwen{version}-VL", expected, load(name, folder, device="cpu")(_images(*size), PROMPTS))
    with tempfile.TemporaryDirectory() as place, quiet_libraries():
        folder, size = checkpoints.qwen_directory(Path(place), "3"), (96, 128)
        (folder / "atoms.jsonl").write_text(
            "\n".join(json.dumps({"prompt": prompt, "vqa_list": pairs}) for prompt, pairs in ATOMS.items())
        )
        each = torch.stack([
            torch.stack([official.answer_probability(folder, image, question, SPELLINGS[answer])
                         for question, answer in ATOMS[prompt]])
            for image, prompt in zip(_pictures(*size), PROMPTS, strict=True)
        ])  # fmt: skip
        for name, expected in (("soft-tifa", each.log().mean(1).exp()), ("soft-tifa-mean", each.mean(1))):
            reward = load(name, f"{folder / 'atoms.jsonl'}@{folder}", device="cpu")
            _row(name, expected, reward(_images(*size), PROMPTS))
        written = zip(_pictures(*size), PROMPTS, strict=True)
        expected = torch.tensor([official.unifiedreward(folder, image, prompt)[1] for image, prompt in written])
        _row("unifiedreward", expected, load("unifiedreward", folder, device="cpu")(_images(*size), PROMPTS))
    with tempfile.TemporaryDirectory() as place, quiet_libraries():
        hpsv3.PIXELS = 84 * 112  # of 12 tokens per image instead of 256
        folder = checkpoints.hpsv3_directory(Path(place))
        expected = official.hpsv3_ratings(folder, _pictures(84, 112), PROMPTS)[:, 0]
        _row("hpsv3", expected, load("hpsv3", folder, device="cpu")(_images(84, 112), PROMPTS))


def _pictures(height: int, width: int) -> list[Any]:
    return [pictures.picture(height, width, seed) for seed in range(2)]


def _images(height: int, width: int) -> Tensor:
    return torch.cat([pictures.tensor(image) for image in _pictures(height, width)])


def _row(name: str, expected: Tensor, ours: Tensor) -> None:
    """Print one line, with the scores of both pictures."""
    expected, ours = expected.detach(), ours.detach()
    shown = [", ".join(f"{value:.5g}" for value in values.tolist()) for values in (expected, ours)]
    print(f"| `{name}` | {shown[0]} | {shown[1]} | {float((expected - ours).abs().max()):.0e} |")


if __name__ == "__main__":
    typer.run(main)
