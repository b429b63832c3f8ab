"""What is asked of a run: the settings that all its prompts share, and the requests of `align` and `replay`.

Nothing here imports torch, so that the command line reports a mistake at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import chain, count
from pathlib import Path
from typing import Any, Literal

from nulltta.config import NullTTAConfig, one_of, whole, without_effect
from nulltta.config.settings import LARGEST_SEED, MOST
from nulltta.errors import InvalidValue
from nulltta.prompts import require_prompt, require_prompts, require_text
from nulltta.runs.call import CallSettings
from nulltta.runs.prompt_file import PromptRow
from nulltta.runs.seeds import parse_seeds


def default_reward(model: str) -> str:
    """Return the reward that is raised where none is given: the target scorer of an embedded model's world.

    Args:
        model: the name of a model.

    Raises:
        InvalidValue: if it is not an embedded one.
    """
    from nulltta.embedded.worlds import WORLDS  # it imports numpy, which the help of commands does without

    if model not in WORLDS:
        raise InvalidValue(
            "must name what is raised on this model, such as pickscore, imagereward or clipscore (`nulltta rewards` "
            "lists them): only the embedded models have a default",
            "reward",
        )
    return WORLDS[model].target


@dataclass(frozen=True, kw_only=True)
class ModelSettings(CallSettings):
    """Which model a run uses, where it runs and how, and what its pipeline is called with.

    Attributes:
        model: "embedded", "scenes", either with "-turbo", a diffusers directory, a hub id or a .safetensors file.
        base_model: for a file, the directory or hub id of the pipeline that it was made from.
        device: "cpu", "cuda", "cuda:1", "mps", ...; None for the GPU if there is one.
        dtype: the name of a torch type; None for float32 on the CPU and half precision on a GPU.
        tiny_decoder: the directory or hub id of an `AutoencoderTiny` for `inner_decoder="tiny"`.
        compile: whether to compile the denoiser and the decoder.
        offload: which parts stay away from the device while others work: "none", "text-encoders", "model" or
            "sequential".
    """

    model: str = "embedded"
    base_model: str | None = None
    device: str | None = None
    dtype: str | None = None
    tiny_decoder: str | None = None
    compile: bool = False
    offload: str = "none"

    def options(self) -> dict[str, Any]:
        """Return every setting by the name of its command-line flag, but for pictures that were uploaded."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "config"}
        own = {name: value for name, value in own.items() if not isinstance(value, bytes)}
        return own | {"call": list(self.call)}


@dataclass(frozen=True, kw_only=True)
class RunSettings(ModelSettings):
    """What all prompts of a run share.

    Attributes:
        config: the settings of the method.
        preset: the preset that the settings of the method started from; None for the model's own.
        reward: the reward to raise: a name or an expression.
        reward_source: where the weights of a reward given by name are.
        reward_dtype: the name of the torch type that rewards compute in; None for each reward's own.
        method: a name in `nulltta.alignment.METHODS`.
        start: the file of a null text that was learnt before, to start from; None to start from the negative prompt.
        batch_size: how many prompts are sampled at a time.
        micro_batch: how many prompts or candidates go through the networks at once; None for all of them.

    Raises:
        InvalidValue: if `batch_size` is not 1 to `MOST`.
    """

    config: NullTTAConfig
    preset: str | None = None
    reward: str
    reward_source: str | None = None
    reward_dtype: str | None = None
    method: str = "null-tta"
    start: str | None = None
    batch_size: int = 8
    micro_batch: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        whole(self, "batch_size", at_least=1, at_most=MOST)

    @property
    def usual(self) -> NullTTAConfig:
        """The settings of the method if none was given: those of the preset."""
        return NullTTAConfig.preset(self.preset or self.model)

    def options(self) -> dict[str, Any]:
        """Return every setting that has an effect by the name of its command-line flag, but for uploaded pictures."""
        idle = without_effect(self.config, self.method)
        return super().options() | {name: value for name, value in asdict(self.config).items() if name not in idle}


