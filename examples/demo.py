"""What `make demo` runs: the command line on the embedded model.

One prompt in four steps, the fastest picture; a prompt whose picture plain sampling gets wrong; a batch of eight; and
a null text that was learnt once, for all prompts, beside alignment for the same reward.
"""

from __future__ import annotations

import shlex
import sys
import time
from pathlib import Path

from nulltta.cli import main

OUT = Path("out/demo")
FAST = "a castle on a blue background, fluent style"
ONE = "two foxes on a blue background, fluent style"
EIGHT = (  # compositions that training never saw: the first of studies/smoke.py's list
    "an automobile on a green background, noto style",
    "two mushrooms on a purple background, noto style",
    "a soccer ball and a balloon on a purple background, noto style",
    "a carrot on a black background, noto style",
    "two red apples on a purple background, noto style",
    "a robot and a panda on a white background, noto style",
    "a castle on a blue background, fluent style",
    "two automobiles on a green background, noto style",
)
COLOURFUL = "colourfulness + 4*clip"


def show(*command: str) -> None:
    """Show a `nulltta` command and run it; leave with its exit code if it fails."""
    print(f"\n$ nulltta {shlex.join(command)}", flush=True)
    if code := main(list(command)):
        sys.exit(code)


def align(*words: str, reward: str, out: Path) -> None:
    """Align prompts for a reward."""
    show("align", *words, "--reward", reward, "--seed", "0", "--out", str(out), "--overwrite")


def demo() -> None:
    """Align prompts, sample under the null text that ships, and say where to look."""
    began = time.monotonic()
    fast, one, eight, fitted, aligned = (OUT / name for name in ("four-steps", "one", "eight", "fitted", "as-fitted"))
    align(FAST, "--model", "embedded-turbo", reward="clip", out=fast)
    align(ONE, reward="clip", out=one)
    align(*EIGHT, reward="clip", out=eight)
    show(
        *("replay", "embedded", "--prompt", ONE, "--prompt", FAST, "--plain", "--reward", COLOURFUL),
        *("--out", str(fitted), "--overwrite"),
    )
    align(ONE, reward=COLOURFUL, out=aligned)
    print(f"""
Done in {time.monotonic() - began:.0f} s. No weight was changed: only the null text was optimised, for `clip` and at the
end for `{COLOURFUL}`. `clip-b` and `facts` were not: they tell whether the pictures are better. Look at
  {fast / "comparison.png"}  a model distilled to four steps, which has no null branch
  {one / "comparison.png"}       plain and aligned, side by side
  {one / "trace.png"}            how the reward rose, step by step
  {eight / "contact-sheet.png"}  the eight prompts
  {eight / "result.json"}        settings, scores, every step, and the command to run it again
  {fitted / "grid.png"}          plain, and under a null text that was learnt once, at the same cost
  {aligned / "comparison.png"}   aligned for the same reward, at six times the cost""")


if __name__ == "__main__":
    demo()
