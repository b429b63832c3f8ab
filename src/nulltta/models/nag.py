"""A model under normalized attention guidance: one prediction of the prompt's and the null text's conditioning.

Classifier-free guidance combines two predictions; NAG (arXiv 2505.21179) combines two attention outputs inside one
prediction (`attention`). Seen from the sampler, φ' then conditions a branch that is guided already. The embedding of
that branch holds, beside φ', the prompt's own c. c is not optimised: it is held as integers, which an `Embedding`
keeps fixed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any
from weakref import ref

import torch
from torch import Tensor, nn

from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel, ModelWrapper, NoiseStep
from nulltta.errors import DoesNotFit, InvalidValue
from nulltta.models.attention import (
    Attended,
    AttentionGuidance,
    find_image_tokens,
    guided,
    guided_across,
    randomised,
)
from nulltta.models.frozen import Surrounding, surrounded
from nulltta.models.observed import ObservedModel, row_by_row
from nulltta.models.shells import BRANCH, LENGTH
from nulltta.models.steps import ObservedStep

PROMPT = "prompt."
"""What the names of the prompt's tensors begin with in an embedding of the guided branch."""


def with_guidance(model: GuidedModel, config: NullTTAConfig) -> GuidedModel:
    """Return a model under the guidance that a configuration names.

    Raises:
        InvalidValue: if the model cannot be guided in that way.
    """
    if model.predicts_guided:
        return model
    if config.guidance == "cfg":
        if model.distilled:
            raise InvalidValue(
                f"cannot be cfg: this model is guidance-distilled ({model.distilled}), so that its null branch means "
                "nothing to it; choose nag",
                field="guidance",
            )
        return model
    if not isinstance(model, ObservedModel):
        raise InvalidValue(f"must be cfg for a {type(model).__name__}: it has no attention to guide", field="guidance")
    return AttentionGuided(model, guidance_of(config), config.guidance_scale if config.guidance == "cfg+nag" else None)


def unguided(model: GuidedModel) -> GuidedModel:
    """Return the model that a guided one was made of; any other as it is."""
    return model.model if isinstance(model, AttentionGuided) else model


def guidance_of(config: NullTTAConfig) -> AttentionGuidance:
    """Return NAG's settings of a configuration."""
    return AttentionGuidance(config.nag_scale, config.nag_tau, config.nag_alpha, config.nag_norm)


