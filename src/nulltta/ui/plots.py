"""The curve of the reward as SVG, drawn again after every denoising step.

Its range is that of the curve and of plain sampling; candidates far outside would press both flat, and are left out.

The drawing is stretched to the available width, but its strokes and dots are not. The labels are HTML beside the
drawing, so that they have the same size on a telephone and on a large screen.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from nulltta.contracts import Step
from nulltta.display.formatting import number
from nulltta.runs.figures import course

COLOURS = ("#0969da", "#cf222e", "#1a7f37", "#8250df", "#bf8700", "#1b7c83", "#bf3989", "#57606a")
Points = Sequence[tuple[float, float]]


def reward_curve(
    trace: Sequence[Step], ahead: Sequence[int] = (), plain: float | None = None, initial: Sequence[float] = ()
) -> str:
    """Draw one line per prompt over the inner steps and, for a single prompt, the candidates as dots.

    Args:
        trace: the steps so far.
        ahead: the numbers of inner steps of the coming denoising steps, for which room is left. A step without
            any is as wide as one inner step.
        plain: the reward of plain sampling for a single prompt, drawn as a dashed line; None to leave it out.
        initial: the rewards of a single prompt's initial latents.
    """
    prompts = trace[0].candidate_rewards.shape[0]
    courses = [course(trace, initial, b) for b in range(prompts)]
    lines = [_line(reward, chosen) for reward, _, chosen, _ in courses]
    width = courses[0][2][-1][0] + sum(max(1, count) for count in ahead)
    values = [y for points in lines for _, y in points] + ([] if plain is None else [plain])
    frame = _PlotScale(width, min(values), max(values))
    spots = [spot for spot in courses[0][1] if frame.holds(spot[1])] if prompts == 1 else []
    parts = [f'<path class="spots" d="{frame.dots(spots)}"/>']
    if plain is not None:
        parts.append(f'<path class="plain" style="stroke:{colour(0, 1)}" d="M0 {frame.y(plain):.2f}H100"/>')
    parts += [f'<path style="stroke:{colour(b, prompts)}" d="{frame.line(line)}"/>' for b, line in enumerate(lines)]
    taken = sum(len(step.inner_rewards) for step in trace)
    inner = f"{taken} of {taken + sum(ahead)} inner steps" if ahead else f"{taken} inner steps"
    dashes = "" if plain is None else "<span>dashed: plain</span>"
    return (
        f'<figure class="curve"><div class="ends"><span>{number(max(values))}</span><span>{number(min(values))}</span>'
        '</div><svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" '
        f'aria-label="reward from {number(lines[0][0][1])} to {number(lines[0][-1][1])}">'
        f"{''.join(parts)}</svg><figcaption><span>reward, {inner}</span>{dashes}</figcaption></figure>"
    )


def legend(prompts: Sequence[str]) -> str:
    """Return the legend of prompts and colours; "" for a single prompt."""
    if len(prompts) == 1:
        return ""
    items = (f'<li style="--c:{colour(b, len(prompts))}">{escape(prompt)}</li>' for b, prompt in enumerate(prompts))
    return f'<ul class="legend">{"".join(items)}</ul>'


def colour(b: int, prompts: int) -> str:
    """Return the colour of prompt b; that of a single prompt is the accent colour of the page."""
    return "var(--color-accent)" if prompts == 1 else COLOURS[b % len(COLOURS)]


def _line(reward: Points, chosen: Points) -> Points:
    """Return the reward at every inner step, and that of the selected candidate after every denoising step."""
    return sorted({**dict(chosen), **dict(reward)}.items())


class _PlotScale:
    """Maps (inner step, reward) to the drawing's 100 × 100 units, with a margin above and below."""

    def __init__(self, width: float, low: float, high: float) -> None:
        self.width, self.low, self.high, self.height = max(1.0, width), low, high, (high - low) or 1.0

    def holds(self, y: float) -> bool:
        """Return whether a value lies within the range."""
        return self.low <= y <= self.high

    def x(self, x: float) -> float:
        return 100 * x / self.width

    def y(self, y: float) -> float:
        return 96 - 92 * (y - self.low) / self.height

    def line(self, points: Points) -> str:
        """Return the path through points."""
        return "M" + "L".join(f"{self.x(x):.2f} {self.y(y):.2f}" for x, y in points)

    def dots(self, points: Points) -> str:
        """Return strokes of no length, whose round ends are dots however the drawing is stretched."""
        return "".join(f"M{self.x(x):.2f} {self.y(y):.2f}h0" for x, y in points)
