"""The contract of a model: one question per method, one branch of guidance at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Self, TypeAlias

import torch
from torch import Tensor

from nulltta.errors import InvalidValue

Embedding: TypeAlias = Mapping[str, Tensor]
"""The conditioning of one branch: named tensors with first dimension B. Stable Diffusion: {"tokens": (B, 77, 768)}.

Floating-point tensors are optimised; integer and boolean tensors (a mask, a length) are fixed."""


@dataclass(frozen=True, slots=True)
class NoiseStep:
    """One step of a model's sampling schedule.

    Attributes:
        timestep: t, on the scale of the model's training schedule; a whole number for diffusion models.
        alpha_bar: ᾱ_t, the share of signal in the latent's variance.
        alpha_bar_previous: ᾱ of the less noisy latent that this step leads to.
        consistency: the coefficient of ‖ε̃(φ') − ε̃(φ)‖² in the objective, (1−α_t)/(2α_t(1−ᾱ_t)), expressed for
            the quantity that `GuidedModel.predict` returns (ε, v or a flow's velocity).
        eta: the share of the posterior's standard deviation that is drawn anew: 0 deterministic, 1 ancestral.
        own_eta: the share that the model's own scheduler draws; above 1 where it draws more than the posterior's, as a
            consistency model's does, which draws all noise anew.
    """

    timestep: float
    alpha_bar: float
    alpha_bar_previous: float
    consistency: float
    eta: float = 1.0
    own_eta: float = 1.0

    def with_eta(self, eta: float | Literal["auto"]) -> Self:
        """Return the step at a share of the deviation; "auto" means the scheduler's own."""
        return replace(self, eta=self.own_eta if eta == "auto" else eta)

    @property
    def input_gain(self) -> float:
        """What the latent is multiplied by to become the denoiser's input; 1 unless the scheduler scales its inputs."""
        return 1.0

    @property
    def scale(self) -> float:
        """√(α² + σ²) of the latent x = α·x0 + σ·ε; 1 unless the model's path does not preserve the variance."""
        return 1.0

    @property
    def scale_next(self) -> float:
        """The same of the latent that this step leads to."""
        return 1.0


class GuidedModel(ABC):
    """A frozen diffusion model that predicts one branch at a time; guidance is applied by the caller.

    A subclass defines `name`, `latent_shape` and the abstract methods. Everything else that is asked of a model is
    declared here with a default. A video model decodes to (N, F, 3, H, W), and a reward's score of a video is the
    mean over its frames.

    Attributes:
        name: the name under which results are reported; `NullTTAConfig.preset` looks settings up by it.
        pipeline: the diffusers pipeline behind the model; None if there is none.
        scheduler: the scheduler whose noise levels the model takes; None if there is none.
        predicts_guided: whether `predict` is guided already under a null embedding, which then holds the prompt's
            conditioning too; `guide` returns it as it is, and the prompt's branch is not evaluated.
    """

    name: str
    pipeline: Any = None
    scheduler: Any = None
    predicts_guided: bool = False

    @property
    @abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent, (C, h, w)."""

    @property
    def distilled(self) -> str | None:
        """What shows that the model was distilled to run without classifier-free guidance. Default: nothing does."""
        return None

    @property
    def dtype(self) -> torch.dtype:
        """The type in which the denoiser computes. Gradients through float16 are computed with loss scaling."""
        return torch.float32

    @property
    def differentiable(self) -> bool:
        """Whether fully decoded images carry a gradient with respect to latents."""
        return True

    @abstractmethod
    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """Encode B prompts and B negative prompts.

        Returns:
            (c, φ), each with first dimension B, in float32 and without gradient.
        """

    @abstractmethod
    def schedule(self, num_inference_steps: int) -> Sequence[NoiseStep]:
        """Return the denoising steps, noisiest first."""

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """Draw x_T, (batch, C, h, w). Default: standard normal noise."""
        shape = (batch, *self.latent_shape)
        return torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)

    @abstractmethod
    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """Evaluate one branch of the denoiser at x (N, C, h, w): ε, v or velocity, (N, C, h, w)."""

    def guide(self, null: Tensor, cond: Tensor, scale: float) -> Tensor:
        """Combine the two branches' predictions. Default: classifier-free guidance, ε̃ = ε(φ) + s·(ε(c) − ε(φ))."""
        return null + scale * (cond - null)

    def crossed(self, null: Embedding) -> bool:  # noqa: ARG002
        """Whether `predicts_guided` takes one branch of the denoiser for the prompt and the null text, as it does where
        texts are read by cross-attention alone. Default: it takes two.

        Args:
            null: φ, first dimension B.
        """
        return False

    @abstractmethod
    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        """Return x̂0, Tweedie's estimate of the clean latent, (N, C, h, w)."""

    @abstractmethod
    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        """Return the Gaussian from which the next latent is drawn: its mean (N, C, h, w) and standard deviation."""

    @abstractmethod
    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Decode clean latents (N, C, h, w) to images (N, 3, H, W) in [0, 1], with gradient.

        Args:
            x0: clean latents.
            detail: "full"; or "tiny" for the model's small decoder, where it has one.

        Raises:
            InvalidValue: if the model has no decoder of that detail.
        """

    def first_latents(self, batch: int, generator: torch.Generator, num_inference_steps: int) -> Tensor:  # noqa: ARG002
        """Draw the latents of the first of so many steps. Default: `initial_latents`, whatever their number.

        A model that starts from a picture at a level of noise that depends on the number of steps overrides it.
        """
        return self.initial_latents(batch, generator)

    def called(self, **call: Any) -> GuidedModel:
        """Return the same model under further arguments of its pipeline's call. Default: it takes none.

        Raises:
            InvalidValue: if it does not take one of them.
        """
        for name in call:
            raise InvalidValue("is not an argument of this model", field=name)
        return self

    @property
    def details(self) -> Sequence[str]:
        """The details that `decode` takes: "full", and "tiny" for a model with a small decoder."""
        return ("full",)

    def enable_checkpointing(self) -> bool:
        """Recompute more activations in the backward pass from now on instead of storing them.

        Each call goes one stage further: first the denoiser's activations, then the decoder's.

        Returns:
            Whether there was a further stage. Default: there is none.
        """
        return False

    def placement(self, num_inference_steps: int) -> Mapping[str, Any]:  # noqa: ARG002 - optional
        """Return where the null branch is in `pipeline`'s own calls, in JSON's types. Default: nothing is known."""
        return {}

    def to_pipeline(self, x: Tensor) -> Tensor:
        """Convert latents (N, C, h, w) to the layout in which `pipeline` holds them. Default: the same."""
        return x

    def from_pipeline(self, latents: Tensor) -> Tensor:
        """Convert the pipeline's latents to (N, C, h, w); the inverse of `to_pipeline`."""
        return latents


class ModelWrapper(GuidedModel):
    """A model that answers as another one does; subclasses override what they change.

    Attributes:
        model: the wrapped model.
    """

    def __init__(self, model: GuidedModel) -> None:
        self.model = model
        self.name, self.pipeline, self.scheduler = model.name, model.pipeline, model.scheduler
        self.predicts_guided = model.predicts_guided

    @property
    def distilled(self) -> str | None:
        return self.model.distilled

    @property
    def latent_shape(self) -> tuple[int, ...]:
        return self.model.latent_shape

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @property
    def differentiable(self) -> bool:
        return self.model.differentiable

    def encode(self, prompts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        return self.model.encode(prompts, negatives)

    def schedule(self, num_inference_steps: int) -> Sequence[NoiseStep]:
        return self.model.schedule(num_inference_steps)

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        return self.model.initial_latents(batch, generator)

    def first_latents(self, batch: int, generator: torch.Generator, num_inference_steps: int) -> Tensor:
        return self.model.first_latents(batch, generator, num_inference_steps)

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        return self.model.predict(x, step, embedding)

    def guide(self, null: Tensor, cond: Tensor, scale: float) -> Tensor:
        return self.model.guide(null, cond, scale)

    def crossed(self, null: Embedding) -> bool:
        return self.model.crossed(null)

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        return self.model.predict_x0(x, prediction, step)

    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        return self.model.step_distribution(x, prediction, step)

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        return self.model.decode(x0, detail)

    @property
    def details(self) -> Sequence[str]:
        return self.model.details

    def enable_checkpointing(self) -> bool:
        return self.model.enable_checkpointing()

    def placement(self, num_inference_steps: int) -> Mapping[str, Any]:
        return self.model.placement(num_inference_steps)

    def to_pipeline(self, x: Tensor) -> Tensor:
        return self.model.to_pipeline(x)

    def from_pipeline(self, latents: Tensor) -> Tensor:
        return self.model.from_pipeline(latents)