class AttentionGuided(ModelWrapper):
    """An observed model whose prediction of the null branch is guided already, inside attention.

    The prompt's and the null text's conditionings are the two halves of one batch, so that a prediction costs two
    denoiser branches. Where texts are read by cross-attention alone, it costs one (`attention.guided_across`).
    Classifier-free guidance on top costs one more.

    Pooled embeddings reach the image outside attention, so that they are the prompt's in both halves. They are part of
    φ' only where classifier-free guidance is applied on top.

    Args:
        model: the observed model.
        guidance: Z of Z⁺ and Z⁻.
        scale: s of the classifier-free guidance that is applied on top, with the same φ'; None for none.
    """

    model: ObservedModel

    def __init__(self, model: ObservedModel, guidance: AttentionGuidance, scale: float | None = None) -> None:
        super().__init__(model)
        self.guidance, self.scale, self.predicts_guided = guidance, scale, True

    def called(self, **call: Any) -> GuidedModel:
        """The same model under further arguments of its pipeline's call, guided alike."""
        model = self.model.called(**call)
        assert isinstance(model, ObservedModel)
        return AttentionGuided(model, self.guidance, self.scale)

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """What attention reads of prompts and negative prompts, each beside the prompts' whole conditioning."""
        cond, null = self.model.encode(prompts, negatives)
        held = {PROMPT + name: _fixed(tensor) for name, tensor in cond.items()}
        own = [tokens_of(branch) if self.scale is None else dict(branch) for branch in (cond, null)]
        return own[0] | held, own[1] | held

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """The guided prediction under the prompt's conditioning and φ'.

        Raises:
            DoesNotFit: if φ' has another length than the prompt's text, where one branch is taken.
        """
        if self.model.found.singly and len(x) > 1:
            return row_by_row(self.predict, x, step, embedding)
        cond, null = _parted(embedding)
        if self.guidance.scale == 0:
            return self._with_scale(x, step, null, self.model.predict(x, step, cond))
        both, networks = _joined(cond, cond | tokens_of(null)), self.model.networks
        found = self._attended(x, step, both)
        if found.crossed:
            name = next(iter(tokens_of(null)))
            text, own = null[name], cond[name]
            if text.shape[1:] != own.shape[1:]:
                raise DoesNotFit(
                    f"the prompt's embedding ('{name}') has shape {tuple(own.shape[1:])}, the null text "
                    f"{tuple(text.shape[1:])}: this denoiser takes texts of one length in one call"
                )
            with surrounded(partial(guided_across, networks, found.image, self.guidance, text)):
                prediction = self.model.predict(x, step, cond)
        else:
            around = partial(guided, networks, found.image, self.guidance)
            prediction = self._predict(torch.cat([x, x]), step, both, around)[: len(x)]
        return self._with_scale(x, step, null, prediction)

    def crossed(self, null: Embedding) -> bool:
        """Whether the guided prediction takes one branch, as found for these texts."""
        if self.guidance.scale == 0:
            return False
        cond, null = _parted({name: tensor[:1] for name, tensor in null.items()})
        steps = self.model.found.steps
        x = self.model.first_latents(1, torch.Generator().manual_seed(0), steps).to(next(iter(cond.values())).device)
        return self._attended(x, self.model.schedule(steps)[0], _joined(cond, cond | tokens_of(null))).crossed

    def guide(self, null: Tensor, cond: Tensor, scale: float) -> Tensor:  # noqa: ARG002 - it is guided already
        """The prediction of the null branch as it is."""
        return null

    def placement(self, num_inference_steps: int) -> Mapping[str, Any]:
        """Where the null text is in the pipeline's calls, and which of their arguments have rows, or are latents."""
        found = self.model.found
        where = self.model.placement(num_inference_steps)
        return {**where, "rows": sorted(found.rows), "latents": sorted(found.latents)}

    def _with_scale(self, x: Tensor, step: NoiseStep, null: Embedding, prediction: Tensor) -> Tensor:
        """Apply classifier-free guidance on top, where that is asked for."""
        if self.scale is None:
            return prediction
        return self.model.guide(self.model.predict(x, step, null), prediction, self.scale)

    def _predict(self, x: Tensor, step: NoiseStep, both: Embedding, around: Surrounding) -> Tensor:
        """Evaluate a batch of two halves within a context."""
        with surrounded(around):
            return self.model.predict_together(x, step, both)

    def _attended(self, x: Tensor, step: NoiseStep, both: Embedding) -> Attended:
        """Return what is guided of each attention module, found once for texts of one length."""
        assert isinstance(step, ObservedStep)
        shapes = tuple(
            (name, int(tensor.max()) if name.endswith(LENGTH) else tuple(tensor.shape[1:]))
            for name, tensor in both.items()
        )
        key = ref(getattr(self.pipeline, step.component)), tuple(x.shape[1:]), shapes
        found = self.model.attended
        if key not in found:
            with torch.no_grad():
                found[key] = self._find(x, step, both)
        return found[key]

    def _find(self, x: Tensor, step: NoiseStep, both: Embedding) -> Attended:
        """Find the image tokens by two evaluations of one row per half with random texts, which are the halves' own in
        the second and one text in the first."""
        x, generator = x[:1], torch.Generator().manual_seed(0)
        firsts = {name: torch.stack([tensor[0], tensor[len(tensor) // 2]]) for name, tensor in both.items()}
        texts = {name: randomised(tensor, generator) for name, tensor in firsts.items()}
        one_text = {name: _halves_alike(name, tensor) for name, tensor in texts.items()}
        others, read = torch.randn(x.shape, generator=generator).to(x), list(tokens_of(texts))
        return find_image_tokens(
            self.model.networks,
            self.guidance,
            lambda around: self._predict(torch.cat([x, others]), step, one_text, around),
            lambda around: self._predict(torch.cat([x, x]), step, texts, around),
            texts[read[0]] if len(read) == 1 else None,
        )


def tokens_of(embedding: Embedding) -> dict[str, Tensor]:
    """Return what attention reads: tensors (B, tokens, width), and the masks and lengths that belong to them."""
    return {
        name: tensor
        for name, tensor in embedding.items()
        if tensor.dim() > 2 or (name != BRANCH and not tensor.is_floating_point())
    }


def without_prompt(embedding: Embedding) -> dict[str, Tensor]:
    """Return φ' alone, without the prompt's conditioning beside it."""
    return {name: tensor for name, tensor in embedding.items() if not name.startswith(PROMPT)}


def _parted(embedding: Embedding) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return c, and φ' with the prompt's own tensors where it has none."""
    held = {name.removeprefix(PROMPT): tensor for name, tensor in embedding.items() if name.startswith(PROMPT)}
    cond = {name: _released(tensor) for name, tensor in held.items()}
    return cond, cond | without_prompt(embedding)


def _fixed(tensor: Tensor) -> Tensor:
    """Return a tensor that an `Embedding` keeps fixed: the bits of a float32 as int32; other numbers as int64."""
    return tensor.view(torch.int32) if tensor.is_floating_point() else tensor.long()


def _released(tensor: Tensor) -> Tensor:
    """Return the inverse of `_fixed`."""
    return tensor.view(torch.float32) if tensor.dtype == torch.int32 else tensor


def _joined(cond: Embedding, null: Embedding) -> dict[str, Tensor]:
    """Return both halves as one batch; texts of different lengths are padded with zeros, as in `ObservedModel`."""
    joined: dict[str, Tensor] = {}
    for name, tensor in cond.items():
        halves: tuple[Tensor, ...] = tensor, null[name]
        if tensor.shape[1:] != null[name].shape[1:]:  # tokens, or the mask over them
            longest = max(half.shape[1] for half in halves)
            fill = (0, 0) * (tensor.dim() - 2)
            halves = tuple(nn.functional.pad(half, (*fill, 0, longest - half.shape[1])) for half in halves)
        joined[name] = torch.cat(halves)
    return joined


def _halves_alike(name: str, both: Tensor) -> Tensor:
    """Return the first half of a batch's tensor twice; of two lengths, the longer."""
    first, second = both.chunk(2)
    return torch.cat([torch.maximum(first, second) if name.endswith(LENGTH) else first] * 2)