@dataclass(frozen=True, kw_only=True)
class AlignRequest:
    """What `nulltta align` is asked for.

    Attributes:
        prompts: what the pictures should show.
        settings: what the prompts share.
        seed: the seed of the initial noise, the same for every prompt without its own.
        negative_prompt: the null text to start from, likewise.
        own_seeds: one per prompt, None for `seed`; () if no prompt has its own.
        own_negatives: one per prompt, None for `negative_prompt`; () if no prompt has its own.
        seed_range: the seeds with each of which every prompt is drawn, as in "0-7"; `prompts` and `own_seeds` have an
            entry per picture then.
        prompts_file: the file that prompts with their own seeds or negative prompts came from.
        save_null_text: whether to keep what was learnt: "small", or "exact" with the noise of the run.
        image_format: "png", "jpeg" or "webp", of the pictures themselves; figures are PNG.
        video_format: "gif" or "mp4", in which the frames of a video are written beside the picture of all frames.
        out: the folder for pictures and result.json.
        overwrite: whether the results of another run in that folder may be replaced.

    Raises:
        InvalidValue: if there is no prompt, a prompt is empty or not text, or the seed is negative.
    """

    prompts: Sequence[str]
    settings: RunSettings
    seed: int = 0
    negative_prompt: str = ""
    own_seeds: Sequence[int | None] = ()
    own_negatives: Sequence[str | None] = ()
    seed_range: str | None = None
    prompts_file: Path | None = None
    save_null_text: Literal["small", "exact"] | None = None
    image_format: Literal["png", "jpeg", "webp"] = "png"
    video_format: Literal["gif", "mp4"] = "gif"
    out: Path = Path("out")
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_prompts(self.prompts)
        one_of(self, "image_format", ("png", "jpeg", "webp"))
        one_of(self, "video_format", ("gif", "mp4"))
        require_text(self.negative_prompt, "a negative prompt")
        whole(self, "seed", at_least=0, at_most=LARGEST_SEED)

    @classmethod
    def of_rows(
        cls, rows: Sequence[PromptRow], file: Path | None, seed_range: str | None = None, **others: Any
    ) -> AlignRequest:
        """Return the request of prompts that may have seeds and negative prompts of their own.

        Args:
            rows: the prompts.
            file: where rows with values of their own come from.
            seed_range: the seeds with each of which every prompt is drawn; None for one picture per prompt.
            others: the other fields.

        Raises:
            InvalidValue: if the range is malformed, or a seed is given beside it.
        """
        if seed_range is not None:
            if others.get("seed", cls.seed) != cls.seed or any(row.seed is not None for row in rows):
                raise InvalidValue("gives every prompt these seeds: give no other seed beside it", "seeds")
            rows = [replace(row, seed=seed) for row in rows for seed in parse_seeds(seed_range)]
        seeds, negatives = [row.seed for row in rows], [row.negative_prompt for row in rows]
        return cls(
            prompts=[row.prompt for row in rows],
            own_seeds=seeds if any(seed is not None for seed in seeds) else (),
            own_negatives=negatives if any(negative is not None for negative in negatives) else (),
            prompts_file=file, seed_range=seed_range, **others,
        )  # fmt: skip

    @property
    def seeds(self) -> list[int]:
        """One seed per prompt."""
        return [self.seed if own is None else own for own in self.own_seeds or [None] * len(self.prompts)]

    @property
    def negative_prompts(self) -> list[str]:
        """One negative prompt per prompt."""
        given = self.own_negatives or [None] * len(self.prompts)
        return [self.negative_prompt if own is None else own for own in given]

    def of_prompt(self, index: int) -> AlignRequest:
        """Return the request of one of the prompts alone."""
        return replace(
            self, prompts=[self.prompts[index]], seed=self.seeds[index], negative_prompt=self.negative_prompts[index],
            own_seeds=(), own_negatives=(), prompts_file=None, seed_range=None,
        )  # fmt: skip

    @property
    def is_plain(self) -> bool:
        """Whether the pictures are sampled plainly from the negative prompt, so that there is nothing to compare."""
        return self.settings.method == "plain" and self.settings.start is None

    @property
    def is_one_command(self) -> bool:
        """Whether a single command line can ask for this: prompts of different seeds need a file to come from."""
        in_words = not self.own_negatives and (self.seed_range is not None or not self.own_seeds)
        return in_words or self.prompts_file is not None

    def command(self) -> list[str]:
        """Return the command line that asks for this, every setting spelt out."""
        own = {name: getattr(self, name) for name in ("seed", "negative_prompt", "save_null_text", "out")}
        own |= {} if self.image_format == "png" else {"image_format": self.image_format}
        own |= {} if self.video_format == "gif" else {"video_format": self.video_format}
        prompts, from_file = self.prompts, bool(self.own_seeds or self.own_negatives)
        if self.seed_range is not None:
            own |= {"seed": None, "seeds": self.seed_range}
            prompts, from_file = self.prompts[:: len(parse_seeds(self.seed_range))], bool(self.own_negatives)
        if from_file:
            return command_line("align", self.settings.options() | own | {"prompts": self.prompts_file}, [])
        return command_line("align", self.settings.options() | own, prompts)

    def arguments(self) -> dict[str, Any]:
        """Return the keyword arguments that ask `nulltta.align` for this, with `config` as a dictionary."""
        settings = self.settings
        return {
            "model": settings.model, "prompts": list(self.prompts), "reward": settings.reward,
            "config": asdict(settings.config),
            "seed": self.seeds if self.own_seeds else self.seed,
            "negative_prompt": self.negative_prompts if self.own_negatives else self.negative_prompt,
            "method": settings.method, **({} if settings.start is None else {"start": settings.start}),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class ReplayRequest:
    """What `nulltta replay` is asked for.

    Attributes:
        file: a null text: a file, a repository of the hub, or "embedded" for the one that ships.
        settings: the model to replay it with.
        seeds: seeds and ranges of them, as in "0-7" or "0,3,5"; None for seed 0.
        prompts: what to show; none for the prompt that the null text was learnt for.
        num_inference_steps, guidance_scale, eta: None for the recorded value.
        exact: whether to make the recorded picture again, from the noise in the file.
        plain: whether to sample plainly too, to compare with.
        reward: a reward to score both with; None to score nothing.
        reward_source: where the weights of a reward given by name are.
        batch_size: how many pictures are sampled at a time.
        out: the folder for pictures and result.json.
        overwrite: whether the results of another run in that folder may be replaced.

    Raises:
        InvalidValue: if a value is out of range, `exact` is combined with what would change the picture, or there is a
            source of weights and no reward.
    """

    file: str | Path
    settings: ModelSettings = ModelSettings()
    seeds: str | None = None
    prompts: Sequence[str] = ()
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    eta: float | None = None
    exact: bool = False
    plain: bool = False
    reward: str | None = None
    reward_source: str | None = None
    batch_size: int = 8
    out: Path = Path("out")
    overwrite: bool = False

    def __post_init__(self) -> None:
        require_text(str(self.file), "the name of the file")
        for prompt in self.prompts:
            require_prompt(prompt)
        whole(self, "batch_size", at_least=1, at_most=MOST)
        self.seed_list()
        if self.reward_source is not None and self.reward is None:
            raise InvalidValue("has no effect: name the reward whose weights it holds (reward)", "reward_source")
        changed = {"seeds": self.seeds, "prompt": self.prompts or None, **self.changes()}
        if self.exact and (given := [flag(name) for name, value in changed.items() if value is not None]):
            raise InvalidValue(f"makes the recorded picture again: leave out {', '.join(given)}", field="exact")

    def seed_list(self) -> list[int]:
        """Return the seeds, one per picture of a prompt."""
        return [0] if self.seeds is None else parse_seeds(self.seeds)

    def changes(self) -> dict[str, Any]:
        """Return the settings that differ from the recorded ones, by name."""
        named = {name: getattr(self, name) for name in ("num_inference_steps", "guidance_scale", "eta")}
        return {name: value for name, value in named.items() if value is not None}

    def command(self) -> list[str]:
        """Return the command line that asks for this, every option spelt out."""
        own = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "overwrite"}
        file, settings, prompts = own.pop("file"), own.pop("settings"), own.pop("prompts")
        return command_line("replay", {**settings.options(), **own, "prompt": list(prompts)}, [str(file)])


