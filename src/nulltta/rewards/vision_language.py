"""Vision-language models that are asked a question about an image: the logits of the first token of their answer."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from nulltta.errors import InvalidValue, LoadError, first_line
from nulltta.rewards import checkpoint_files, state_dict
from nulltta.rewards.patches import QwenPatches
from nulltta.rewards.preprocess import Preprocess
from nulltta.rewards.request import RewardRequest
from nulltta.rewards.sharing import shared

CLASSES = {
    "qwen2_vl": "Qwen2VLForConditionalGeneration", "qwen2_5_vl": "Qwen2_5_VLForConditionalGeneration",
    "qwen3_vl": "Qwen3VLForConditionalGeneration", "instructblip": "InstructBlipForConditionalGeneration",
}  # fmt: skip
"""The supported classes of transformers, by the model_type in config.json."""


class VisionLanguageModel(Protocol):
    """A frozen vision-language model. Each question is tokenised once.

    Attributes:
        model: the model itself.
    """

    model: nn.Module

    def token(self, text: str) -> int:
        """Return the id of a text that is a single token.

        Raises:
            LoadError: if the tokenizer cuts it into several.
        """
        ...

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        """Return the logits (B, vocabulary) of the first token of the answers, in float32 at least, with gradient.

        Args:
            images: (B, 3, H, W) in [0, 1].
            questions: one per image.

        Raises:
            InvalidValue: if a question contains one of the model's special tokens.
        """
        ...


class QwenVL:
    """Qwen2-VL, Qwen2.5-VL or Qwen3-VL (arXiv 2409.12191, 2502.13923, 2511.21631), asked through its own chat template
    with the image first.

    Raises:
        LoadError: if the chat template does not give the image exactly one place.
    """

    def __init__(self, model: Any, patches: QwenPatches, words: Any) -> None:
        self.model: Any = _with_precise_logits(model)
        self.patches, self.words = patches, words
        self.image = int(model.config.image_token_id)
        self._ids: dict[str, Tensor] = {}
        if (places := int((self.conversation("") == self.image).sum())) != 1:
            raise LoadError(f"the tokenizer's chat template gives an image {places} places, not 1")

    def token(self, text: str) -> int:
        return _single_token(self.words, text)

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        return self.outputs(images, [self.conversation(question) for question in questions])

    def outputs(
        self, images: Tensor, rows: Sequence[Tensor], token: int | None = None, *, text_positions: bool = False
    ) -> Tensor:
        """Return what the model's output layer gives, (B, outputs), with gradient.

        Args:
            images: (B, 3, H, W) in [0, 1].
            rows: one conversation per image.
            token: where to take it: at this token, which each row has once; None for the last token.
            text_positions: whether the image's tokens are numbered like words, one after the other, instead of by their
                place in the image.
        """
        patches, grid = self.patches(images.to(self.model.device))
        seen = int(grid[0].prod()) // self.patches.merge**2  # the tokens that the language model reads per image
        ids, mask = _batch(
            [row.repeat_interleave(torch.where(row == self.image, seen, 1)) for row in rows], grid.device
        )
        places = mask.sum(1) - 1 if token is None else (ids == token).int().argmax(1)
        positions = torch.arange(ids.shape[1], device=ids.device).expand(3, *ids.shape) if text_positions else None
        return _outputs_at(
            self.model, places, attention_mask=mask, input_ids=ids, mm_token_type_ids=(ids == self.image).int(),
            pixel_values=patches, image_grid_thw=grid, position_ids=positions,
        )  # fmt: skip

    def conversation(self, question: str, prompt: str | None = None) -> Tensor:
        """Return the token ids (n,) of a question, one of which stands for the image.

        Args:
            question: the whole text.
            prompt: the part of it that must not contain special tokens; None for all of it.

        Raises:
            InvalidValue: if it contains one.
        """
        if question not in self._ids:
            _refuse_special_tokens(self.words, question if prompt is None else prompt)
            content = [{"type": "image"}, {"type": "text", "text": question}]
            text = self.words.apply_chat_template(
                [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
            )
            self._ids[question] = self.words(text, return_tensors="pt").input_ids[0]
        return self._ids[question]


class InstructBlip:
    """InstructBLIP (Dai et al., arXiv 2305.06500) on Flan-T5 or Vicuna, asked the bare question, which its Q-Former
    reads too.

    Raises:
        LoadError: if the model's configuration has no token for images.
    """

    def __init__(self, model: Any, preprocess: Preprocess, words: Any, instructions: Any) -> None:
        self.model: Any = _with_precise_logits(model)
        self.preprocess = preprocess
        self.words, self.instructions = words, instructions
        self.dtype = model.vision_model.dtype
        self._ids: dict[str, tuple[Tensor, Tensor]] = {}
        if model.config.image_token_id is None:
            raise LoadError("InstructBLIP's config.json lacks image_token_index: it is a version from before 2024")

    def token(self, text: str) -> int:
        return _single_token(self.words, text)

    def logits(self, images: Tensor, questions: Sequence[str]) -> Tensor:
        config, device = self.model.config, self.model.device
        texts, instructions = zip(*(self._tokens(question) for question in questions), strict=True)
        ids, mask = _batch(texts, device)
        qformer_ids, qformer_mask = _batch(instructions, device)
        inputs = {
            "pixel_values": self.preprocess(images.to(device)).to(self.dtype), "input_ids": ids,
            "qformer_input_ids": qformer_ids, "qformer_attention_mask": qformer_mask,
        }  # fmt: skip
        if config.use_decoder_only_language_model:
            return _outputs_at(self.model, mask.sum(1) - 1, attention_mask=mask, **inputs)
        start = torch.full((len(ids), 1), config.text_config.decoder_start_token_id, device=device)
        found: Tensor = self.model(**inputs, attention_mask=mask, decoder_input_ids=start, use_cache=False).logits
        return found[:, 0]

    def _tokens(self, question: str) -> tuple[Tensor, Tensor]:
        """Return token ids (n,) for the language model, the image's before the question's, and for the Q-Former."""
        if question not in self._ids:
            _refuse_special_tokens(self.words, question)
            config = self.model.config
            text, instruction = (
                w([question], return_tensors="pt").input_ids[0] for w in (self.words, self.instructions)
            )
            if len(instruction) > (most := config.qformer_config.max_position_embeddings):
                raise InvalidValue(f"prompt of {len(instruction)} tokens: InstructBLIP's Q-Former reads {most}")
            image = torch.full((config.num_query_tokens,), config.image_token_id)
            self._ids[question] = torch.cat([image, text]), instruction
        return self._ids[question]


def load_model(request: RewardRequest, hub: str) -> VisionLanguageModel:
    """Load a vision-language model as `save_pretrained` of model and processor leave it.

    Args:
        request: its source is a directory or a hub id; the class follows from its config.json.
        hub: the usual hub id.

    Raises:
        LoadError: if the class is not one of `CLASSES`, or if a file is missing or damaged.
    """
    reward, source = request.name, request.source or hub
    if Path(source).expanduser().is_file():
        raise LoadError(f"reward '{reward}': '{source}' is a file: give the checkpoint's directory or its hub id")
    kind = checkpoint_files.read_json(source, "config.json", reward=reward).get("model_type")
    if kind not in CLASSES:
        raise LoadError(
            f"reward '{reward}': '{source}' is a {kind} model, not one of the supported {', '.join(CLASSES.values())}"
        )
    path = checkpoint_files.find(source, checkpoint_files.WEIGHTS, reward=reward, sha256=request.sha256)

    def make() -> VisionLanguageModel:
        for shard in checkpoint_files.shards(path, source, reward=reward):
            state_dict.check(shard)  # transformers would not say which shard is damaged
        pixels = checkpoint_files.image_processor(source, reward=reward)
        places = [str(path.parent), str(source)]
        words = checkpoint_files.tokenizer("AutoTokenizer", places, reward=reward)
        if kind != "instructblip":
            if words.chat_template is None:  # the processor has it, and not the tokenizer
                settings = checkpoint_files.read_json(source, "chat_template.json", reward=reward)
                words.chat_template = settings.get("chat_template")
            return QwenVL(_frozen(path, kind, request), QwenPatches.from_config(pixels), words)
        instructions = checkpoint_files.tokenizer("AutoTokenizer", places, reward=reward, subfolder="qformer_tokenizer")
        return InstructBlip(_frozen(path, kind, request), Preprocess.from_config(pixels), words, instructions)

    return shared(path, request.device, request.dtype, make)


def _frozen(path: Path, kind: str, request: RewardRequest) -> Any:
    """Load the weights of a local checkpoint."""
    return from_pretrained(
        CLASSES[kind], f"'{path}' is not such a {CLASSES[kind]}", request, path.parent, local_files_only=True
    )


def from_pretrained(kind: str, what: str, request: RewardRequest, place: Path | None, **options: Any) -> Any:
    """Load a frozen model through transformers, refusing what transformers would fill with random numbers.

    Args:
        kind: the name of its class.
        what: the file and what it should be, for messages.
        request: whose device and dtype are used.
        place: the directory; None if the options give the tensors.
        options: for the class's own `from_pretrained`.

    Raises:
        LoadError: if tensors are missing or of another shape, or if transformers cannot load it.
    """
    import transformers
    from huggingface_hub.errors import StrictDataclassError

    try:
        model, found = getattr(transformers, kind).from_pretrained(
            place, dtype=request.dtype, output_loading_info=True, ignore_mismatched_sizes=True, **options
        )
    except (OSError, ValueError, RuntimeError, LookupError, ImportError, StrictDataclassError) as error:
        raise LoadError(f"{what}: {first_line(error)}") from error
    state_dict.require_match(
        what, missing=sorted(found["missing_keys"]), misshapen=sorted(name for name, *_ in found["mismatched_keys"])
    )
    return model.to(request.device).eval().requires_grad_(False)


def _batch(rows: Sequence[Tensor], device: torch.device) -> tuple[Tensor, Tensor]:
    """Stack token ids of several lengths as ids and mask (B, L).

    They are padded on the right, which a causal model does not look at, so that a row does not depend on the others.
    """
    masks = [torch.ones_like(row) for row in rows]
    return pad_sequence(list(rows), batch_first=True).to(device), pad_sequence(masks, batch_first=True).to(device)


def _outputs_at(model: Any, places: Tensor, **inputs: Tensor | None) -> Tensor:
    """Compute what a causal model's output layer gives at one place (B,) of each row, (B, outputs), and no more."""
    kept = torch.tensor(sorted(set(places.tolist())), device=places.device)  # (U,): most rows have the same place
    found: Tensor = model(**inputs, use_cache=False, logits_to_keep=kept).logits  # (B, U, outputs)
    return found[torch.arange(len(places)), torch.searchsorted(kept, places)]


