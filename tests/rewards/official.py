"""The scores of tiny checkpoints by the official libraries or computations, without the loaders of this package."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional

from nulltta.images import to_pil
from nulltta.rewards.hpsv3 import QUESTION as HPSV3
from nulltta.rewards.mps import CONDITION
from nulltta.rewards.preprocess import CLIP_MEAN, CLIP_STD
from nulltta.rewards.unifiedreward import QUESTION as UNIFIEDREWARD

from ..tiny import clip_tokenizer
from .checkpoints import bert_tokenizer
from .reference import cycle_reward, image_reward, mlp, mps_feature, open_clip_features

LINES = ("Alignment Score (1-5): ", "\nCoherence Score (1-5): ", "\nStyle Score (1-5): ")


def learned(name: str, folder: Path, images: Tensor, prompts: list[str]) -> Tensor:
    """The scores (B,) by a reward, named before the slash, of images that its preprocessing does not resize."""
    import transformers

    if name in ("clipscore", "pickscore", "pickscore-logits", "aesthetic"):
        model = transformers.CLIPModel.from_pretrained(folder)
        image = functional.normalize(model.get_image_features(pixel_values=_pixels(images)).pooler_output, dim=-1)
        if name == "aesthetic":
            return mlp(torch.load(next(folder.glob("*.pth")), weights_only=True), image)
        tokens = clip_tokenizer()(prompts, padding=True, return_tensors="pt")
        text = functional.normalize(model.get_text_features(**tokens).pooler_output, dim=-1)
        return (model.logit_scale.exp() if name.endswith("logits") else 1) * (image * text).sum(-1)
    if name in ("siglip", "siglip/2"):
        model = transformers.SiglipModel.from_pretrained(folder)
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        ids = tokenizer(prompts, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
        return model(input_ids=ids, pixel_values=images * 2 - 1).logits_per_image.diagonal().sigmoid()
    if name == "siglip/naflex":
        return naflex(folder, to_pil(images), prompts)
    if name == "aesthetic-v2.5":
        model = transformers.SiglipModel.from_pretrained(folder).vision_model
        image = functional.normalize(model(pixel_values=images * 2 - 1).pooler_output, dim=-1)
        (file,) = folder.glob("*.pth")
        head = torch.load(file, weights_only=True)
        return mlp({key.replace("scoring_head", "layers"): value for key, value in head.items()}, image, last=8)
    if name == "cyclereward":
        tokens = bert_tokenizer()(prompts, padding="max_length", truncation=True, max_length=128, return_tensors="pt")
        state = torch.load(folder / "CycleReward-Combo.pth", weights_only=True)
        return cycle_reward(state, _pixels(images), tokens.input_ids, tokens.attention_mask)
    if name == "mps":
        return _mps(folder, images, prompts)
    (file,) = folder.glob("*.pt")
    state = torch.load(file, weights_only=True)
    if name == "imagereward":
        tokens = bert_tokenizer()(
            prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
        )  # fmt: skip
        return image_reward(state, _pixels(images), tokens.input_ids, tokens.attention_mask)
    state = {key: value.float() for key, value in state["state_dict"].items()}
    ids = clip_tokenizer()(prompts, padding=True, return_tensors="pt").input_ids
    image, text = open_clip_features(state, _pixels(images), ids)
    return (image * text).sum(-1)


def _pixels(images: Tensor) -> Tensor:
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (CLIP_MEAN, CLIP_STD))
    return (images - mean) / std


def _mps(folder: Path, images: Tensor, prompts: Sequence[str]) -> Tensor:
    """Each picture alone: the authors' mask depends on the batch."""
    import transformers

    state = load_file(folder / "model.safetensors")
    clip = transformers.CLIPModel(transformers.CLIPConfig.from_pretrained(folder)).eval()
    clip.load_state_dict({k.removeprefix("mps.model."): v for k, v in state.items() if k.startswith("mps.model.")})
    words, scores = clip_tokenizer(), []
    for image, prompt in zip(images, prompts, strict=True):
        ids = [
            words([each], padding="max_length", truncation=True, return_tensors="pt").input_ids
            for each in (prompt, CONDITION)
        ]
        hidden = [clip.text_model(input_ids=each).last_hidden_state for each in ids]
        text, condition = (clip.text_projection(each) for each in hidden)
        end = clip.text_projection(hidden[0][:, ids[0].argmax()])
        similarity = torch.einsum("bid,bjd->bij", text, condition).amax(2)
        mask = torch.where(similarity / similarity.max() > 0.01, 0.0, -torch.inf)
        assert 0 < int(mask.isinf().sum()) < mask.numel()
        seen = clip.visual_projection(clip.vision_model(pixel_values=_pixels(image[None])).last_hidden_state)
        feature = mps_feature(state, seen, text, mask)
        scores.append(clip.logit_scale.exp() * functional.cosine_similarity(feature, end))
    return torch.cat(scores)


