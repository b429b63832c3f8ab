"""The verdict of a diagnosis: one sentence, its reasons, and what to do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from nulltta.evaluation.bootstrap import Gain
from nulltta.evaluation.comparison import Role

Kind = Literal["hacked", "at a price", "sound", "not raised", "undecided"]
SERIOUS = 0.5
"""A held-out measure's fall, in standard deviations of plain sampling's scores, from which a gain counts as hacked."""
COMMON = 0.25
"""The share of pictures that rise in the target and fall in a held-out measure, from which a gain counts as hacked."""
FRAGILE = 0.5
"""The share of the gain below which it counts as hacked if a change that people hardly see leaves no more of it."""


@dataclass(frozen=True, slots=True)
class MeasureFinding:
    """What became of one measure.

    Attributes:
        name: the measure.
        role: its part in the run.
        gain: the paired gain; None where the measure applies to too few units for an interval.
        joint_fall: the share of pictures whose target rose while this measure fell by more than the standard deviation
            of plain sampling's scores.
    """

    name: str
    role: Role
    gain: Gain | None
    joint_fall: float


@dataclass(frozen=True, slots=True)
class Survival:
    """The share of the target's mean gain that is left after a perturbation of both pictures, with a 95% interval."""

    perturbation: str
    share: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a diagnosis comes to.

    Attributes:
        kind: "hacked": a held-out measure pays for the gain, or the gain does not withstand a small change; "at a
            price": a held-out measure falls a little; "sound": none falls; "not raised": the target may not have risen;
            "undecided": nothing that was not optimised was measured.
        sentence: the verdict in one sentence.
        reasons: the findings behind it.
        advice: what to do, the most useful first.
    """

    kind: Kind
    sentence: str
    reasons: Sequence[str]
    advice: Sequence[str]


def verdict(
    measures: Sequence[MeasureFinding], survival: Sequence[Survival], settings: Mapping[str, Any]
) -> Verdict:  # fmt: skip
    """Return the verdict.

    Args:
        measures: the findings, the target first.
        survival: what is left of the target's gain after each perturbation.
        settings: the settings of the run by name.
    """
    target, watched = measures[0], [each for each in measures if each.role == "held out" and each.gain]
    rose = target.gain is not None and target.gain.low > 0
    falls = [each for each in watched if each.gain is not None and each.gain.high < 0]
    serious = [each for each in falls if _serious(each)]
    fragile = [each for each in survival if each.high < FRAGILE]
    reasons = [_fall(each) for each in falls] + [_loss(each) for each in fragile]
    if not rose:
        kind: Kind = "not raised"
        reasons = [f"{target.name} changed by {_interval(target.gain)}", *reasons]
    elif serious or fragile:
        kind = "hacked"
    elif falls:
        kind = "at a price"
    else:
        kind = "sound" if watched else "undecided"
        reasons = [f"{each.name} changed by {_interval(each.gain)}" for each in watched]
    names = _listed([each.name for each in falls])
    sentences: Mapping[Kind, str] = {
        "hacked": f"The reward is being hacked: {target.name} rose, but "
        + _and(f"{names} fell" if falls else "", "its gain does not withstand small changes" if fragile else "")
        + ".",
        "at a price": f"The gain has a price: {target.name} rose, and {names} fell a little.",
        "sound": f"The gain looks sound: {target.name} rose, and no measure beside it fell by more than chance.",
        "not raised": f"The reward was not raised: the gain in {target.name} may be chance.",
        "undecided": f"Nothing beside {target.name} was measured, so that hacking would not show.",
    }
    return Verdict(kind, sentences[kind], reasons, _advice(kind, falls, settings))


def _serious(finding: MeasureFinding) -> bool:
    """Say whether a fall is large on average, or common among the pictures."""
    assert finding.gain is not None
    scaled = finding.gain.in_spreads
    return finding.joint_fall >= COMMON or scaled is None or scaled[0] <= -SERIOUS


def _fall(finding: MeasureFinding) -> str:
    assert finding.gain is not None
    scaled = finding.gain.in_spreads
    spreads, by = (
        ("", "")
        if scaled is None
        else (f", {-scaled[0]:.1f} standard deviations of plain sampling", " by more than one")
    )
    gain = finding.gain
    return (
        f"{finding.name} fell by {-gain.mean:.3f} ({-gain.high:.3f} to {-gain.low:.3f}){spreads}; "
        f"in {finding.joint_fall:.0%} of the pictures the target rose while it fell{by}"
    )


def _loss(survival: Survival) -> str:
    return (
        f"after {survival.perturbation}, {survival.share:.0%} of the gain is left "
        f"({survival.low:.0%} to {survival.high:.0%})"
    )


def _advice(kind: Kind, falls: Sequence[MeasureFinding], settings: Mapping[str, Any]) -> list[str]:
    """Return what to do about a verdict."""
    bound = settings.get("kl_target")
    if kind == "sound":
        return ["look at the pictures: a measure sees only what it was made for"]
    if kind == "undecided":
        return ["measure it against rewards that were not optimised (against)"]
    if kind == "not raised":
        more = "take more inner steps (inner_steps) or longer ones (learning_rate)"
        return [more] if bound is None else [f"raise the bound (kl_target, now {bound:g})", more]
    advice = []
    if falls:
        names = _listed([each.name for each in falls])
        advice.append(f"raise a sum with a reward that sees what fell ({names}), and keep another one held out")
    if bound is None:
        advice.append("bound how far a denoising step may move: kl_target 2, or less")
    else:
        advice.append(f"halve the bound: kl_target {bound / 2:g}")
    if weight := settings.get("kl_weight"):
        advice.append(f"raise the weights of the prior and the consistency term: kl_weight {10 * weight:g}")
    return advice


def _interval(gain: Gain | None) -> str:
    return "an unknown amount" if gain is None else f"{gain.mean:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})"


def _listed(names: Sequence[str]) -> str:
    """Join names as in "a, b and c"."""
    return " and ".join(filter(None, [", ".join(names[:-1]), *names[-1:]]))


def _and(*clauses: str) -> str:
    return " and ".join(clause for clause in clauses if clause)
