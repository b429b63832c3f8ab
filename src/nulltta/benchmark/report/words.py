"""The conclusions in plain words, made from the numbers: what was won, what was lost and what is not known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from nulltta.benchmark.analysis import OURS, PLAIN, Panel, Verdict, verdict
from nulltta.benchmark.contenders import ABLATIONS, RIVALS
from nulltta.benchmark.measures import FACTS
from nulltta.evaluation.bootstrap import Gain

_AGAINST: Mapping[Verdict, str] = {"win": "is ahead of", "tie": "cannot be told from", "loss": "is behind"}
_CHANGED: Mapping[Verdict, str] = {
    "loss": "lower in", "win": "higher in", "tie": "the same, as far as can be told, in",
}  # fmt: skip


def conclusion(panel: Panel, held_out: str) -> list[str]:
    """Write a few sentences on one target at one budget; none without images of Null-TTA for two prompts."""
    raised = panel.gain(OURS, panel.target) if OURS in panel.results else None
    if raised is None:
        return []
    where = f"Target {panel.target}, {panel.budget} per image, {raised.n} prompts"
    said = [f"{where}: Null-TTA changes the target by {in_sd(raised)} of plain sampling's scores."]
    rivals = [name for name in panel.results if name in RIVALS and name not in (OURS, PLAIN)]
    labels = {
        panel.target: "In the target", held_out: f"In {held_out}, which nobody optimised,",
        FACTS: "In the prompt's facts, which a judge reads off the picture,",
    }  # fmt: skip
    for measure, label in labels.items():
        if measure in panel.measures:
            said += [f"{label} Null-TTA {sentence}." for sentence in _against_rivals(panel, rivals, measure)]
    frontier = panel.frontier(held_out, RIVALS)
    if held_out in panel.measures:
        place = "on" if OURS in frontier else "not on"
        said.append(f"By the means it is {place} the frontier of target and {held_out}: {_list(frontier)}.")
    said.append(_side_effects(panel))
    said += [line for measure in (held_out, FACTS) for line in _fallen_under_rivals(panel, rivals, measure)]
    return said + [line for measure in (panel.target, held_out) for line in _ablated(panel, measure)]


def _against_rivals(panel: Panel, rivals: Sequence[str], measure: str) -> list[str]:
    """ "is ahead of dps (+0.30 SD (...)) and fk (...); cannot be told from das (...)"."""
    groups = _by_verdict((name, panel.gain(OURS, measure, over=name)) for name in rivals)
    parts = [f"{said} {_list(groups[kind])}" for kind, said in _AGAINST.items() if groups[kind]]
    return ["; ".join(parts)] if parts else []


def _side_effects(panel: Panel) -> str:
    """Return the measures besides the target that Null-TTA lowered or raised."""
    changed = _by_verdict((name, panel.gain(OURS, name)) for name in panel.measures if name != panel.target)
    fell, rose = changed["loss"], changed["win"]
    first = f"Under Null-TTA these fell against plain sampling: {_list(fell)}." if fell else (
        "Under Null-TTA no other measure fell so far that its interval excludes 0."
    )  # fmt: skip
    return first + (f" These rose: {_list(rose)}." if rose else "")


def _fallen_under_rivals(panel: Panel, rivals: Sequence[str], measure: str) -> list[str]:
    """Return the rivals under which a measure fell."""
    fell = _by_verdict((name, panel.gain(name, measure)) for name in rivals)["loss"]
    return [f"{measure} fell under {_list(fell)}."] if fell else []


def _ablated(panel: Panel, measure: str) -> list[str]:
    """Return the ablations that change a measure against Null-TTA in full."""
    ablations = (name for name in panel.results if name in ABLATIONS)
    groups = _by_verdict((name, panel.gain(name, measure, over=OURS)) for name in ablations)
    parts = [f"{said} {_list(groups[kind])}" for kind, said in _CHANGED.items() if groups[kind]]
    return [f"Against Null-TTA in full, {measure} is {'; '.join(parts)}."] if parts else []


def _by_verdict(gains: Iterable[tuple[str, Gain | None]]) -> dict[Verdict, list[str]]:
    """Return names with their gains, such as "dps (+0.30 SD (...))", by verdict; those without a gain are left out."""
    groups: dict[Verdict, list[str]] = {"win": [], "tie": [], "loss": []}
    for name, gain in gains:
        if gain is not None:
            groups[verdict(gain)].append(f"{name} ({in_sd(gain)})")
    return groups


def in_sd(gain: Gain) -> str:
    """Format a gain as "+1.03 SD (+0.73 to +1.39)", or in the measure's own unit where plain sampling does not vary."""
    if gain.in_spreads is None:
        return f"{gain.mean:+.3g} ({gain.low:+.3g} to {gain.high:+.3g})"
    return "{:+.2f} SD ({:+.2f} to {:+.2f})".format(*gain.in_spreads)


def _list(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