def naflex(folder: Path, pictures: list[Image.Image], prompts: list[str]) -> Tensor:
    """With transformers' own processor, which pads to 16 patches and masks."""
    import transformers

    model = transformers.Siglip2Model.from_pretrained(folder)
    inputs = transformers.Siglip2ImageProcessorPil.from_pretrained(folder)(pictures, return_tensors="pt")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    ids = tokenizer(prompts, padding="max_length", max_length=16, truncation=True, return_tensors="pt").input_ids
    return model(input_ids=ids, **inputs).logits_per_image.diagonal().sigmoid()


def hpsv3_ratings(folder: Path, pictures: list[Image.Image], prompts: list[str]) -> Tensor:
    """(μ, σ) as the authors' package computes them, one picture at a time: the embeddings of words and image go through
    the language model without the image's own positions, and the head reads the reward token."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|Reward|>"]}, replace_extra_special_tokens=False)
    reward_token = tokenizer.convert_tokens_to_ids("<|Reward|>")
    processor = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)
    config = transformers.Qwen2VLConfig.from_pretrained(folder)
    model = transformers.Qwen2VLForConditionalGeneration(config).eval()
    state = load_file(folder / "HPSv3.safetensors")
    renamed = {"visual.": "model.visual.", "model.": "model.language_model."}
    names = {
        next((new + name[len(old) :] for old, new in renamed.items() if name.startswith(old)), name): value
        for name, value in state.items()
        if not name.startswith("rm_head.")
    }
    model.load_state_dict(names)
    found = []
    for image, prompt in zip(pictures, prompts, strict=True):
        text = HPSV3.replace("{text_prompt}", prompt)
        content = [{"type": "image"}, {"type": "text", "text": text}]
        words = tokenizer.apply_chat_template(
            [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
        )
        inputs = processor(image, return_tensors="pt")
        places = int(inputs["image_grid_thw"].prod()) // 4
        ids = tokenizer(words.replace("<|image_pad|>", "<|image_pad|>" * places), return_tensors="pt").input_ids
        embedded = model.get_input_embeddings()(ids)
        seen = model.model.visual(inputs["pixel_values"], grid_thw=inputs["image_grid_thw"]).pooler_output
        embedded = embedded.masked_scatter((ids == config.image_token_id)[..., None].expand_as(embedded), seen)
        hidden = model.model.language_model(inputs_embeds=embedded, attention_mask=torch.ones_like(ids))[0]
        x = hidden[ids == reward_token]
        for layer in (0, 3, 5):
            x = functional.linear(x, state[f"rm_head.{layer}.weight"], state[f"rm_head.{layer}.bias"])
            x = x.relu() if layer < 5 else x
        found.append(x[0])
    return torch.stack(found).detach()


def vqascore(name: str, folder: Path, pictures: Sequence[Image.Image], prompts: Sequence[str]) -> Tensor:
    """P("Yes") as VQAScore's authors take it, from what `generate` gives for the first token; one picture at a time."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    (yes,) = tokenizer("Yes", add_special_tokens=False).input_ids
    if name.startswith("qwen"):
        model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
        processor = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)
    else:
        model = transformers.InstructBlipForConditionalGeneration.from_pretrained(folder)
        processor = transformers.InstructBlipProcessor.from_pretrained(folder)
    scores = []
    for image, prompt in zip(pictures, prompts, strict=True):
        question = f'Does this figure show "{prompt}"? Please answer yes or no.'
        if name.startswith("qwen"):  # its processor asks for torchvision
            inputs = processor(image, return_tensors="pt")
            conversation = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]
            text = tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=True)
            places = int(inputs["image_grid_thw"].prod()) // 4
            inputs |= tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * places), return_tensors="pt")
            inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
        else:
            inputs = processor(images=image, text=question, return_tensors="pt")
        found = model.generate(
            **inputs, max_new_tokens=1, do_sample=False, output_scores=True, return_dict_in_generate=True
        )  # fmt: skip
        scores.append(found.scores[0].softmax(-1)[0, yes])
    return torch.stack(scores)


