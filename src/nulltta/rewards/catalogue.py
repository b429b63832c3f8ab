"""The known rewards: how each is loaded, what it is, and what its weights cost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from nulltta.contracts import Reward
from nulltta.devices import usual_dtype
from nulltta.embedded.worlds import WORLDS, world_of
from nulltta.errors import InvalidValue
from nulltta.rewards import (
    aesthetic,
    aesthetic_v2_5,
    brisque,
    checkpoint_files,
    clip,
    cyclereward,
    hps,
    hpsv3,
    imagereward,
    mps,
    nsfw,
    siglip,
    soft_tifa,
    unifiedreward,
    vqascore,
)
from nulltta.rewards.closed_form import brightness, colourfulness, sharpness, target_colour
from nulltta.rewards.compose import Custom
from nulltta.rewards.jpeg import JpegSize
from nulltta.rewards.request import RewardRequest


@dataclass(frozen=True, slots=True)
class KnownReward:
    """A reward that can be named.

    Attributes:
        load: makes the reward from a request.
        summary: what it measures, in one line.
        differentiable: whether it gives a gradient.
        files: (home, file names) for each file it reads, of which one of the names is enough; () for a formula. The
            home is a hub id or, without a slash, a Python package that ships the file.
        gigabytes: the approximate size of its download, from the number of its parameters; 0 if there is none.
        licence: the licence of its weights, as their authors state it.
        gpu_dtype: the default precision of its networks on a GPU; None for half precision, bfloat16 where the GPU
            computes in it. On the CPU it is float32.
    """

    load: Callable[[RewardRequest], Reward]
    summary: str
    differentiable: bool = True
    files: tuple[tuple[str, tuple[str, ...]], ...] = ()
    gigabytes: float = 0.0
    licence: str = ""
    gpu_dtype: torch.dtype | None = None

    @property
    def is_network(self) -> bool:
        """Whether it loads a network through transformers; a package that ships a small file is none."""
        return any("/" in home for home, _ in self.files)

    def default_dtype(self, device: torch.device) -> torch.dtype:
        """Return the precision of its networks on a device if none is asked for."""
        return torch.float32 if device.type == "cpu" else self.gpu_dtype or usual_dtype(device)


@dataclass(frozen=True, slots=True)
class ListedReward:
    """One line of the list that `nulltta rewards` prints.

    Attributes:
        present: whether all its files are on this machine, so that nothing needs to be downloaded.
        source: the homes of its files.
    """

    name: str
    summary: str
    differentiable: bool
    gigabytes: float
    present: bool
    licence: str
    source: str


def _embedded(request: RewardRequest) -> Reward:
    """Load a scorer of an embedded world."""
    world = world_of(request.name)
    folder = world.weights if request.source is None else Path(request.source)
    return world.load_scorer(request.name, folder, request.device, request.dtype)


def _formula(function: Callable[[Tensor, Sequence[str]], Tensor]) -> Callable[[RewardRequest], Reward]:
    """Make the loader of a reward that is a formula."""

    def load(request: RewardRequest) -> Reward:
        _refuse_source(request)
        return Custom(function, request.name)

    return load


def _jpeg(sign: float) -> Callable[[RewardRequest], Reward]:
    """Make the loader of plus or minus the JPEG size."""

    def load(request: RewardRequest) -> Reward:
        _refuse_source(request)
        return JpegSize(request.name, sign)

    return load


def _refuse_source(request: RewardRequest) -> None:
    """Refuse a source for a reward that loads nothing."""
    if request.source is not None or request.sha256 is not None:
        raise InvalidValue(
            f"reward '{request.name}' is a formula: it loads no file, so do not give it the source '{request.source}'"
        )


def _target_colour(request: RewardRequest) -> Reward:
    """Make the reward of the colour that follows the name."""
    colour = None if request.source is None else str(request.source)
    return Custom(target_colour(colour), f"{request.name}:{colour}")


_CLIP_L = (clip.OPENAI, checkpoint_files.WEIGHTS)
_PICKSCORE = "yuvalkirstain/PickScore_v1"
_PICKSCORE_FILES = ((_PICKSCORE, checkpoint_files.WEIGHTS),)

REWARDS: Mapping[str, KnownReward] = {
    **{
        name: KnownReward(_embedded, summary, licence="Apache-2.0", gpu_dtype=torch.float32)
        for world in WORLDS.values() for name, summary in world.scorers.items()
    },
    "colourfulness": KnownReward(_formula(colourfulness), "Hasler and Süsstrunk's M3"),
    "brightness": KnownReward(_formula(brightness), "the mean pixel"),
    "sharpness": KnownReward(_formula(sharpness), "variance of the Laplacian"),
    "target-colour": KnownReward(_target_colour, "target-colour:#RRGGBB, −mean squared distance to it"),
    "jpeg": KnownReward(_jpeg(-1.0), "−kB of the quality-95 JPEG", differentiable=False),
    "jpeg-incompressibility": KnownReward(_jpeg(1.0), "+kB of the quality-95 JPEG", differentiable=False),
    "pickscore": KnownReward(
        clip.loader(_PICKSCORE), "cosine of CLIP-H tuned on Pick-a-Pic",
        files=_PICKSCORE_FILES, gigabytes=3.9, licence="MIT",
    ),
    "pickscore-logits": KnownReward(
        clip.loader(_PICKSCORE, scaled=True), "the same times its logit scale",
        files=_PICKSCORE_FILES, gigabytes=3.9, licence="MIT",
    ),
    "hpsv2": KnownReward(
        hps.load, "Human Preference Score v2",
        files=((hps.HUB, (hps.FILES["hpsv2"],)),), gigabytes=2.0, licence="Apache-2.0",
    ),
    "hpsv2.1": KnownReward(
        hps.load, "Human Preference Score v2.1",
        files=((hps.HUB, (hps.FILES["hpsv2.1"],)),), gigabytes=2.0, licence="Apache-2.0",
    ),
    "hpsv3": KnownReward(
        hpsv3.load, "Human Preference Score v3, Qwen2-VL-7B and an MLP",
        files=((hpsv3.HUB, hpsv3.FILES),), gigabytes=16.6, licence="Apache-2.0", gpu_dtype=torch.bfloat16,
    ),
    "imagereward": KnownReward(
        imagereward.load, "ImageReward, BLIP and an MLP",
        files=((imagereward.HUB, (imagereward.FILE,)),), gigabytes=1.8, licence="Apache-2.0",
    ),
    "mps": KnownReward(
        mps.load, "Multi-dimensional Preference Score, CLIP-H and cross-attention",
        files=((mps.HUB, mps.FILES),), gigabytes=4.4, licence="not stated with the weights",
    ),
    "aesthetic": KnownReward(
        aesthetic.load, "LAION's aesthetic predictor v2 on CLIP-L",
        files=((aesthetic.HUB, aesthetic.FILES), _CLIP_L), gigabytes=1.7, licence="Apache-2.0; CLIP MIT",
    ),
    "aesthetic-v2.5": KnownReward(
        aesthetic_v2_5.load, "aesthetic predictor v2.5 on SigLIP so400m",
        files=((aesthetic_v2_5.SIGLIP, checkpoint_files.WEIGHTS),), gigabytes=3.5,
        licence="AGPL-3.0; SigLIP Apache-2.0",
    ),
    "cyclereward": KnownReward(
        cyclereward.load, "CycleReward, BLIP and an MLP trained on cycle consistency",
        files=((cyclereward.HUB, cyclereward.FILES),), gigabytes=1.9, licence="MIT",
    ),
    "clipscore": KnownReward(
        clip.loader(clip.OPENAI), "cosine of any CLIPModel", files=(_CLIP_L,), gigabytes=1.7, licence="MIT"
    ),
    "siglip": KnownReward(
        siglip.load, "probability by any SigLIP or SigLIP 2",
        files=((siglip.HUB, checkpoint_files.WEIGHTS),), gigabytes=1.5, licence="Apache-2.0",
    ),
    "vqascore": KnownReward(
        vqascore.load, "P(\"Yes\") of a vision-language model asked whether the picture shows the prompt",
        files=((vqascore.HUB, checkpoint_files.WEIGHTS),), gigabytes=7.5, licence="Qwen Research (non-commercial)",
        gpu_dtype=torch.bfloat16,
    ),
    "soft-tifa": KnownReward(
        soft_tifa.load, "soft-tifa:atoms.jsonl, geometric mean of P(right answer) to questions about the prompt",
        files=((soft_tifa.HUB, checkpoint_files.WEIGHTS),), gigabytes=17.5, licence="Apache-2.0",
        gpu_dtype=torch.bfloat16,
    ),
    "soft-tifa-mean": KnownReward(
        soft_tifa.load, "soft-tifa-mean:atoms.jsonl, the same with the arithmetic mean",
        files=((soft_tifa.HUB, checkpoint_files.WEIGHTS),), gigabytes=17.5, licence="Apache-2.0",
        gpu_dtype=torch.bfloat16,
    ),
    "unifiedreward": KnownReward(
        unifiedreward.load, "UnifiedReward 2.0 on Qwen3-VL: expected scores for alignment, coherence and style",
        files=((unifiedreward.HUB, checkpoint_files.WEIGHTS),), gigabytes=17.5, licence="MIT",
        gpu_dtype=torch.bfloat16,
    ),
    "nsfw": KnownReward(
        nsfw.load, "−P(not suitable for work) by Yahoo's OpenNSFW",
        files=((nsfw.PACKAGE, (nsfw.FILE,)),), gigabytes=0.024, licence="BSD-2-Clause", gpu_dtype=torch.float32,
    ),
    "brisque": KnownReward(
        brisque.load, "−BRISQUE, distortion measured by the statistics of the luminance",
        files=((brisque.PACKAGE, (brisque.SVM,)), (brisque.PACKAGE, (brisque.SCALING,))), gigabytes=0.0004,
        licence="Apache-2.0", gpu_dtype=torch.float32,
    ),
}  # fmt: skip


def catalogue() -> list[ListedReward]:
    """List the known rewards. Only the disk is looked at: nothing is downloaded."""
    return [
        ListedReward(
            name, known.summary, known.differentiable, known.gigabytes, _is_present(name, known), known.licence,
            " + ".join(dict.fromkeys(home for home, _ in known.files)),
        )
        for name, known in REWARDS.items()
    ]  # fmt: skip


def _is_present(name: str, known: KnownReward) -> bool:
    """Return whether all files of a reward are on this machine."""
    if known.load is _embedded:
        return (world_of(name).weights / name / "model.safetensors").is_file()
    return all(checkpoint_files.is_local(home, names) for home, names in known.files)