def _single_token(words: Any, text: str) -> int:
    """Return the id of a text that is one token."""
    ids: list[int] = words(text, add_special_tokens=False).input_ids
    if len(ids) != 1:
        raise LoadError(f"the tokenizer cuts '{text}' into {len(ids)} tokens: its probability is not one token's")
    return ids[0]


def _refuse_special_tokens(words: Any, text: str) -> None:
    """Refuse a prompt that contains the image's token or one that ends a turn: it would ask another question."""
    special = {i for i, token in words.added_tokens_decoder.items() if token.special} - {words.unk_token_id}
    if found := [i for i in words(text, add_special_tokens=False).input_ids if i in special]:
        raise InvalidValue(f"prompt with the model's own special token '{words.convert_ids_to_tokens(found[0])}'")


class _Float32Head(nn.Module):
    """An output embedding in float32: in bfloat16, logits near 20 are 0.125 apart, a factor of 1.13 in probability."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = deepcopy(head).float()  # a copy, because the input embedding may share the weight

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(hidden.float())
        return logits


def _with_precise_logits(model: Any) -> Any:
    """Give a model in half precision an output embedding in float32."""
    head = model.get_output_embeddings()
    if head.weight.dtype in (torch.bfloat16, torch.float16):
        model.set_output_embeddings(_Float32Head(head))
    return model
