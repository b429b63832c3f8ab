"""The conclusion, in plain words made from the numbers: what was won, what was lost, what is not known."""

from __future__ import annotations

from collections.abc import Sequence

from nulltta.benchmark.analysis import OURS, PLAIN, Panel, verdict
from nulltta.benchmark.contenders import ABLATIONS, RIVALS
from nulltta.benchmark.measures import FACTS
from nulltta.statistics import Gain

_SAID = {"win": "is ahead of", "tie": "cannot be told from", "loss": "is behind"}


def conclusion(panel: Panel, held_out: str) -> list[str]:
    """A few sentences on one target at one budget; none without Null-TTA's images of two prompts."""
    raised = panel.gain(OURS, panel.target) if OURS in panel.results else None
    if raised is None:
        return []
    where = f"Target {panel.target}, {panel.budget} an image, {raised.n} prompts"
    said = [f"{where}: Null-TTA changes the target by {in_sd(raised)} of plain sampling's scores."]
    rivals = [name for name in panel.results if name in RIVALS and name not in (OURS, PLAIN)]
    labels = {
        panel.target: "In the target", held_out: f"In {held_out}, which nobody optimised,",
        FACTS: "In the prompt's facts, which a judge reads off the picture,",
    }  # fmt: skip
    for measure, label in labels.items():
        if measure in panel.measures:
            said += [f"{label} Null-TTA {sentence}." for sentence in _standing(panel, rivals, measure)]
    frontier = panel.frontier(held_out, RIVALS)
    if held_out in panel.measures:
        place = "on" if OURS in frontier else "not on"
        said.append(f"By the means it is {place} the frontier of target and {held_out}: {_list(frontier)}.")
    said.append(_fallen(panel))
    said += [line for measure in (held_out, FACTS) for line in _others(panel, rivals, measure)]
    return said + [line for measure in (panel.target, held_out) for line in _ablated(panel, measure)]


def _standing(panel: Panel, rivals: Sequence[str], measure: str) -> list[str]:
    """ "is ahead of dps (by +0.30 SD) and fk (...); cannot be told from das (...)"."""
    groups: dict[str, list[str]] = {"win": [], "tie": [], "loss": []}
    for name in rivals:
        gain = panel.gain(OURS, measure, over=name)
        if gain is not None:
            groups[verdict(gain)].append(f"{name} ({in_sd(gain)})")
    parts = [f"{_SAID[kind]} {_list(names)}" for kind, names in groups.items() if names]
    return ["; ".join(parts)] if parts else []


def _fallen(panel: Panel) -> str:
    """What Null-TTA lowered, and what it raised, besides the target."""
    changed: dict[str, list[str]] = {"win": [], "loss": []}
    for measure in panel.measures:
        gain = panel.gain(OURS, measure)
        if measure != panel.target and gain is not None and verdict(gain) != "tie":
            changed[verdict(gain)].append(f"{measure} ({in_sd(gain)})")
    fell, rose = changed["loss"], changed["win"]
    first = f"Under Null-TTA these fell against plain sampling: {_list(fell)}." if fell else (
        "Under Null-TTA no other measure fell so far that its interval excludes 0."
    )  # fmt: skip
    return first + (f" These rose: {_list(rose)}." if rose else "")


def _others(panel: Panel, rivals: Sequence[str], measure: str) -> list[str]:
    """Rivals under which a measure fell."""
    fell = []
    for name in rivals:
        gain = panel.gain(name, measure)
        if gain is not None and verdict(gain) == "loss":
            fell.append(f"{name} ({in_sd(gain)})")
    return [f"{measure} fell under {_list(fell)}."] if fell else []


def _ablated(panel: Panel, measure: str) -> list[str]:
    """Which ablations change a measure against Null-TTA in full."""
    found: dict[str, list[str]] = {"loss": [], "win": [], "tie": []}
    for name in (name for name in panel.results if name in ABLATIONS):
        gain = panel.gain(name, measure, over=OURS)
        if gain is not None:
            found[verdict(gain)].append(f"{name} ({in_sd(gain)})")
    changed = [
        f"{word} {_list(found[kind])}" for kind, word in (("loss", "lower in"), ("win", "higher in")) if found[kind]
    ]
    same = [f"the same, as far as can be told, in {_list(found['tie'])}"] if found["tie"] else []
    return [f"Against Null-TTA in full, {measure} is {'; '.join([*changed, *same])}."] if changed or same else []


def in_sd(gain: Gain) -> str:
    """ "+1.03 SD (+0.73 to +1.39)"."""
    if gain.in_spreads is None:
        return f"{gain.mean:+.3g} ({gain.low:+.3g} to {gain.high:+.3g})"
    return "{:+.2f} SD ({:+.2f} to {:+.2f})".format(*gain.in_spreads)


def _list(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
