"""Durations, headlines and file names in words."""

from __future__ import annotations

import re
from collections.abc import Mapping

from nulltta.display.formatting import number, signed
from nulltta.evaluation.comparison import Comparison

LONGEST_NAME = 48
"""The number of characters of a prompt that a file name keeps."""
_BETTER: Mapping[str, str] = {
    "clip": "the picture shows what the prompt says",
    "clip-b": "the same by a second judge, best kept for checking",
    "scenes-clip": "the picture shows what the prompt says",
    "scenes-conv": "the same by a second judge, best kept for checking",
    "scenes-questions": "questions about the prompt are answered right, best kept for checking",
    "colourfulness": "more vivid colours",
    "brightness": "lighter",
    "sharpness": "crisper edges",
    "jpeg": "smoother, with fewer details",
    "jpeg-incompressibility": "busier, with more details",
    "pickscore": "what people preferred on Pick-a-Pic",
    "hpsv2": "what people preferred (HPS v2)",
    "hpsv2.1": "what people preferred (HPS v2.1)",
    "hpsv3": "what people preferred (HPS v3)",
    "imagereward": "what people preferred (ImageReward)",
    "mps": "what people preferred (MPS)",
    "aesthetic": "what people found beautiful (LAION)",
    "aesthetic-v2.5": "what people found beautiful (v2.5)",
    "clipscore": "the picture shows what the prompt says",
    "siglip": "the picture shows what the prompt says",
    "vqascore": "a model that looks says it shows the prompt",
    "nsfw": "safe for work",
    "brisque": "fewer blocks, less noise and blur",
}
"""What more of a reward means to somebody who looks at the picture."""


def better(reward: str, summary: str) -> str:
    """Return what more of a reward means: in plain words, or else the summary of its computation."""
    return _BETTER.get(reward, summary)


def duration(seconds: float) -> str:
    """Format a duration as "8 s", "2 min 5 s" or "1 h 3 min"."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    hours, minutes = divmod(whole // 60, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {whole % 60} s"


def headline(comparison: Comparison) -> str:
    """Return one line on a result: "clip 0.888 → 0.932 · second judge clip-b +0.043 · facts 0.750 → 1.000"."""
    said = []
    for name, score in comparison.scores.items():
        if score.role == "target" or name == "facts":
            said.append(f"{name} {number(score.plain)} → {number(score.aligned)}")
        elif score.role == "held out":
            said.append(f"second judge {name} {signed(score.gain)}")
    return " · ".join(part for part in said if "–" not in part)


def file_name(prompt: str, seed: int, ending: str) -> str:
    """Return the name that a browser saves a file under: "two-foxes-seed-0.png"."""
    words = "-".join(re.findall(r"\w+", prompt.lower()))[:LONGEST_NAME].strip("-")
    return f"{words or 'nulltta'}-seed-{seed}{ending}"
