"""Using a learnt null text in the calls of a stock diffusers pipeline."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from nulltta.errors import DoesNotFit, InvalidValue
from nulltta.models import load_model
from nulltta.models.recording import BESIDE, denoisers
from nulltta.models.restoring import overruled
from nulltta.null_text.apply_nag import attention_guided
from nulltta.null_text.exact import (
    BatchLayout,
    in_batch_layout,
    recorded_config,
    recorded_scheduler,
    recording,
    steps_of,
)
from nulltta.null_text.first_version import renamed
from nulltta.null_text.replacement import Replacement

if TYPE_CHECKING:
    from nulltta.null_text.replacement import Applicable
    from nulltta.null_text.value import NullText


@contextmanager
def applied(null_text: Applicable, pipeline: Any, *, exact: bool = False, **call: Any) -> Iterator[None]:
    """Replace the null embedding of the pipeline's own calls inside the block by φ' at each step.

    The denoiser's arguments are replaced where the null text was found when it was learnt: in the null branch's rows,
    or in its call. Which those are follows from the size of the batch and from the scheduler's steps, so that calls
    without guidance are left alone and a call that fails disturbs no later one. The call's own guidance must be on
    (`guidance_scale`, or `true_cfg_scale` with a negative prompt); the call's negative prompt is overruled.

    Args:
        null_text: the null text.
        pipeline: a live diffusers pipeline of the kind for which it was made; it is left as it was found.
        exact: use the recorded noise too, by a scheduler in the place of the pipeline's own. Call the pipeline with the
            recorded number of steps, `latents=null_text.latents[None]` and one prompt. Denoiser and decoder see batches
            of the run's sizes, so that the bits are the run's (see `replay`).
        call: with `exact`, keyword arguments that the calls inside are given, such as `height` and `width`; by default
            those that the run was given.

    A null text that was learnt under normalized attention guidance belongs into calls without classifier-free guidance
    (a `guidance_scale` of 0 or 1, as the pipeline has it): see `nulltta.null_text.apply_nag`.

    Raises:
        DoesNotFit: if the null text was made for another pipeline or, with `exact`, holds no noise that fits.
        InvalidValue: if a call inside used another guidance than the one under which the null text was learnt.
    """
    null_text.require_fit(pipeline)
    where = null_text.about.get("where")
    if recorded_config(null_text.about).guidance != "cfg":
        with attention_guided(null_text, pipeline, exact=exact):
            yield
        return
    if where is not None and where.get("second"):
        raise DoesNotFit(
            "this pipeline's calls have no null branch: replay the null text instead, or learn it under nag"
        )
    model = None
    if exact or where is None:
        model = load_model(pipeline, **(call or (where or {}).get("call", {})))
        null_text = renamed(cast("NullText", null_text), model)  # a fitted null text always says where
        where = where or model.placement(len(null_text.timesteps))
    assert where is not None
    watch = Replacement(null_text, where)
    with ExitStack() as undo:

        def overrule(component: Any, name: str, value: Any) -> None:
            undo.enter_context(overruled(component, name, value))

        if exact:
            assert model is not None
            steps = steps_of(model, recorded_config(null_text.about))
            draws = recording(cast("NullText", null_text), model, steps)[1]
            overrule(pipeline, "scheduler", recorded_scheduler(pipeline.scheduler, model, steps, draws))
            layout = BatchLayout.recorded(null_text.about, len(null_text.timesteps))
            overrule(pipeline.vae, "decode", in_batch_layout(pipeline.vae.decode, lambda _: layout.decoded))
        for denoiser in denoisers(pipeline).values():
            forward, signature = denoiser.forward, getattr(denoiser, "_orig_mod", denoiser).forward
            if exact:
                forward = in_batch_layout(forward, partial(watch.position, layout))
            overrule(denoiser, "_compiled_call_impl", None)  # which would not see the forward that is put here
            overrule(denoiser, "forward", watch.around(forward, signature))
        if watch.aliases:
            network = getattr(pipeline, BESIDE)
            overrule(network, "forward", watch.beside(network.forward))
        overrule(pipeline, "prepare_latents", watch.begun(watch.beginning(pipeline)))
        overrule(pipeline.scheduler, "step", watch.stepped(pipeline.scheduler.step))
        yield
    if watch.calls and not watch.replaced:
        raise InvalidValue(
            "the null text had no effect: the call used no classifier-free guidance (give it a guidance scale above 1)"
        )
