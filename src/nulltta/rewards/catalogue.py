"""The known rewards: how each is made, and what a list of them shows."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from nulltta.contracts import Reward
from nulltta.errors import InvalidValue
from nulltta.rewards import aesthetic, clip, hps, imagereward, siglip, sources, vqascore
from nulltta.rewards.closed_form import brightness, colourfulness, sharpness, target_colour
from nulltta.rewards.compose import Custom
from nulltta.rewards.jpeg import JpegSize


@dataclass(frozen=True, slots=True)
class Request:
    """What a reward is asked for: see `nulltta.rewards.load`."""

    name: str
    source: str | Path | None
    device: torch.device
    dtype: torch.dtype
    sha256: str | None


@dataclass(frozen=True, slots=True)
class Entry:
    """A known reward.

    Attributes:
        make: from a request to the reward.
        files: (repository, one of these files) for each file that it reads; () for a formula.
        gigabytes: about the size of its download, from its number of parameters; 0 for none.
        licence: of the weights, as their authors state it.
        on_gpu: the towers' dtype on a GPU where none is asked for; elsewhere it is float32.
    """

    make: Callable[[Request], Reward]
    summary: str
    differentiable: bool = True
    files: tuple[tuple[str, tuple[str, ...]], ...] = ()
    gigabytes: float = 0.0
    licence: str = ""
    on_gpu: torch.dtype = torch.float32

    def dtype(self, device: torch.device) -> torch.dtype:
        """The towers' where none is asked for."""
        return self.on_gpu if device.type == "cuda" else torch.float32


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `nulltta rewards`: present says whether nothing needs to be downloaded."""

    name: str
    summary: str
    differentiable: bool
    gigabytes: float
    present: bool
    licence: str
    source: str


def _world(request: Request) -> Reward:
    from nulltta.embedded import scorers

    place = {} if request.source is None else {"folder": Path(request.source)}
    scorer: Reward = scorers.load_scorer(request.name, device=request.device, dtype=request.dtype, **place)
    return scorer


def _clip_score(source: str, *, scaled: bool = False) -> Callable[[Request], Reward]:
    def make(r: Request) -> Reward:
        tower = clip.tower(r.source or source, r.device, r.dtype, reward=r.name, sha256=r.sha256)
        return clip.ClipScore(tower, r.name, scaled=scaled)

    return make


def _learned(load: Callable[..., Reward]) -> Callable[[Request], Reward]:
    return lambda r: load(r.name, r.source, r.device, r.dtype, r.sha256)


def _formula(make: Callable[[], Any]) -> Callable[[Request], Reward]:
    def build(r: Request) -> Reward:
        _refuse_source(r)
        return Custom(make(), r.name)

    return build


def _jpeg(sign: float) -> Callable[[Request], Reward]:
    def make(r: Request) -> Reward:
        _refuse_source(r)
        return JpegSize(r.name, sign)

    return make


def _refuse_source(r: Request) -> None:
    if r.source is not None or r.sha256 is not None:
        raise InvalidValue(f"reward '{r.name}' is a formula: it loads no file, so give no source '{r.source}'")


def _colour(r: Request) -> Reward:
    return Custom(target_colour(None if r.source is None else str(r.source)), f"{r.name}:{r.source}")


_CLIP_L = (clip.OPENAI, sources.WEIGHTS)
_PICKSCORE = "yuvalkirstain/PickScore_v1"
_H = ((_PICKSCORE, sources.WEIGHTS),)

REWARDS: Mapping[str, Entry] = {
    "clip": Entry(_world, "the embedded world's image-text score: cosine of image and prompt", licence="Apache-2.0"),
    "clip-b": Entry(
        _world, "a second one, trained apart: keep it for checking what `clip` was raised to", licence="Apache-2.0"
    ),
    "colourfulness": Entry(_formula(lambda: colourfulness), "Hasler and Süsstrunk's M3"),
    "brightness": Entry(_formula(lambda: brightness), "the mean pixel"),
    "sharpness": Entry(_formula(lambda: sharpness), "variance of the Laplacian"),
    "target-colour": Entry(_colour, "target-colour:#RRGGBB, −mean squared distance to it"),
    "jpeg": Entry(_jpeg(-1.0), "−kB of the quality-95 JPEG", differentiable=False),
    "jpeg-incompressibility": Entry(_jpeg(1.0), "+kB of the quality-95 JPEG", differentiable=False),
    "pickscore": Entry(
        _clip_score(_PICKSCORE), "cosine of CLIP-H tuned on Pick-a-Pic", files=_H, gigabytes=3.9, licence="MIT"
    ),
    "pickscore-logits": Entry(
        _clip_score(_PICKSCORE, scaled=True), "the same times its logit scale", files=_H, gigabytes=3.9, licence="MIT"
    ),
    "hpsv2": Entry(
        _learned(hps.load), "Human Preference Score v2",
        files=((hps.HUB, (hps.FILES["hpsv2"],)),), gigabytes=2.0, licence="Apache-2.0",
    ),
    "hpsv2.1": Entry(
        _learned(hps.load), "Human Preference Score v2.1",
        files=((hps.HUB, (hps.FILES["hpsv2.1"],)),), gigabytes=2.0, licence="Apache-2.0",
    ),
    "imagereward": Entry(
        _learned(imagereward.load), "ImageReward, BLIP and an MLP",
        files=((imagereward.HUB, (imagereward.FILE,)),), gigabytes=1.8, licence="Apache-2.0",
    ),
    "aesthetic": Entry(
        _learned(aesthetic.load), "LAION's aesthetic predictor v2 on CLIP-L",
        files=((aesthetic.HUB, aesthetic.FILES), _CLIP_L), gigabytes=1.7, licence="Apache-2.0; CLIP MIT",
    ),
    "clipscore": Entry(
        _clip_score(clip.OPENAI), "cosine of any CLIPModel", files=(_CLIP_L,), gigabytes=1.7, licence="MIT"
    ),
    "siglip": Entry(
        _learned(siglip.load), "probability by any SigLIP or SigLIP 2",
        files=((siglip.HUB, sources.WEIGHTS),), gigabytes=1.5, licence="Apache-2.0",
    ),
    "vqascore": Entry(
        _learned(vqascore.load), "P(\"Yes\") of a vision-language model asked whether the picture shows the prompt",
        files=((vqascore.HUB, sources.WEIGHTS),), gigabytes=7.5, licence="Qwen Research (non-commercial)",
        on_gpu=torch.bfloat16,
    ),
}  # fmt: skip


def catalogue() -> list[Row]:
    """The known rewards, in order. Looks at the disk only: nothing is downloaded."""
    return [
        Row(
            name, entry.summary, entry.differentiable, entry.gigabytes, _present(name, entry), entry.licence,
            " + ".join(repository for repository, _ in entry.files),
        )
        for name, entry in REWARDS.items()
    ]  # fmt: skip


def _present(name: str, entry: Entry) -> bool:
    if entry.make is _world:
        from nulltta.embedded import WEIGHTS

        return (WEIGHTS / name / "model.safetensors").is_file()
    return all(sources.is_cached(home, files) for home, files in entry.files)
