"""What `make demo` runs: the command line, three times, on the embedded model.

One prompt in four steps, the fastest picture; a prompt whose picture plain sampling gets wrong; and a batch of eight.
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


def align(*words: str) -> None:
    """Show a `nulltta align` command and run it; leave with its exit code if it fails."""
    command = ["align", *words, "--reward", "clip", "--seed", "0", "--overwrite"]
    print(f"\n$ nulltta {shlex.join(command)}", flush=True)
    if code := main(command):
        sys.exit(code)


def demo() -> None:
    """Align one prompt in four steps, one in the usual ones and a batch of eight, and say where to look."""
    began = time.monotonic()
    fast, one, eight = OUT / "four-steps", OUT / "one", OUT / "eight"
    align(FAST, "--model", "embedded-turbo", "--out", str(fast))
    align(ONE, "--out", str(one))
    align(*EIGHT, "--out", str(eight))
    print(f"""
Done in {time.monotonic() - began:.0f} s. No weight was changed: only the null text was optimised, for `clip`.
`clip-b` and `facts` were not: they tell whether the pictures are better. Look at
  {fast / "comparison.png"}  a model distilled to four steps, which has no null branch
  {one / "comparison.png"}       plain and aligned, side by side
  {one / "trace.png"}            how the reward rose, step by step
  {eight / "contact-sheet.png"}  the eight prompts
  {eight / "result.json"}        settings, scores, every step, and the command to run it again""")


if __name__ == "__main__":
    demo()
