"""Any stock diffusers pipeline as a `GuidedModel`, by observation: its own call is recorded, never rebuilt."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from weakref import ref

import torch
from torch import Tensor

from nulltta.contracts import Embedding, GuidedModel, NoiseStep
from nulltta.errors import InvalidValue, first_line
from nulltta.images import digest
from nulltta.models import conditioning, distilled, guidance, observation, prompts, proof
from nulltta.models.attention import Attended
from nulltta.models.checks import refuse_unusable, require_call
from nulltta.models.complaints import is_theirs, their_errors_in_words
from nulltta.models.conditioning import Conditioning, alike, lacks_text_encoder
from nulltta.models.decoding import Decoder
from nulltta.models.findings import Findings
from nulltta.models.frozen import Frozen
from nulltta.models.latents import NoNullBranch
from nulltta.models.recording import BESIDE, DENOISERS, SCALE, StepRecord, Watch, denoisers, first_tensor
from nulltta.models.restoring import float32_by_default
from nulltta.models.shells import Shells, cut, lengths_of, require_one_shape, stacked
from nulltta.models.sources import for_call
from nulltta.models.steps import ObservedStep, StepwiseModel
from nulltta.models.stock_call import StandIn, StockCall
from nulltta.models.timeline import Timeline, clock, observed_timeline, timeline
from nulltta.models.tree import leaves, replaced
from nulltta.prompts import EncodedPrompt

_LOG = logging.getLogger(__name__)


class ObservedModel(StepwiseModel):
    """A stock pipeline and the keyword arguments of its call.

    What is observed, and proven equal to the pipeline's own, is found when the model is first used (two denoiser
    evaluations and two of the decoder). The pipeline stays as it is between uses, and is read anew at each: a
    scheduler that was swapped is the one that counts, and a denoiser or decoder that was swapped is observed again.

    An embedding's names are the paths of the denoiser's arguments, such as "encoder_hidden_states" or
    "added_cond_kwargs.text_embeds"; its tensors are float32, and cast where they are used.

    Attributes:
        pipeline: the caller's.
        call: keyword arguments of its `__call__`, passed through in every recording.
        null: "text", the encoded negative prompt; "zeros", what the pipeline does without a negative prompt where it
            is empty; "open", the encoded one with its mask opened to the padding.
        tiny_decoder: what decodes at the detail "tiny".
        recompute: whether the denoisers' activations are recomputed in the backward pass instead of being stored.
        recompute_decoder: whether the decoder's are too.
        scored_frames: of a video, how many frames `decode` returns, evenly spaced; None for all.
        attended: what of its attention modules is guided, as far as `nag` has found out.
    """

    def __init__(self, pipeline: Any, name: str, call: Mapping[str, Any] | None = None, null: str = "text") -> None:
        self.pipeline, self.name, self.null = pipeline, name, null
        options, given = conditioning.split(call or {})
        self.stock = StockCall(pipeline, options, none_for_empty=null == "zeros", conditioning=given)
        self.tiny_decoder: Any = None
        self.scored_frames: int | None = None
        self._lock = threading.RLock()
        self._found: Findings | None = None
        self._observed: list[Any] = []
        self._decoder: Decoder | None = None
        self._shells: Any = None
        self._timelines: dict[Any, Timeline] = {}
        self._frozen: dict[str, Frozen] = {}
        self.attended: dict[Any, Attended] = {}
        self.recompute = self.recompute_decoder = False

    # What is observed

    @property
    def found(self) -> Findings:
        """The findings, proven.

        Raises:
            InvalidValue: what is not found, or not as found, in one line.
        """
        with self._lock, torch.enable_grad():  # a caller may have switched gradients off
            if self._found is None or self._networks != self._observed:
                self._observed, self._timelines = self._networks, {}
                try:
                    with their_errors_in_words(self.pipeline):
                        return self._observe()
                except BaseException:
                    self._found = self._decoder = None
                    raise
            return self._found

    def _observe(self) -> Findings:
        """Observe the call and prove what is found, with a second call where it has no null branch, and of one prompt
        where two fail, as they do in a call that takes one picture per prompt."""
        given, of_two = self.stock, None
        while True:
            self._found = None
            try:
                found = self._attempt()
            except NoNullBranch:
                self.stock = replace(self.stock, second=True)
                continue
            except Exception as error:
                if self.stock.rows > 1 and (is_theirs(error) or isinstance(error, proof.NotEqual)):
                    of_two, self.stock = error, replace(self.stock, rows=1)
                    continue
                self.stock = given
                if of_two is not None and self._found is not None and is_theirs(error):
                    raise of_two from None  # the call of one prompt was followed, so that the first complaint counts
                raise
            if of_two is not None:
                kind = type(self.pipeline).__name__
                _LOG.info("%s is followed with one prompt at a time: with two, %s", kind, first_line(of_two))
            return found

    def _attempt(self) -> Findings:
        """Observe the call as `stock` makes it, and prove what is found."""
        found, first = observation.observe(self.stock)
        self._found, self._shells = found, Shells(found)
        self._decoder = Decoder(self.pipeline, found)
        self._prove(first)
        return found

    @property
    def _networks(self) -> list[Any]:
        """The pipeline's denoisers and its decoder: what is found holds for these."""
        return [vars(self.pipeline).get(name) for name in (*DENOISERS, "vae")]

    @property
    def networks(self) -> list[torch.nn.Module]:
        """The denoisers, and the network beside them."""
        beside = getattr(self.pipeline, BESIDE, None)
        return [*denoisers(self.pipeline).values(), *([] if beside is None else [beside])]

    @property
    def distilled(self) -> str | None:
        """What shows that the model was distilled to run without classifier-free guidance; None if nothing does."""
        return distilled.reason(self.pipeline)

    @property
    def dtype(self) -> torch.dtype:
        """What the denoiser computes in."""
        dtype: torch.dtype = next(iter(denoisers(self.pipeline).values())).dtype
        return dtype

    @property
    def differentiable(self) -> bool:
        """Whether the decoder gives a gradient, as proven."""
        assert self.found
        assert self._decoder is not None
        return self._decoder.differentiable

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """The shape of one latent, as the decoder sees it."""
        return self.found.shape

    @property
    def scheduler(self) -> Any:
        """The pipeline's own."""
        return self.pipeline.scheduler

    @property
    def details(self) -> Sequence[str]:
        """The details that `decode` takes."""
        return ("full",) if self.tiny_decoder is None else ("full", "tiny")

    def enable_checkpointing(self) -> bool:
        """Recompute the denoisers' activations in the backward pass from now on; at a second call the decoder's too."""
        if self.recompute and self.recompute_decoder:
            return False
        self.recompute, self.recompute_decoder = True, self.recompute
        return True

    # The contract

    def called(self, **call: Any) -> GuidedModel:
        """The same pipeline, or its family's for pictures, under further arguments of its call.

        Raises:
            InvalidValue: if its call has no such argument.
        """
        if not call:
            return self
        pipeline = for_call(self.pipeline, call)
        require_call(pipeline, {**self.stock.options, **call})
        other = ObservedModel(pipeline, self.name, {**self.stock.options, **call}, self.null)
        other.stock = replace(other.stock, conditioning=self.stock.conditioning)
        other.tiny_decoder, other.scored_frames = self.tiny_decoder, self.scored_frames
        other.recompute, other.recompute_decoder = self.recompute, self.recompute_decoder
        return other

    def encode(self, texts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        """The prompts' and the negative prompts' embeddings, by a recording whose denoiser computes nothing."""
        refuse_unusable(self.pipeline)
        self._take_example(texts, negatives)
        found = self.found
        self.stock.require_negatives(negatives)
        with self._lock, torch.no_grad():
            mixed = self.stock.none_for_empty and len({bool(negative) for negative in negatives}) > 1
            together = not (found.alone or found.singly) and not mixed
            if together and alike(texts) and alike(negatives):
                return self._encoded(texts, negatives)
            pairs = [self._encoded([text], [negative]) for text, negative in zip(texts, negatives, strict=True)]
        cond, null = ([pair[i] for pair in pairs] for i in (0, 1))
        if not found.alone:
            require_one_shape(cond)
        return stacked(cond), stacked(null)

    def _take_example(self, texts: Sequence[str], negatives: Sequence[str]) -> None:
        """Where no text can be encoded, let the recordings vary the first prompt's embeddings instead."""
        with self._lock:
            first, null = texts[0], negatives[0]
            if self._found is not None or not lacks_text_encoder(self.pipeline):
                return
            if isinstance(first, EncodedPrompt) and isinstance(null, EncodedPrompt):
                example = Conditioning(first.embeds, null.embeds, probes=True)
                self.stock = replace(self.stock, conditioning=example)

    def encode_null(self, text: str, negative: str) -> Embedding:
        """φ of one negative prompt, with the gradient that was switched on inside a text encoder (`LearntTokens`)."""
        refuse_unusable(self.pipeline)
        assert self.found
        with self._lock, torch.enable_grad():
            return self._encoded([text], [negative])[1]

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """The steps of the pipeline's own call, as many as asked for."""
        return list(self._timeline(num_inference_steps).steps)

    def asked(self, num_inference_steps: int) -> int:
        """The number of steps to ask the pipeline's call for so that it takes so many, in an image-to-image call."""
        return self._timeline(num_inference_steps).asked

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """x_T, (batch, *shape): the pipeline's own for this noise, drawn in float32 in the pipeline's order."""
        return self.first_latents(batch, generator, self.found.steps)

    def first_latents(self, batch: int, generator: torch.Generator, num_inference_steps: int) -> Tensor:
        """The latents of the first of so many steps: `initial_latents`, or those made of a picture."""
        found = self.found
        begun = self._timeline(num_inference_steps if found.initial.base is not None else found.steps)
        shape = (batch, *found.drawn)
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
        return self.from_pipeline(begun.initial(noise)) / begun.steps[0].unit

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """One branch of the denoiser, in float32 and the model's layout of latents."""
        found = self.found
        assert isinstance(step, ObservedStep)
        if found.singly and len(x) > 1:
            return row_by_row(self.predict, x, step, embedding)
        if not found.alone:
            return self._predict(found, x, step, embedding)
        names, lengths = lengths_of(found, embedding)
        groups = sorted({tuple(row) for row in lengths.tolist()})
        output = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for group in groups:
            rows = (lengths == torch.tensor(group, device=lengths.device)).all(1).nonzero().flatten()
            whole = len(groups) == 1
            part = {name: tensor if whole else tensor[rows] for name, tensor in embedding.items()}
            part |= {name: part[name][:, :length] for name, length in zip(names, group, strict=True)}
            each = self._predict(found, x if whole else x[rows], step, part)
            output = each if whole else output.index_copy(0, rows, each)
        return output

    def predict_together(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """`predict` in one call of the denoiser, whatever the lengths of the texts.

        Raises:
            InvalidValue: if the texts' lengths differ and the denoiser takes texts of one length only.
        """
        found = self.found
        assert isinstance(step, ObservedStep)
        if not found.alone:
            return self._predict(found, x, step, embedding)
        names, lengths = lengths_of(found, embedding)
        texts = {name: cut(embedding[name], lengths[:, i].tolist()) for i, name in enumerate(names)}
        return self._predict(found, x, step, {**embedding, **texts})

    def guide(self, null: Tensor, cond: Tensor, scale: float) -> Tensor:
        """The pipeline's own combination of its two branches."""
        found = self.found
        rule = guidance.RULES[found.rule]
        if found.rule in guidance.ELEMENTWISE:
            return rule(null, cond, scale)
        return self.from_pipeline(rule(self.to_pipeline(null), self.to_pipeline(cond), scale))

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Images (N, 3, H, W), or frames (N, F, 3, H, W), in [0, 1]; no gradient where the decoder clamps."""
        found = self.found
        assert self._decoder is not None
        if detail == "tiny":
            if self.tiny_decoder is None:
                raise InvalidValue("this model has no tiny decoder: load one with it (tiny_decoder)")
            return self._decoder.tiny(self.tiny_decoder, x0)
        if detail != "full":
            raise InvalidValue(f"unknown detail '{detail}': choose one of full, tiny")
        self._decoder.recompute = self.recompute_decoder
        with float32_by_default():
            size = 1 if found.singly else len(x0)
            images = torch.cat([self._decoder(x0[i : i + size]) for i in range(0, len(x0), size)])
        if self.scored_frames is None or images.dim() < 5:
            return images
        kept = torch.linspace(0, images.shape[1] - 1, self.scored_frames).round().long()
        return images[:, kept.to(images.device)]

    def placement(self, num_inference_steps: int) -> dict[str, Any]:
        """Where the null branch is in the pipeline's own calls, in JSON's types, for `NullText.apply`.

        joint: the branches are rows of one call; null_first: the null branch comes first; time: the path of an
        argument that tells the denoiser the time, and its value at each step; call: the call's plain arguments;
        pictures: hashes of its pictures; second: the calls have no null branch; zeros: a call without a negative prompt
        has zeros there; axes: which dimension holds an argument's rows; repeats: how many of them belong to one image;
        aliases: which of the denoiser's paths those of the network beside it repeat.
        """
        found = self.found
        path, values = clock(self._timeline(num_inference_steps).steps)
        plain = {k: v for k, v in self.stock.options.items() if isinstance(v, bool | int | float | str)}
        where = {"joint": found.joint, "null_first": found.null_first, "call": plain}
        where["time"] = {"path": path, "values": values}
        if found.axes:
            where["axes"] = dict(found.axes)
        if found.repeats:
            where["repeats"] = dict(found.repeats)
        if found.aliases:
            where["aliases"] = dict(found.aliases)
        if self.stock.second:
            where["second"] = True
        if getattr(self.pipeline.config, "force_zeros_for_empty_prompt", False):
            where["zeros"] = True
        if pictures := {name: hashed for name, value in self.stock.options.items() if (hashed := digest(value))}:
            where["pictures"] = pictures
        return where

    # Layouts

    def to_pipeline(self, x: Tensor) -> Tensor:
        """Latents in the scheduler's layout."""
        found = self.found
        flat = x.flatten(1) if found.to_sample is None else x.flatten(1)[:, found.to_sample.to(x.device)]
        return flat.reshape(len(x), *found.sample)

    def from_pipeline(self, latents: Tensor) -> Tensor:
        """The scheduler's latents in the model's layout."""
        found = self.found
        index = found.from_sample
        flat = latents.flatten(1) if index is None else latents.flatten(1)[:, index.to(latents.device)]
        return flat.reshape(len(latents), *found.shape)

    # Recordings

    def _encoded(self, texts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        found = self.found
        watch = Watch(StandIn(found.template, len(texts)), stop_at="step")
        with their_errors_in_words(self.pipeline):
            seen = self.stock.recorded(texts, negatives, found.steps, watch)
        cond, null = self._shells.embeddings(seen.steps[0])
        prompts.warn_if_cut(self.pipeline, seen.token_ids, [*texts, *negatives], (cond, null))
        if self.null == "open":
            if not found.masks:
                raise InvalidValue("this model has no null 'open': its null text has no mask")
            null |= {path: torch.ones_like(null[path]) for path in found.masks}
        return cond, null

    def _timeline(self, num_inference_steps: int) -> Timeline:
        trained = int(self.pipeline.scheduler.config.num_train_timesteps)
        if num_inference_steps > trained:
            raise InvalidValue(f"is above the {trained} steps of the model's training", field="num_inference_steps")
        found, scheduler = self.found, self.pipeline.scheduler
        key = num_inference_steps, ref(scheduler), repr(vars(scheduler).get("_shift")), repr(scheduler.config)
        with self._lock:
            if key not in self._timelines:
                with torch.enable_grad(), their_errors_in_words(self.pipeline):
                    self._timelines[key] = timeline(self.stock, found, num_inference_steps)
            return self._timelines[key]

    def _predict(
        self, found: Findings, x: Tensor, step: ObservedStep, embedding: Mapping[str, Tensor | list[Tensor]]
    ) -> Tensor:
        call = self._shells.filled(x, step, embedding)
        arguments = dict(call.arguments)
        with float32_by_default():
            if BESIDE in arguments:
                beside = self._network(BESIDE)(**arguments.pop(BESIDE))
                outputs = leaves(beside)
                arguments = replaced(arguments, {path: outputs[output] for path, (_, output) in call.wires.items()})
            output = first_tensor(self._network(step.component)(**arguments))
        prediction = observation.prediction(output.float(), found.sample, found.predicted)
        return self.from_pipeline(prediction if found.sign == 1 else -prediction)

    def _network(self, component: str) -> Frozen:
        """A denoiser as a constant function; made anew where the pipeline's was swapped."""
        module = getattr(self.pipeline, component)
        if component not in self._frozen or self._frozen[component].network is not module:
            self._frozen[component] = Frozen(module, beside_others=True)
        self._frozen[component].recompute = self.recompute
        return self._frozen[component]

    def _prove(self, first: StepRecord) -> None:
        """The recorded step, predicted by us; the decoder's input and images, made by us."""
        found = self.found
        assert self._decoder is not None
        cond, null = self._shells.embeddings(first)
        if not any(tensor.is_floating_point() for tensor in null.values()):
            raise InvalidValue("the denoiser is given no embedding of the text in this call: there is no null text")
        steps = observed_timeline(self.stock, found).steps
        with torch.no_grad():
            x = self.from_pipeline(first.sample.float()) / steps[0].unit
            eps_null, eps_cond = (self.predict(x, steps[0], each) for each in (null, cond))
            ours = self.to_pipeline(self.guide(eps_null, eps_cond, SCALE))
            proof.require_equal("the replayed prediction", ours, first.model_output, self.dtype)
            proof.prove_decoder(self.stock, found, self._decoder, len(steps))


def row_by_row(
    predict: Callable[[Tensor, NoiseStep, Embedding], Tensor], x: Tensor, step: NoiseStep, embedding: Embedding
) -> Tensor:
    """Predict each row of a batch by itself."""
    texts = [{name: tensor[i : i + 1] for name, tensor in embedding.items()} for i in range(len(x))]
    return torch.cat([predict(x[i : i + 1], step, text) for i, text in enumerate(texts)])
