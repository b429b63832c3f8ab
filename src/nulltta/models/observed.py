"""Any stock diffusers pipeline as a `GuidedModel`, by observation: its own call is recorded, never rebuilt."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from nulltta.contracts import Embedding, GuidedModel, NoiseStep
from nulltta.errors import InvalidValue, NullTTAError, first_line, is_out_of_memory
from nulltta.models import conditioning, guidance, levels, prompts, proof
from nulltta.models import findings as observing
from nulltta.models.affine import Affine, gain_of
from nulltta.models.checks import refuse_unusable, require_call
from nulltta.models.conditioning import NEGATIVES, PROMPTS, Conditioning, alike, lacks_text_encoder
from nulltta.models.decoding import Decoder
from nulltta.models.findings import Findings, StandIn, StockCall, same, zero_probe
from nulltta.models.frozen import Frozen
from nulltta.models.levels import ObservedStep
from nulltta.models.recording import DENOISERS, Recording, StepRecord, Watch, denoisers, float32_by_default, record
from nulltta.models.sources import for_call
from nulltta.models.tree import leaves, replaced
from nulltta.prompts import EncodedPrompt

BRANCH = "branch"
"""The name, in an embedding, of which branch it conditions: 0 for null, 1 for cond. Only there where it matters."""
LENGTH = ".length"
"""What a tensor's name ends in that holds the lengths of another, padded one."""


