"""Learnt null texts at work again: in a stock diffusers pipeline, or in our own sampler on other seeds and prompts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from nulltta.algorithm import randomness
from nulltta.algorithm.embeddings import is_free, transform
from nulltta.algorithm.objective import predict_branches
from nulltta.config import NullTTAConfig
from nulltta.contracts import Embedding, GuidedModel
from nulltta.errors import InvalidValue
from nulltta.models import adapter_of, load_model
from nulltta.models.shared import Wiring
from nulltta.null_text.batch_layout import BatchLayout
from nulltta.null_text.recorded_scheduler import recorded_scheduler
from nulltta.null_text.row_by_row import BatchPosition, in_batch_layout, in_batch_of_copies
from nulltta.null_text.value import NullText

SAMPLING = ("num_inference_steps", "guidance_scale", "eta")  # the settings that replay has a use for


@torch.no_grad()
def replay(
    model: GuidedModel | Any,
    null_text: NullText,
    *,
    prompt: str | None = None,
    seeds: Sequence[int] = (0,),
    config: NullTTAConfig | None = None,
    exact: bool = False,
    plain: bool = False,
) -> Tensor:
    """Images (N, 3, H, W) sampled under a learnt null text: no reward, no gradient, 2T denoiser branches an image.

    Args:
        model: a `GuidedModel`, a live diffusers pipeline, or what `load_model` takes.
        prompt: the one it was learnt for if None; another is transfer.
        seeds: one image a seed, from plain sampling's noise of that seed.
        config: steps, guidance scale and η; the ones it was learnt with if None. At another number of steps each
            step takes the φ' of the nearest timestep.
        exact: one image, from the recorded initial latent and step noise, instead of the seeds' own. Of a run of one
            prompt the networks see batches of the run's sizes, K candidates, which makes the image bit for bit the
            run's on the same kind of machine; of a run of several, or of another machine, it is so up to rounding.
        plain: with φ instead of φ': the same images as plain sampling makes, to compare with.

    Errors: `NullTTAError` if the null text does not fit the model, or `exact` lacks the noise or the steps.
    """
    model = model if isinstance(model, GuidedModel) else load_model(model)
    null_text.require_fit(model)
    config = config or recorded_config(null_text)
    steps = [_with_eta(step, config.eta) for step in model.schedule(config.num_inference_steps)]
    count = 1 if exact else len(seeds)
    cond, phi = model.encode([prompt or null_text.prompt] * count, [""] * count)
    _require_shapes(null_text.null, phi)
    device = next(iter(cond.values())).device
    if exact:
        recorded, draws = _recording(null_text, [step.timestep for step in steps])
        _require_latents(recorded, model)
        places = BatchLayout.recorded(null_text.about, len(steps))
        x = recorded[None].to(device)
    else:
        x = randomness.initial_latents(model, list(seeds), 1)[:, 0].to(device)
    for i, step in enumerate(steps):
        null = _rows(null_text.null if plain else null_text.at(step.timestep), count, device)
        if exact:
            eps_null = in_batch_of_copies(places.null(i), model.predict, x, step, null)
            eps_cond = in_batch_of_copies(places.cond(i), model.predict, x, step, cond)
            drawn = draws[i][None].to(device)
        else:
            eps_null, eps_cond = predict_branches(model, x, step, null, cond)
            drawn = randomness.seeded(seeds, i, x, 1)[:, 0]
        mean, std = model.step_distribution(x, model.guide(eps_null, eps_cond, config.guidance_scale), step)
        x = mean + std * drawn
    return in_batch_of_copies(places.decoded, model.decode, x) if exact else model.decode(x)


@contextmanager
def applied(null_text: NullText, pipeline: Any, *, exact: bool = False, **options: Any) -> Iterator[None]:
    """Inside, the pipeline's own calls use φ' at each step in place of their null embedding.

    One forward pre-hook on the denoiser does it for every family: it needs no argument of the call, and reaches the
    first step, before any callback. Batched pipelines evaluate [null; cond], and the first half is replaced;
    others evaluate cond and then null, and each second call of a timestep is replaced. The call's own guidance must
    be on (`guidance_scale`, or `true_cfg_scale` with a negative prompt); the call's negative prompt is overruled.

    exact: the recorded noise too, through a scheduler of ours in the pipeline's place until the end; call with the
        recorded number of steps, `latents=null_text.latents[None]` and one prompt. Denoiser and decoder see batches
        of the run's sizes (`replay`'s exact), so that the bits are the run's where those are.
    options: with exact, what was set on the run's model: `size` and `frames`, for families that have them.
    """
    null_text.require_fit(pipeline)
    wiring: Wiring = adapter_of(type(pipeline).__name__).WIRING
    hook = _Hook(null_text, wiring, pipeline)
    with ExitStack() as undo:

        def overrule(component: Any, name: str, value: Any) -> None:
            undo.callback(delattr, component, name)
            setattr(component, name, value)

        denoisers = wiring.denoisers_of(pipeline)
        for denoiser in denoisers:
            undo.callback(denoiser.register_forward_pre_hook(hook, with_kwargs=True).remove)
        if exact:
            places = BatchLayout.recorded(null_text.about, len(null_text.timesteps))
            for denoiser in denoisers:
                overrule(denoiser, "forward", in_batch_layout(denoiser.forward, partial(hook.place, places)))
            overrule(pipeline.vae, "decode", in_batch_layout(pipeline.vae.decode, lambda _: places.decoded))
            undo.callback(setattr, pipeline, "scheduler", pipeline.scheduler)
            pipeline.scheduler = _exact_scheduler(null_text, pipeline, options)
        yield
    if hook.calls and not hook.replaced:
        raise InvalidValue(
            "the null text had no effect: the call used no classifier-free guidance (give it a guidance scale above 1)"
        )


class _Hook:
    """A forward pre-hook: (module, args, kwargs) -> the same with the null branch's embedding replaced."""

    def __init__(self, null_text: NullText, wiring: Wiring, pipeline: Any) -> None:
        self.null_text, self.wiring = null_text, wiring
        denoiser = wiring.denoisers_of(pipeline)[0]
        scale = wiring.timestep_scale
        self.scale = float(getattr(denoiser.config, scale)) if isinstance(scale, str) else scale
        self.calls = self.replaced = 0
        self.last: float | None = None  # the last call's timestep
        self.nth = 0  # and how many calls it has had
        self.index = 0  # of the nearest step that was learnt

    def place(self, places: BatchLayout, row: int) -> BatchPosition:
        """Where the run evaluated what the pipeline's present call has in a row."""
        is_null = row == 0 if self.wiring.batched else self.nth % 2 == 0
        return places.null(self.index) if is_null else places.cond(self.index)

    def __call__(self, module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, Any] | None:
        del module
        sample: Any = args[0] if args else kwargs.get("hidden_states", kwargs.get("sample"))
        given = kwargs["timestep"] if "timestep" in kwargs else args[1]
        timestep = float(given.flatten()[0] if torch.is_tensor(given) else given) / self.scale
        self.calls += 1
        self.nth = self.nth + 1 if timestep == self.last else 1
        self.last, self.index = timestep, self.null_text.nearest(timestep)
        if not (_is_doubled(sample) if self.wiring.batched else self.nth % 2 == 0):
            return None
        self.replaced += 1
        null = self.null_text.values[self.index]
        kwargs = dict(kwargs)
        for name, place in self.wiring.tensors.items():
            outer, _, inner = place.partition(".")
            if inner:
                kwargs[outer] = {**kwargs[outer], inner: self._put(kwargs[outer][inner], null[name], sample)}
            else:
                kwargs[outer] = self._put(kwargs.get(outer), null[name], sample)
        return args, kwargs

    def _put(self, there: Tensor | None, null: Tensor, sample: Any) -> Tensor:
        if there is None:  # QwenImage gives no mask where every token counts
            return null[None].expand(len(sample), *null.shape).to(sample.device)
        rows = len(there) // 2 if self.wiring.batched else len(there)
        put = null[None].expand(rows, *null.shape).to(there)
        if not self.wiring.batched:
            return put
        if put.shape[1:] != there.shape[1:]:
            raise InvalidValue(
                f"the call's null embedding has shape {tuple(there.shape[1:])}, the null text {tuple(null.shape)}: "
                "leave max_sequence_length at its default"
            )
        return torch.cat([put, there[rows:]])


