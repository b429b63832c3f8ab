"""The course of the reward as SVG, drawn anew after every denoising step.

The drawing is stretched to whatever width there is, strokes and dots are not; words stand beside it, in the page's own
letters, so that a telephone shows them as large as a desk.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nulltta.contracts import Step
from nulltta.runs.figures import course, number

COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#1b7c83", "#bf3989", "#57606a")
Points = Sequence[tuple[float, float]]


def reward_curve(
    trace: Sequence[Step], ahead: Sequence[int] = (), plain: float | None = None, initial: Sequence[float] = ()
) -> str:
    """A line a prompt, inner step by inner step, and for a single prompt the candidates of each denoising step.

    ahead: inner steps of the denoising steps to come: their room stays empty. One without any is as wide as with one.
    plain, initial: a single prompt's rewards of plain sampling, a dashed line, and of its initial latents.
    """
    prompts = trace[0].candidate_rewards.shape[0]
    courses = [course(trace, initial, b) for b in range(prompts)]
    lines = [reward for reward, _, _, _ in courses]
    spots = courses[0][1] if prompts == 1 else []
    width = courses[0][2][-1][0] + sum(max(1, count) for count in ahead)
    values = [y for points in (*lines, spots) for _, y in points] + ([] if plain is None else [plain])
    frame = _Frame(width, min(values), max(values))
    parts = [f'<path class="spots" d="{frame.dots(spots)}"/>']
    if plain is not None:
        parts.append(f'<path class="plain" style="stroke:{colour(0, 1)}" d="M0 {frame.y(plain):.2f}H100"/>')
    parts += [f'<path style="stroke:{colour(b, prompts)}" d="{frame.line(line)}"/>' for b, line in enumerate(lines)]
    taken = sum(len(step.inner_rewards) for step in trace)
    inner = f"{taken} of {taken + sum(ahead)} inner steps" if ahead else f"{taken} inner steps"
    dashes = "" if plain is None else "<span>dashed: plain</span>"
    return (
        f'<figure class="curve"><div class="ends"><span>{number(max(values))}</span><span>{number(min(values))}</span>'
        '</div><svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="reward">'
        f"{''.join(parts)}</svg><figcaption><span>reward, {inner}</span>{dashes}</figcaption></figure>"
    )


def legend(prompts: Sequence[str]) -> str:
    """Which colour is whose; nothing for a single prompt."""
    if len(prompts) == 1:
        return ""
    items = (f'<li style="--c:{colour(b, len(prompts))}">{escape(prompt)}</li>' for b, prompt in enumerate(prompts))
    return f'<ul class="legend">{"".join(items)}</ul>'


def colour(b: int, prompts: int) -> str:
    """Of prompt b of so many; a single one's is the page's own."""
    return "var(--color-accent)" if prompts == 1 else COLOURS[b % len(COLOURS)]


class _Frame:
    """From (inner step, reward) to the drawing's 100 × 100, with a little air above and below."""

    def __init__(self, width: float, low: float, high: float) -> None:
        self.width, self.low, self.height = max(1.0, width), low, (high - low) or 1.0

    def x(self, x: float) -> float:
        return 100 * x / self.width

    def y(self, y: float) -> float:
        return 96 - 92 * (y - self.low) / self.height

    def line(self, points: Points) -> str:
        return "M" + "L".join(f"{self.x(x):.2f} {self.y(y):.2f}" for x, y in points)

    def dots(self, points: Points) -> str:
        """Strokes without length: their round ends are dots, whatever the stretch."""
        return "".join(f"M{self.x(x):.2f} {self.y(y):.2f}h0" for x, y in points)