class ObservedModel(GuidedModel):
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
        self._shells: dict[Any, _Shell] = {}
        self._timelines: dict[Any, list[ObservedStep]] = {}
        self._context: dict[bool, dict[str, Any]] = {}
        self._frozen: dict[str, Frozen] = {}
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
                    with _their_errors_in_words(self.pipeline):
                        found, first = observing.observe(self.stock)
                        self._found = found
                        self._decoder = Decoder(self.pipeline, found)
                        self._prove(first)
                except BaseException:
                    self._found = self._decoder = None
                    raise
            return self._found

    @property
    def _networks(self) -> list[Any]:
        """The pipeline's denoisers and its decoder: what is found holds for these."""
        return [vars(self.pipeline).get(name) for name in (*DENOISERS, "vae")]

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
        with self._lock, torch.no_grad():
            mixed = self.stock.none_for_empty and len({bool(negative) for negative in negatives}) > 1
            if not found.alone and not mixed and alike(texts) and alike(negatives):
                return self._encoded(texts, negatives)
            pairs = [self._encoded([text], [negative]) for text, negative in zip(texts, negatives, strict=True)]
        cond, null = ([pair[i] for pair in pairs] for i in (0, 1))
        if not found.alone:
            _require_one_shape(cond)
        return _stacked(cond), _stacked(null)

    def _take_example(self, texts: Sequence[str], negatives: Sequence[str]) -> None:
        """Where no text can be encoded, let the recordings vary the first prompt's embeddings instead."""
        with self._lock:
            first, null = texts[0], negatives[0]
            if self._found is not None or not lacks_text_encoder(self.pipeline):
                return
            if isinstance(first, EncodedPrompt) and isinstance(null, EncodedPrompt):
                example = Conditioning(first.embeds, null.embeds, probes=True)
                self.stock = replace(self.stock, conditioning=example)

    def schedule(self, num_inference_steps: int) -> list[NoiseStep]:
        """The steps of the pipeline's own call, as many as asked for."""
        found, scheduler = self.found, self.pipeline.scheduler
        trained = int(scheduler.config.num_train_timesteps)
        if num_inference_steps > trained:
            raise InvalidValue(f"is above the {trained} steps of the model's training", field="num_inference_steps")
        key = num_inference_steps, id(scheduler), repr(vars(scheduler).get("_shift")), repr(scheduler.config)
        with self._lock:
            if key not in self._timelines:
                self._timelines[key] = self._timeline(found, num_inference_steps)
            return list(self._timelines[key])

    def initial_latents(self, batch: int, generator: torch.Generator) -> Tensor:
        """x_T, (batch, *shape): the pipeline's own for this noise, drawn in float32 in the pipeline's order."""
        found = self.found
        start = self.schedule(found.steps)[0]
        assert isinstance(start, ObservedStep)
        shape = (batch, *found.drawn)
        noise = torch.randn(shape, generator=generator, device=generator.device, dtype=torch.float32)
        return self._from_scheduler(found.initial(noise)) / start.unit

    def predict(self, x: Tensor, step: NoiseStep, embedding: Embedding) -> Tensor:
        """One branch of the denoiser, in float32 and the model's layout of latents."""
        found = self.found
        assert isinstance(step, ObservedStep)
        if not found.alone:
            return self._predict(found, x, step, embedding)
        lengths = torch.stack([embedding[name + LENGTH] for name in found.text if name + LENGTH in embedding], 1)
        groups = sorted({tuple(row) for row in lengths.tolist()})
        output = torch.zeros(x.shape, dtype=torch.float32, device=x.device)
        for group in groups:
            rows = (lengths == torch.tensor(group, device=lengths.device)).all(1).nonzero().flatten()
            whole = len(groups) == 1
            part = {name: tensor if whole else tensor[rows] for name, tensor in embedding.items()}
            names = [name for name in found.text if name + LENGTH in embedding]
            part |= {name: part[name][:, :length] for name, length in zip(names, group, strict=True)}
            each = self._predict(found, x if whole else x[rows], step, part)
            output = each if whole else output.index_copy(0, rows, each)
        return output

    def guide(self, null: Tensor, cond: Tensor, scale: float) -> Tensor:
        """The pipeline's own combination of its two branches."""
        found = self.found
        if found.rule != "rescaled":
            return guidance.RULES[found.rule](null, cond, scale)
        return self._from_scheduler(guidance.rescaled(self.to_pipeline(null), self.to_pipeline(cond), scale))

    def predict_x0(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> Tensor:
        """x̂0, Tweedie's estimate."""
        assert isinstance(step, ObservedStep)
        return levels.predict_x0(x, prediction, step)

    def step_distribution(self, x: Tensor, prediction: Tensor, step: NoiseStep) -> tuple[Tensor, float]:
        """The step to the next of the scheduler's levels: mean and deviation."""
        assert isinstance(step, ObservedStep)
        return levels.step_distribution(x, prediction, step)

    def decode(self, x0: Tensor, detail: str = "full") -> Tensor:
        """Images (N, 3, H, W), or frames (N, F, 3, H, W), in [0, 1]; no gradient where the decoder clamps."""
        found = self.found
        assert self._decoder is not None
        if detail == "tiny":
            if self.tiny_decoder is None:
                raise InvalidValue("this model has no tiny decoder: load_model takes one as tiny_decoder")
            return self._decoder.tiny(self.tiny_decoder, x0)
        if detail != "full":
            raise InvalidValue(f"unknown detail '{detail}': choose one of full, tiny")
        self._decoder.recompute = self.recompute_decoder
        with float32_by_default():
            images = self._decoder(found, x0)
        if self.scored_frames is None or images.dim() < 5:
            return images
        kept = torch.linspace(0, images.shape[1] - 1, self.scored_frames).round().long()
        return images[:, kept.to(images.device)]

    def placement(self, num_inference_steps: int) -> dict[str, Any]:
        """Where the null branch is in the pipeline's own calls, in JSON's types, for `NullText.apply`.

        joint: the branches are rows of one call; null_first: the null branch comes first; time: the path of an
        argument that tells the denoiser the time, and its value at each step; call: the call's plain arguments.
        """
        found = self.found
        steps = [step for step in self.schedule(num_inference_steps) if isinstance(step, ObservedStep)]
        path, values = _clock(steps)
        plain = {k: v for k, v in self.stock.options.items() if isinstance(v, bool | int | float | str)}
        time = {"path": path, "values": values}
        return {"joint": found.joint, "null_first": found.null_first, "call": plain, "time": time}

    # Layouts

    def to_pipeline(self, x: Tensor) -> Tensor:
        """Latents in the scheduler's layout."""
        found = self.found
        flat = x.flatten(1) if found.to_sample is None else x.flatten(1)[:, found.to_sample.to(x.device)]
        return flat.reshape(len(x), *found.sample)

    def from_pipeline(self, latents: Tensor) -> Tensor:
        """The scheduler's latents in the model's layout."""
        return self._from_scheduler(latents)

    def _from_scheduler(self, latents: Tensor) -> Tensor:
        found = self.found
        index = found.from_sample
        flat = latents.flatten(1) if index is None else latents.flatten(1)[:, index.to(latents.device)]
        return flat.reshape(len(latents), *found.shape)

    # Recordings

    def _stand_in(self, found: Findings, batch: int) -> StandIn:
        template, rows = found.template
        return StandIn(template, rows * batch)

    def _encoded(self, texts: Sequence[str], negatives: Sequence[str]) -> tuple[Embedding, Embedding]:
        found = self.found
        call = self.stock.arguments(texts, negatives, found.steps)
        with _their_errors_in_words(self.pipeline):
            seen = record(self.pipeline, call, Watch(self._stand_in(found, len(texts)), stop_at="step"))
        cond, null = self._embeddings(found, seen.steps[0])
        prompts.warn_if_cut(self.pipeline, seen.token_ids, [*texts, *negatives], (cond, null))
        if self.null == "open":
            if not found.masks:
                raise InvalidValue("this model has no null 'open': its null text has no mask")
            null |= {path: torch.ones_like(null[path]) for path in found.masks}
        return cond, null

    def _embeddings(self, found: Findings, step: StepRecord) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """(c, φ) of a recorded step, whose calls are kept as shells."""
        batch = len(step.sample)
        pair: list[dict[str, Tensor]] = []
        for cond in (True, False):
            first = cond != found.null_first  # whether this branch is the first half, or the first call
            call = step.calls[0] if found.joint or first else step.calls[1]
            part = slice(None)
            if found.joint:
                part = slice(0, batch) if first else slice(batch, 2 * batch)
            there = leaves(call.arguments, found.rows)
            embedding: dict[str, Tensor] = {}
            for path in found.text:
                rows = list(there[path][part])
                embedding |= _padded(path, rows, found)
            if found.branch:
                embedding[BRANCH] = torch.full((batch,), int(cond))
            pair.append(embedding)
            shell = _Shell(call.arguments, there, found)
            self._shells[shell.key] = shell
            self._remember_context(found, there, part, cond)
        return pair[0], pair[1]

    def _remember_context(self, found: Findings, there: Mapping[str, Any], part: slice, cond: bool) -> None:
        known = set(found.latents) | found.moving | set(found.text)
        context = {path: there[path][part][0] for path in found.rows - known}
        self._context[cond] = context

    def _timeline(self, found: Findings, wanted: int) -> list[ObservedStep]:
        """The schedule of as many steps as are wanted; of a call that takes a part of its steps, a longer one."""
        asked, steps = wanted, self._recorded_steps(found, wanted)
        for _ in range(4):
            if len(steps) == wanted:
                return steps
            asked = max(1, asked + (wanted - len(steps)) * max(1, round(asked / max(1, len(steps)))))
            steps = self._recorded_steps(found, asked)
        raise InvalidValue(
            f"the scheduler takes {len(steps)} steps where {wanted} were asked for: choose another number of steps or "
            f"another scheduler than {type(self.pipeline.scheduler).__name__}"
        )

    def _recorded_steps(self, found: Findings, asked: int) -> list[ObservedStep]:
        inputs: list[dict[str, Any]] = []
        gains: list[dict[str, float | Tensor]] = []
        still: dict[str, Any] = {}

        def on_step(index: int, step: StepRecord) -> Tensor:
            there = leaves(step.calls[0].arguments, found.rows)
            if index == 0:
                still.update({k: v for k, v in there.items() if k not in found.latents and k not in found.moving})
            elif changed := [path for path, value in still.items() if not same(value, there.get(path))]:
                raise InvalidValue(f"the denoiser's '{changed[0]}' changes at some steps only, which is not supported")
            inputs.append({p: there[p][0] if p in found.rows else there[p] for p in found.moving})
            gains.append({path: self._gain(found, path, there[path][0], step.sample) for path in found.latents})
            for path, enter in found.latents.items() if index else ():
                _require_base(path, enter, there[path][0])
            probe = zero_probe(index, step)
            step.sample, step.model_output = step.sample.detach(), step.model_output.detach()
            step.calls = [replace(call, arguments={}, returned=None) for call in step.calls]
            if index:
                step.sample = step.sample[:0]
            return probe

        rows = 2 * torch.Size(found.sample).numel()
        watch = Watch(self._stand_in(found, 2), on_step, draws=rows)
        seen = record(self.pipeline, self.stock.arguments(PROMPTS[:1] * 2, NEGATIVES[:1] * 2, asked), watch)
        _require_start(found, seen, asked)
        steps = levels.schedule(seen.steps)
        return [
            replace(step, inputs=inputs[i], gains={path: gain * step.unit for path, gain in gains[i].items()})
            for i, step in enumerate(steps)
            if step.component
        ]

    def _gain(self, found: Findings, path: str, row: Tensor, sample: Tensor) -> float | Tensor:
        """What latents are multiplied by at a step; of the whole map's gain where that differs by element."""
        gain, general = gain_of(row, sample), found.latents[path].gain
        if isinstance(general, float):
            if not isinstance(gain, float):
                raise InvalidValue(f"the latents enter in a way that changes from step to step ('{path}')")
            return gain
        factor = torch.as_tensor(gain).mean() / general[general != 0].mean()
        return general * float(factor)

    def _predict(self, found: Findings, x: Tensor, step: ObservedStep, embedding: Embedding) -> Tensor:
        shell = self._shell(found, embedding)
        new: dict[str, Any] = {}
        count = len(x)
        for path, enter in found.latents.items():
            entered = enter(x, step.gains[path]).to(shell.like[path])
            new[path] = list(entered) if shell.lists[path] else entered
        for path in found.text:
            value = embedding[path].to(shell.like[path])
            new[path] = list(value) if shell.lists[path] else value
        for path, value in step.inputs.items():
            new[path] = _repeated(value, count, shell.lists[path]) if path in found.rows else value
        new |= self._context_rows(found, embedding, count, shell)
        module = getattr(self.pipeline, step.component)
        with float32_by_default():
            output = self._network(step.component, module)(**replaced(shell.arguments, new))
        first = output if isinstance(output, Tensor) else output[0]
        if isinstance(first, list | tuple):
            first = torch.stack(list(first))
        prediction = observing.prediction(first.float(), found.sample)
        return self._from_scheduler(prediction if found.sign == 1 else -prediction)

    def _shell(self, found: Findings, embedding: Embedding) -> _Shell:
        key = tuple(tuple(embedding[path].shape[1:]) for path in found.text)
        try:
            return self._shells[key]
        except KeyError:
            raise InvalidValue(
                f"an embedding has shapes {dict(zip(found.text, key, strict=True))}, which no prompt of this model had"
            ) from None

    def _context_rows(self, found: Findings, embedding: Embedding, count: int, shell: _Shell) -> dict[str, Any]:
        if not found.branch:
            return {path: _repeated(row, count, shell.lists[path]) for path, row in self._context[True].items()}
        rows: dict[str, Any] = {}
        branches = embedding[BRANCH].tolist()
        for path in self._context[True]:
            each = [self._context[bool(branch)][path] for branch in branches]
            rows[path] = each if shell.lists[path] else torch.stack(each)
        return rows

    def _network(self, component: str, module: Any) -> Frozen:
        """A denoiser as a constant function; made anew where the pipeline's was swapped."""
        if component not in self._frozen or self._frozen[component].network is not module:
            self._frozen[component] = Frozen(module, beside_others=True)
        self._frozen[component].recompute = self.recompute
        return self._frozen[component]

    def _prove(self, first: StepRecord) -> None:
        """The recorded step, predicted by us; the decoder's input and images, made by us."""
        found = self.found
        assert self._decoder is not None
        cond, null = self._embeddings(replace(found), first)
        steps = self._recorded_steps(found, found.steps)
        with torch.no_grad():
            x = self._from_scheduler(first.sample.float()) / steps[0].unit
            eps_null, eps_cond = (self.predict(x, steps[0], each) for each in (null, cond))
            ours = self.to_pipeline(self.guide(eps_null, eps_cond, observing.SCALE))
            proof.require_equal("the replayed prediction", ours * found.sign, first.model_output, self.dtype, found)
            proof.prove_decoder(self.stock, found, self._decoder, len(steps))


@contextmanager
def _their_errors_in_words(pipeline: Any) -> Iterator[None]:
    """A pipeline's complaint about its call as an `InvalidValue` of one line."""
    try:
        yield
    except Exception as error:
        if not _is_theirs(error):
            raise
        empty = [n for n in pipeline.components if n.startswith("text_encoder") and getattr(pipeline, n) is None]
        without = f" without {' and '.join(empty)}" if empty else ""
        raise InvalidValue(f"{type(pipeline).__name__}'s own call failed{without}: {first_line(error)}") from error


def _require_one_shape(rows: Sequence[Embedding]) -> None:
    """Refuse prompts whose embeddings this model cannot take in one batch."""
    for name in rows[0]:
        if len(shapes := {tuple(row[name].shape[1:]) for row in rows}) > 1:
            raise InvalidValue(
                f"the prompts' embeddings have different shapes ('{name}': {sorted(shapes)}): align these prompts one "
                "at a time"
            )


def _is_theirs(error: BaseException) -> bool:
    """Whether an error is a pipeline's complaint about its call, which is not this package's nor a lack of memory."""
    if isinstance(error, NullTTAError) or is_out_of_memory(error):
        return False
    return isinstance(error, TypeError | ValueError | RuntimeError | AttributeError | LookupError | ImportError)


def _clock(steps: Sequence[ObservedStep]) -> tuple[str, list[float]]:
    """The path of an input that tells the time by one number, and that number at each step.

    Raises:
        InvalidValue: if there is none.
    """
    for path in steps[0].inputs:
        values = [torch.as_tensor(step.inputs[path]).flatten() for step in steps]
        if all(value.numel() == 1 for value in values) and len({float(value) for value in values}) == len(values):
            return path, [float(value) for value in values]
    raise InvalidValue("the denoiser is not told the time by one number: a null text cannot be applied to its pipeline")


def _require_base(path: str, enter: Affine, row: Tensor) -> None:
    """Refuse what stands beside the latents and changes from step to step, as the known part of an inpainting does."""
    there = row.detach().float().flatten().cpu()
    base = torch.zeros_like(there) if enter.base is None else enter.base
    if not torch.allclose(there, base, rtol=1e-4, atol=1e-5):
        raise InvalidValue(
            f"what the denoiser is given beside the latents ('{path}') changes from step to step, as a masked picture "
            "does, which is not supported"
        )


def _require_start(found: Findings, seen: Recording, asked: int) -> None:
    """Refuse a call whose first latents are made otherwise at this number of steps than where they were observed."""
    start = seen.steps[0].sample
    if found.initial.base is None:
        return
    base = start[0].float().flatten().cpu()
    if not torch.allclose(base, found.initial.base, rtol=1e-3, atol=1e-3):
        raise InvalidValue(
            f"an image-to-image call of {asked} steps starts at another noise level than one of {found.steps}, where "
            "its first latents were observed: give it strength=1.0, or another number of steps"
        )


class _Shell:
    """A recorded denoiser call with places to fill: what does not depend on rows stays as it was recorded."""

    def __init__(self, arguments: dict[str, Any], there: Mapping[str, Any], found: Findings) -> None:
        self.key = tuple(tuple(_row(there[path]).shape) for path in found.text)
        self.lists = {path: isinstance(there[path], list) for path in found.rows}
        self.like = {
            path: torch.empty(0, dtype=row.dtype, device=row.device)
            for path in found.rows
            if isinstance(row := _row(there[path]), Tensor)
        }
        empty = dict.fromkeys((*found.rows, *found.moving))
        self.arguments = replaced(arguments, empty)


def _row(value: Any) -> Any:
    return value[0]


def _repeated(row: Any, count: int, as_list: bool) -> Any:
    if as_list or not isinstance(row, Tensor):
        return [row] * count
    return row[None].expand(count, *row.shape)


def _padded(path: str, rows: Sequence[Tensor], found: Findings) -> dict[str, Tensor]:
    """One of an embedding's tensors, and beside it the lengths where texts have unlike ones."""
    cast = [row.long() if path in found.masks else row.float() if row.is_floating_point() else row for row in rows]
    if not found.alone:
        return {path: torch.stack(cast)}
    if cast[0].dim() == 0:
        return {path: torch.stack(cast)}
    return {path: torch.stack(cast), path + LENGTH: torch.tensor([len(row) for row in cast]).to(cast[0].device)}


def _stacked(rows: Sequence[Embedding]) -> dict[str, Tensor]:
    """Embeddings of one text each as one of all, padded by zeros."""
    joined: dict[str, Tensor] = {}
    for name in rows[0]:
        tensors = [row[name][0] for row in rows]
        padded = len({tensor.shape for tensor in tensors}) > 1
        joined[name] = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True) if padded else torch.stack(tensors)
    return joined