def command_line(command: str, options: Mapping[str, Any], arguments: Sequence[str]) -> list[str]:
    """Return a `nulltta` command line as words.

    Args:
        command: the name of the command.
        options: the value of each option by its name. None, False and "" are left out, True is the flag alone, a tuple
            is several words after one flag, and a list repeats the flag.
        arguments: the words after the options.
    """
    words = ["nulltta", command]
    for name, value in options.items():
        if value is True:
            words.append(flag(name))
        elif isinstance(value, list):
            words += [word for each in value for word in (flag(name), str(each))]
        elif value is not False and value not in (None, ""):
            words += [flag(name), *map(str, value if isinstance(value, tuple) else (value,))]
    return [*words, "--", *arguments] if arguments else words


def unused_folder(path: Path = Path("out")) -> Path:
    """Return the path, or the first of "out-2", "out-3", ... that holds no run."""
    numbered = (path.with_name(f"{path.name}-{n}") for n in count(2))
    return next(folder for folder in chain([path], numbered) if not (folder / "result.json").exists())


def flag(name: str) -> str:
    """Return the command-line flag of a setting: "inner_steps" -> "--inner-steps"."""
    return f"--{name.replace('_', '-')}"


def number_or_word(text: str) -> float | str:
    """Parse a value that is a number or a word: "0.008" -> 0.008, "auto" -> "auto"."""
    try:
        return float(text)
    except ValueError:
        return text
