"""The conclusions in plain words, made from the numbers: what was won, what was lost and what is not known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from nulltta.benchmark.analysis import OURS, PLAIN, Panel
from nulltta.benchmark.contenders import ABLATIONS, RIVALS
from nulltta.benchmark.family import ComparisonFamily, Verdict
from nulltta.benchmark.measures import ALL_RIGHT, FACTS
from nulltta.evaluation.bootstrap import Gain

_AGAINST: Mapping[Verdict, str] = {"win": "is ahead of", "tie": "cannot be told from", "loss": "is behind"}
_CHANGED: Mapping[Verdict, str] = {
    "loss": "lower in", "win": "higher in", "tie": "the same, as far as can be told, in",
}  # fmt: skip


def conclusion(panel: Panel, held_out: str, family: ComparisonFamily) -> list[str]:
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
            said += [f"{label} Null-TTA {sentence}." for sentence in _against_rivals(panel, rivals, measure, family)]
    for measure in (held_out, ALL_RIGHT):
        if measure in panel.measures:
            said += place(panel, measure)
    said.append(_side_effects(panel, family))
    said += [line for measure in (held_out, FACTS) for line in _fallen_under_rivals(panel, rivals, measure, family)]
    return said + [line for measure in (panel.target, held_out) for line in _ablated(panel, measure, family)]


def place(panel: Panel, measure: str) -> list[str]:
    """Say whether Null-TTA is on the frontier of the target and a measure; nothing where its gain is not known."""
    if panel.gain(OURS, panel.target) is None or panel.gain(OURS, measure) is None:
        return []
    frontier = panel.frontier(measure, RIVALS)
    where = "on" if OURS in frontier else "not on"
    return [f"By the mean gains it is {where} the frontier of target and {measure}: {_list(frontier)}."]


def _against_rivals(panel: Panel, rivals: Sequence[str], measure: str, family: ComparisonFamily) -> list[str]:
    """ "is ahead of dps (+0.30 SD (...)) and fk (...); cannot be told from das (...)"."""
    groups = _by_verdict(panel, family, {name: (OURS, measure, name) for name in rivals})
    parts = [f"{said} {_list(groups[kind])}" for kind, said in _AGAINST.items() if groups[kind]]
    return ["; ".join(parts)] if parts else []


def _side_effects(panel: Panel, family: ComparisonFamily) -> str:
    """Return the measures besides the target that Null-TTA lowered or raised."""
    others = [name for name in panel.measures if name != panel.target]
    changed = _by_verdict(panel, family, {name: (OURS, name, PLAIN) for name in others})
    fell, rose = changed["loss"], changed["win"]
    first = f"Under Null-TTA these fell against plain sampling: {_list(fell)}." if fell else (
        "Under Null-TTA no other measure fell so far that the correction leaves it."
    )  # fmt: skip
    return first + (f" These rose: {_list(rose)}." if rose else "")


def _fallen_under_rivals(panel: Panel, rivals: Sequence[str], measure: str, family: ComparisonFamily) -> list[str]:
    """Return the rivals under which a measure fell."""
    fell = _by_verdict(panel, family, {name: (name, measure, PLAIN) for name in rivals})["loss"]
    return [f"{measure} fell under {_list(fell)}."] if fell else []


def _ablated(panel: Panel, measure: str, family: ComparisonFamily) -> list[str]:
    """Return the ablations that change a measure against Null-TTA in full."""
    ablations = [name for name in panel.results if name in ABLATIONS]
    groups = _by_verdict(panel, family, {name: (name, measure, OURS) for name in ablations})
    parts = [f"{said} {_list(groups[kind])}" for kind, said in _CHANGED.items() if groups[kind]]
    return [f"Against Null-TTA in full, {measure} is {'; '.join(parts)}."] if parts else []


def _by_verdict(
    panel: Panel, family: ComparisonFamily, compared: Mapping[str, tuple[str, str, str]]
) -> dict[Verdict, list[str]]:
    """Return labels with their gains, such as "dps (+0.30 SD (...))", by verdict; those without a gain are left out.

    Args:
        panel: where the contenders are.
        family: the tests.
        compared: (contender, measure, the contender it is compared with) by label.
    """
    groups: dict[Verdict, list[str]] = {"win": [], "tie": [], "loss": []}
    for label, (name, measure, over) in compared.items():
        if (gain := panel.gain(name, measure, over)) is not None:
            groups[family.verdict(panel, name, measure, over)].append(f"{label} ({in_sd(gain)})")
    return groups


def in_sd(gain: Gain) -> str:
    """Format a gain as "+1.03 SD (+0.73 to +1.39)", or in the measure's own unit where plain sampling does not vary."""
    if gain.in_spreads is None:
        return f"{gain.mean:+.3g} ({gain.low:+.3g} to {gain.high:+.3g})"
    return "{:+.2f} SD ({:+.2f} to {:+.2f})".format(*gain.in_spreads)


def _list(names: Sequence[str]) -> str:
    """ "a, b and c"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
