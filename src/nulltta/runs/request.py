"""What a run is asked for. Free of torch, so that the command line answers quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from nulltta.config import NullTTAConfig
from nulltta.errors import InvalidValue


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that `nulltta align` is asked for, its presets filled in. Errors: `NullTTAError` names what is wrong."""

    prompts: Sequence[str]
    config: NullTTAConfig
    reward: str = "clip"
    reward_source: str | None = None
    model: str = "embedded"
    seed: int = 0
    negative_prompt: str = ""
    guard: str | None = None
    device: str | None = None
    dtype: str | None = None
    batch_size: int = 8
    micro_batch: int | None = None
    method: str = "null-tta"
    tiny_decoder: str | None = None
    compile: bool = False
    save_null_text: str | None = None
    out: Path = Path("out")

    def __post_init__(self) -> None:
        if not self.prompts:
            raise InvalidValue("no prompt: say what the picture should show")
        for prompt in (*self.prompts, self.negative_prompt):
            require_text(prompt)
        if any(not prompt.strip() for prompt in self.prompts):
            raise InvalidValue("a prompt is empty: say what the picture should show")
        if self.seed < 0:
            raise InvalidValue(f"a seed is a whole number, 0 or more, not {self.seed}")
        if self.batch_size < 1:
            raise InvalidValue(f"the batch size must be 1 or more, not {self.batch_size}")

    def command(self) -> list[str]:
        """The command line that asks for this, every setting spelt out."""
        flags: dict[str, Any] = {
            "model": self.model, "reward": self.reward, "seed": self.seed, "negative_prompt": self.negative_prompt,
            "guard": self.guard, "device": self.device, "dtype": self.dtype, "batch_size": self.batch_size,
            "micro_batch": self.micro_batch, "method": self.method, "tiny_decoder": self.tiny_decoder,
            "compile": self.compile,
            "save_null_text": self.save_null_text, "out": self.out, **asdict(self.config),
        }  # fmt: skip
        words = ["nulltta", "align"]
        for name, value in flags.items():
            if value is not False and value not in (None, ""):  # an option that is off has no words
                values = () if value is True else value if isinstance(value, tuple) else (value,)
                words += [flag(name), *map(str, values)]
        return [*words, "--", *self.prompts]

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments that ask `nulltta.align` for this; reading it, make `config` a NullTTAConfig."""
        return {
            "model": self.model, "prompts": list(self.prompts), "reward": self.reward, "config": asdict(self.config),
            "seed": self.seed, "negative_prompt": self.negative_prompt, "guard": self.guard, "method": self.method,
        }  # fmt: skip


def require_text(text: str, what: str = "a prompt") -> None:
    """What a terminal handed over as bytes that are no UTF-8 could be neither tokenized nor recorded."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InvalidValue(f"{what} is not UTF-8 text") from error


def read_prompts(given: Sequence[str], file: Path | None) -> list[str]:
    """The prompts of the command line, then the file's, one a line; blank lines are skipped."""
    prompts = list(given)
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = "it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error.strerror
            raise InvalidValue(f"cannot read prompts from '{file}': {reason}") from error
        if not any(line.strip() for line in lines):
            raise InvalidValue(f"'{file}' holds no prompts: write one a line")
        prompts += [line.strip() for line in lines if line.strip()]
    return prompts


def flag(name: str) -> str:
    """ "inner_steps" -> "--inner-steps"."""
    return f"--{name.replace('_', '-')}"


def number_or_word(text: str) -> float | str:
    """ "0.008" -> 0.008, "auto" -> "auto"."""
    try:
        return float(text)
    except ValueError:
        return text