def _is_doubled(sample: Tensor) -> bool:
    """Whether a batch is the same latents twice, as classifier-free guidance has them."""
    half = len(sample) // 2
    return len(sample) == 2 * half and torch.equal(sample[:half], sample[half:])


def _exact_scheduler(null_text: NullText, pipeline: Any, options: dict[str, Any]) -> Any:
    model: Any = load_model(pipeline)
    for name, value in options.items():
        setattr(model, name, value)
    config = recorded_config(null_text)
    steps = [_with_eta(step, config.eta) for step in model.schedule(config.num_inference_steps)]
    draws = _recording(null_text, [step.timestep for step in steps])[1]
    return recorded_scheduler(pipeline.scheduler, model, steps, draws)


def _recording(null_text: NullText, timesteps: Sequence[float]) -> tuple[Tensor, Sequence[Tensor]]:
    if null_text.latents is None or null_text.noise is None:
        raise InvalidValue("this null text holds no noise to replay: save it with noise=True")
    if list(timesteps) != list(null_text.timesteps):
        raise InvalidValue("the model's timesteps are not the recorded ones: exact replay needs the same scheduler")
    return null_text.latents, null_text.noise


def _require_shapes(learnt: Embedding, encoded: Embedding) -> None:
    """Refuse a null text that is no embedding of this model's kind; its number of tokens may be another."""

    def kind(name: str, shape: Sequence[int], free: bool) -> Any:
        return name, free, len(shape), tuple(shape[-1:]) if free else ()

    ours = sorted(kind(name, tensor.shape, is_free(tensor)) for name, tensor in learnt.items())
    theirs = sorted(kind(name, tensor.shape[1:], is_free(tensor)) for name, tensor in encoded.items())
    if ours != theirs:
        shapes = (
            {name: tuple(t.shape) for name, t in learnt.items()},
            {n: tuple(t.shape[1:]) for n, t in encoded.items()},
        )
        raise InvalidValue(
            f"the null text does not fit this model: its tensors are {shapes[0]}, the model's {shapes[1]}"
        )


def _require_latents(recorded: Tensor, model: GuidedModel) -> None:
    if tuple(recorded.shape) != model.latent_shape:
        raise InvalidValue(
            f"the recorded latents have shape {tuple(recorded.shape)}, this model's {model.latent_shape}"
        )


def recorded_config(null_text: NullText) -> NullTTAConfig:
    """The settings of sampling that it was learnt with; others are the published ones, and play no part in replay.

    Raises:
        NullTTAError: its file gives one of them a value that none takes.
    """
    config = null_text.about.get("config", {})
    if not isinstance(config, Mapping):
        raise InvalidValue("the null text's record of its settings makes no sense")
    return NullTTAConfig(**{name: config[name] for name in SAMPLING if name in config})


def _rows(null: Embedding, count: int, device: torch.device) -> dict[str, Tensor]:
    return transform(null, lambda tensor: tensor[None].repeat(count, *[1] * tensor.dim()).to(device))


def _with_eta(step: Any, eta: float) -> Any:
    return replace(step, eta=eta)
