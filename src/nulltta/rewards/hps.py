"""Human Preference Score v2 and v2.1 (Wu et al., arXiv 2306.09341): the cosine of a fine-tuned ViT-H-14."""

from __future__ import annotations

from collections.abc import Mapping

from nulltta.rewards import checkpoint_files, open_clip, state_dict
from nulltta.rewards.clip import ClipScore, tokenizer
from nulltta.rewards.dual_encoder import DualEncoder
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.sharing import shared

HUB = "xswu/HPSv2"
FILES: Mapping[str, str] = {"hpsv2": "HPS_v2_compressed.pt", "hpsv2.1": "HPS_v2.1_compressed.pt"}


def load(request: RewardRequest) -> ClipScore:
    """Load the official checkpoint of "hpsv2" or "hpsv2.1".

    The official package resizes float tensors, so bicubic overshoot is not clipped and odd margins round to even;
    antialiasing is torchvision's default since 0.17. It runs under autocast on a GPU, where its scores differ from
    float32's in the fourth digit.

    Raises:
        LoadError: if the file is missing, damaged, or not such a checkpoint.
    """
    name = request.name
    path = checkpoint_files.find(request.source or HUB, [FILES[name]], reward=name, sha256=request.sha256)

    def make() -> DualEncoder:
        from transformers import CLIPConfig, CLIPModel

        what = f"'{path}' is not an HPSv2 checkpoint"
        state = state_dict.read(path)
        config = CLIPConfig.from_dict(open_clip.config(state, what))
        model = state_dict.fill(
            lambda: CLIPModel(config), open_clip.remap(state),
            what=what, device=request.device, dtype=request.dtype, ignore=open_clip.IGNORED,
        )  # fmt: skip
        side = config.vision_config.image_size
        preprocess = Preprocess((side, side), clamp=False, half="round")
        tokenize = tokenizer([str(path.parent)], config.text_config.max_position_embeddings, name)
        return DualEncoder(model, preprocess, tokenize, request.device)

    return ClipScore(shared(path, request.device, request.dtype, make), name)
