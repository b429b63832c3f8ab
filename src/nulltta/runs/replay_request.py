"""What a replay is asked for. Free of torch, so that the command line answers quickly."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nulltta.errors import InvalidValue
from nulltta.runs.request import flag, require_text
from nulltta.runs.seeds import parse_seeds


@dataclass(frozen=True, kw_only=True)
class Replay:
    """All that `nulltta replay` is asked for. Errors: `NullTTAError` names what is wrong."""

    file: Path
    model: str = "embedded"
    seeds: str | None = None
    prompts: Sequence[str] = ()
    num_inference_steps: int | None = None
    guidance_scale: float | None = None
    eta: float | None = None
    exact: bool = False
    plain: bool = False
    reward: str | None = None
    reward_source: str | None = None
    out: Path = Path("out")
    batch_size: int = 8
    device: str | None = None
    dtype: str | None = None

    def __post_init__(self) -> None:
        require_text(str(self.file), "the file's name")
        for prompt in self.prompts:
            require_text(prompt)
            if not prompt.strip():
                raise InvalidValue("a prompt is empty: say what the picture should show")
        if self.batch_size < 1:
            raise InvalidValue(f"the batch size must be 1 or more, not {self.batch_size}")
        self.seed_list()
        other = {"seeds": self.seeds, "prompt": self.prompts or None, **self.changes()}
        if self.exact and (given := [flag(name) for name, value in other.items() if value is not None]):
            raise InvalidValue(f"--exact is the recorded image again: leave out {', '.join(given)}")

    def seed_list(self) -> list[int]:
        return [0] if self.seeds is None else parse_seeds(self.seeds)

    def changes(self) -> dict[str, Any]:
        """The settings that are to be other than the recorded ones."""
        named = {name: getattr(self, name) for name in ("num_inference_steps", "guidance_scale", "eta")}
        return {name: value for name, value in named.items() if value is not None}

    def command(self) -> list[str]:
        """The command line that asks for this, every option spelt out."""
        options = {
            "model": self.model, "seeds": self.seeds, **self.changes(), "exact": self.exact, "plain": self.plain,
            "reward": self.reward, "reward_source": self.reward_source, "out": self.out, "batch_size": self.batch_size,
            "device": self.device, "dtype": self.dtype,
        }  # fmt: skip
        words = ["nulltta", "replay"]
        for prompt in self.prompts:
            words += ["--prompt", prompt]
        for name, value in options.items():
            if value is not None and value is not False:
                words += [flag(name)] if value is True else [flag(name), str(value)]
        return [*words, "--", str(self.file)]
