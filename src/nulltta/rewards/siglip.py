"""SigLIP and SigLIP 2, of fixed and of variable resolution (Zhai et al., arXiv 2303.15343; Tschannen et al.,
arXiv 2502.14786)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from nulltta.contracts import Reward
from nulltta.errors import LoadError
from nulltta.rewards import checkpoint_files, state_dict
from nulltta.rewards.dual_encoder import DualEncoder, unit
from nulltta.rewards.patches import NaflexPatches
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.sharing import shared

HUB = "google/siglip2-base-patch16-224"


class SiglipScore(Reward):
    """The probability that image and prompt belong together, σ(scale·cosine + bias), (B,) in [0, 1]."""

    def __init__(self, encoder: DualEncoder, name: str = "siglip") -> None:
        self.name, self.encoder = name, encoder
        self.scale = float(encoder.model.logit_scale.float().exp())
        self.bias = float(encoder.model.logit_bias.float())

    @property
    def networks(self) -> tuple[nn.Module, ...]:
        return (self.encoder.model,)

    def __call__(self, images: Tensor, prompts: Sequence[str]) -> Tensor:
        logits = self.scale * self.encoder.cosine(images, prompts) + self.bias
        return logits.sigmoid().to(images.device)


class NaflexEncoder(DualEncoder):
    """A `Siglip2Model`, which reads images in their own aspect ratio as up to 256 patches, or as many as its
    preprocessor_config.json says."""

    def image_features(self, images: Tensor) -> Tensor:
        """Encode images (B, 3, H, W) in [0, 1] as (B, F), with gradient."""
        patches, grid = self.preprocess(images.to(self.device))
        found = self.model.get_image_features(pixel_values=patches.to(self.dtype), spatial_shapes=grid)
        return unit(found.pooler_output)


def load(request: RewardRequest) -> SiglipScore:
    """Load a `SiglipModel` (SigLIP, and SigLIP 2 of fixed resolution) or a `Siglip2Model` (NaFlex).

    The source is a directory or a hub id. Prompts are lower-cased and padded to the text encoder's length (64), as in
    training.

    Raises:
        LoadError: if the source is not a SigLIP, or if a file is missing or damaged.
    """
    name, source = request.name, request.source or HUB
    path = checkpoint_files.find(source, checkpoint_files.WEIGHTS, reward=name, sha256=request.sha256)

    def make() -> DualEncoder:
        import transformers

        settings = checkpoint_files.read_json(source, "config.json", reward=name)
        kind = settings.get("model_type")
        if kind not in ("siglip", "siglip2"):
            raise LoadError(f"reward '{name}': '{source}' is a {kind} model, not a SigLIP")
        family = "Siglip2" if kind == "siglip2" else "Siglip"
        config = getattr(transformers, f"{family}Config").from_dict(settings)
        model = state_dict.fill(
            lambda: getattr(transformers, f"{family}Model")(config),
            state_dict.read(*checkpoint_files.shards(path, source, reward=name)),
            what=f"'{path}' is not such a SigLIP", device=request.device, dtype=request.dtype,
            ignore=("text_model.embeddings.position_ids", "vision_model.embeddings.position_ids"),
        )  # fmt: skip
        places = [str(path.parent), checkpoint_files.folder(source)]
        words = checkpoint_files.tokenizer("AutoTokenizer", places, reward=name)
        length = config.text_config.max_position_embeddings

        def tokenize(prompt: str) -> Tensor:  # the feature is taken at the last place, so the padding's side matters
            ids: Tensor = words(
                [prompt.lower()], padding="max_length", padding_side="right", truncation=True, max_length=length,
                return_tensors="pt",
            ).input_ids  # fmt: skip
            return ids

        pixels = checkpoint_files.image_processor(source, reward=name)
        if kind == "siglip2":
            return NaflexEncoder(model, NaflexPatches.from_config(pixels), tokenize, request.device)
        return DualEncoder(model, Preprocess.from_config(pixels), tokenize, request.device)

    return SiglipScore(shared(path, request.device, request.dtype, make), name)