def answer_probability(folder: Path, image: Image.Image, question: str, spellings: Sequence[str]) -> Tensor:
    """The probability of the accepted answers' tokens, by transformers' own processor and `generate`."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    inputs = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")
    content = [{"type": "image"}, {"type": "text", "text": f"{question} Answer in one word."}]
    text = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    )
    places = int(inputs["image_grid_thw"].prod()) // 4
    inputs |= tokenizer(text.replace("<|image_pad|>", "<|image_pad|>" * places), return_tensors="pt")
    inputs["mm_token_type_ids"] = (inputs["input_ids"] == model.config.image_token_id).int()
    found = model.generate(
        **inputs, max_new_tokens=1, do_sample=False, output_scores=True, return_dict_in_generate=True
    )  # fmt: skip
    tokens = [tokenizer(each, add_special_tokens=False).input_ids for each in spellings]
    return found.scores[0].softmax(-1)[0, [token for (token,) in tokens]].sum()


@torch.no_grad()
def unifiedreward(folder: Path, image: Image.Image, prompt: str) -> tuple[str, float]:
    """The answer by greedy decoding in the form that is asked for, one token at a time with transformers' own
    processor, and the mean of the three numbers with each digit replaced by its expectation."""
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(folder)
    pixels = transformers.Qwen2VLImageProcessorPil.from_pretrained(folder)(image, return_tensors="pt")
    content = [{"type": "image"}, {"type": "text", "text": UNIFIEDREWARD.replace("{text_prompt}", prompt)}]
    asked = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True
    ).replace("<|image_pad|>", "<|image_pad|>" * (int(pixels["image_grid_thw"].prod()) // 4))

    def chosen(answer: str, options: list[str]) -> tuple[str, Tensor]:
        words = tokenizer(asked + answer, return_tensors="pt")
        types = (words["input_ids"] == model.config.image_token_id).int()
        logits = model(**pixels, **words, mm_token_type_ids=types).logits[0, -1]
        ids = [tokenizer(option, add_special_tokens=False).input_ids[0] for option in options]
        return options[int(logits[ids].argmax())], logits[ids]

    answer, total = "", 0.0
    for line, end in zip(LINES, ["\n", "\n", tokenizer.eos_token], strict=True):
        answer += line
        for options in (list("12345"), [".", end], list("0123456789"), [*"0123456789", end]):
            character, logits = chosen(answer, options)
            if character == end:
                break
            answer += character
            if character != ".":
                digits = [int(option) for option in options if option != end]
                place = 10.0 ** -len(answer.rpartition(": ")[2].partition(".")[2])
                total += place * float((logits[: len(digits)].softmax(0) * torch.tensor(digits)).sum())
    return answer, total / 3
