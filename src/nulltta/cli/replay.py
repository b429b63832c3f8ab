"""`nulltta replay`: pictures sampled under a learnt null text, at plain sampling's cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from nulltta.cli.flags import DEVICE, REWARD_SOURCE, flag
from nulltta.cli.messages import INTERRUPTED, quiet
from nulltta.cli.request import read_prompts, require_text
from nulltta.cli.seeds import parse_seeds
from nulltta.errors import NullTTAError


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
                raise NullTTAError("a prompt is empty: say what the picture should show")
        if self.batch_size < 1:
            raise NullTTAError(f"the batch size must be 1 or more, not {self.batch_size}")
        self.seed_list()
        other = {"seeds": self.seeds, "prompt": self.prompts or None, **self.changes()}
        if self.exact and (given := [flag(name) for name, value in other.items() if value is not None]):
            raise NullTTAError(f"--exact is the recorded image again: leave out {', '.join(given)}")

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


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A null text: what `align --save-null-text` wrote.")],
    model: Annotated[str, typer.Option(help="'embedded', a diffusers directory, or a hub id.")] = "embedded",
    seeds: Annotated[str | None, typer.Option(help="A picture each: 0-7 or 0,3,5 (default: 0)")] = None,
    prompt: Annotated[
        list[str] | None, typer.Option(help="What to show (default: the prompt it was learnt for); may be repeated.")
    ] = None,
    prompts_file: Annotated[
        Path | None, typer.Option("--prompts", metavar="FILE", help="More prompts, one a line.")
    ] = None,
    num_inference_steps: Annotated[int | None, typer.Option(help="Denoising steps (default: as recorded)")] = None,
    guidance_scale: Annotated[float | None, typer.Option(help="Above 1 (default: as recorded)")] = None,
    eta: Annotated[float | None, typer.Option(help="0 deterministic, 1 ancestral (default: as recorded)")] = None,
    exact: Annotated[
        bool, typer.Option("--exact", help="The aligned picture again, from the noise in the file; compared with it.")
    ] = False,
    plain: Annotated[bool, typer.Option("--plain", help="Also plain sampling's pictures, to compare with.")] = False,
    reward: Annotated[str | None, typer.Option(help="Score plain against replay, as for align.")] = None,
    reward_source: Annotated[str | None, REWARD_SOURCE] = None,
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where pictures and result.json go.")] = Path("out"),
    batch_size: Annotated[int, typer.Option(help="Pictures at a time.")] = 8,
    device: Annotated[str | None, DEVICE] = None,
    dtype: Annotated[
        Literal["float32", "bfloat16", "float16"] | None,
        typer.Option(metavar="TYPE", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)"),
    ] = None,
) -> None:
    """Sample pictures under the learnt null text of FILE: no reward, no gradient, plain sampling's cost."""
    asked = Replay(
        file=file, model=model, seeds=seeds, prompts=read_prompts(prompt or [], prompts_file),
        num_inference_steps=num_inference_steps, guidance_scale=guidance_scale, eta=eta, exact=exact, plain=plain,
        reward=reward, reward_source=reward_source, out=out, batch_size=batch_size, device=device, dtype=dtype,
    )  # fmt: skip
    with quiet():
        from nulltta.cli.replaying import run

        finished = run(asked)
    raise typer.Exit(0 if finished else INTERRUPTED)
