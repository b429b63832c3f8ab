"""The plots of a report. Gains are over plain sampling of the same prompts, in standard deviations of its scores."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING, Any

from nulltta.benchmark.analysis import OURS, PLAIN, ArmResult, Panel
from nulltta.benchmark.contenders import ABLATIONS, RIVALS, SWEEPS
from nulltta.evaluation.bootstrap import Gain

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

DPI = 110
LABEL = 120, 15  # width and height of a name in pixels
GREY = "#8c959f"
PALETTE = (
    "#0969da", "#bf8700", "#8250df", "#1a7f37", "#bf3989", "#953800", "#1b7c83",
    "#54aeff", "#e3b341", "#c297ff", "#4ac26b", "#ff80c8", "#fb8f44", "#3fc1c9", "#57606a",
)  # fmt: skip
COLOURS = {
    **dict(zip((name for name in RIVALS if name not in (PLAIN, OURS)), cycle(PALETTE), strict=False)),
    PLAIN: "#1f2328", OURS: "#cf222e",
}  # fmt: skip
"""The colour of each rival; ablations and sweeps are grey."""


def pareto(panels: Sequence[Panel], held_out: str) -> bytes:
    """Plot the target against the held-out measure, one subplot per budget; up and to the right is better."""
    figure = _figure(5.2 * len(panels), 4.6)
    points: list[dict[str, tuple[float, float]]] = [{} for _ in panels]
    for axis, panel, at in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, points, strict=True):
        for name in panel.results:
            x, y = panel.gain(name, panel.target), panel.gain(name, held_out)
            if name not in SWEEPS and x is not None and y is not None and x.in_spreads and y.in_spreads:
                _cross(axis, name, x.in_spreads, y.in_spreads)
                at[name] = x.in_spreads[0], y.in_spreads[0]
        axis.axhline(0, color=GREY, linewidth=0.8)
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.set_title(panel.budget, parse_math=False, fontsize=11)
        axis.set_xlabel(f"{panel.target} (target), SD of plain", parse_math=False)
        axis.set_ylabel(f"{held_out} (not optimised), SD of plain", parse_math=False)
    figure.draw_without_rendering()  # the layout has to be known before names are placed
    for axis, at in zip(figure.axes, points, strict=True):
        _name(axis, at)
    return _png(figure)


def against_cost(panels: Sequence[Panel]) -> bytes:
    """Plot the target's gain of every rival over denoiser evaluations and over seconds."""
    figure = _figure(10.4, 4.4)
    costs: Mapping[str, Callable[[ArmResult], float]] = {
        "denoiser evaluations per image": lambda result: result.cost,
        "seconds per image": lambda result: result.seconds,
    }
    names = dict.fromkeys(name for panel in panels for name in panel.results if name in RIVALS)
    for axis, (label, cost) in zip(figure.subplots(1, 2), costs.items(), strict=True):
        for name in names:
            points = [
                (cost(panel.results[name]), gain.in_spreads)
                for panel in panels
                if name in panel.results
                and (gain := panel.gain(name, panel.target))
                and gain.in_spreads
                and not math.isnan(cost(panel.results[name]))
            ]
            points = points[:1] if name == PLAIN else sorted(points)
            axis.errorbar(
                [x for x, _ in points], [y[0] for _, y in points], _bars([y for _, y in points]),
                color=COLOURS[name], marker="o", markersize=4, linewidth=1.2, elinewidth=0.7, label=name,
            )  # fmt: skip
        axis.set_xlabel(label)
    figure.axes[0].set_ylabel(f"{panels[0].target}, SD of plain", parse_math=False)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), fontsize=8, loc="outside right upper")
    return _png(figure)


def bars(panel: Panel, names: Sequence[str], measures: Sequence[str], over: str = PLAIN) -> bytes:
    """Plot the gains of some contenders over another one in several measures, with their intervals."""
    figure = _figure(3.4 * len(measures) + 1.6, 0.32 * len(names) + 1.4)
    axes = figure.subplots(1, len(measures), sharey=True, squeeze=False)[0]
    for axis, measure in zip(axes, measures, strict=True):
        for row, name in enumerate(names):
            gain = panel.gain(name, measure, over)
            if gain is not None and gain.in_spreads is not None:
                xerr = _bars([gain.in_spreads])
                axis.errorbar([gain.in_spreads[0]], [row], xerr=xerr, color="#57606a", marker="o", markersize=5)
        axis.axvline(0, color=GREY, linewidth=0.8)
        axis.set_title(measure, parse_math=False, fontsize=11)
        axis.set_xlabel("SD of plain")
    axes[0].set_yticks(range(len(names)), list(names))
    axes[0].invert_yaxis()
    return _png(figure)


def trade_off(panels: Sequence[Panel], parts: tuple[str, str]) -> bytes:
    """Plot what each rival reaches in both rewards, as a line through the weights."""
    figure = _figure(6.4, 5.2)
    axis = figure.subplots()
    first, second = parts
    for name in dict.fromkeys(name for panel in panels for name in panel.results if name in RIVALS):
        gains = [(p.gain(name, first), p.gain(name, second)) for p in panels if name in p.results]
        points = [(_mean_in_spreads(a), _mean_in_spreads(b)) for a, b in gains]
        axis.plot(
            [x for x, _ in points], [y for _, y in points], marker="o", markersize=4, linewidth=1.2,
            color=COLOURS[name], label=name,
        )  # fmt: skip
    axis.set_xlabel(f"{first}, SD of plain", parse_math=False)
    axis.set_ylabel(f"{second}, SD of plain", parse_math=False)
    axis.legend(fontsize=8)
    return _png(figure)


def _cross(axis: Axes, name: str, x: tuple[float, float, float], y: tuple[float, float, float]) -> None:
    """Draw a point with its intervals in both directions."""
    small = name in ABLATIONS
    colour = COLOURS.get(name, GREY)
    axis.errorbar(
        [x[0]], [y[0]], yerr=_bars([y]), xerr=_bars([x]), color=colour, marker="o", markersize=3 if small else 6,
        elinewidth=0.3 if small else 0.8,
    )  # fmt: skip


def _name(axis: Axes, points: Mapping[str, tuple[float, float]]) -> None:
    """Write the name of each point beside it, moved up where another name is."""
    taken: list[tuple[float, float]] = []
    for name, point in sorted(points.items(), key=lambda item: item[1][1]):
        x, y = axis.transData.transform(point)
        up = 0.0
        while any(abs(x - left) < LABEL[0] and abs(y + up - low) < LABEL[1] for left, low in taken):
            up += 1
        taken.append((x, y + up))
        right = x + LABEL[0] < axis.bbox.x1  # there is room to the right
        axis.annotate(
            name, point, xytext=(5 if right else -5, 3 + up * 72 / DPI), textcoords="offset points",
            ha="left" if right else "right", color=COLOURS.get(name, GREY),
            fontsize=6.5 if name in ABLATIONS else 9, in_layout=False,
            bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.7, "pad": 0},
        )  # fmt: skip


def _bars(points: Sequence[tuple[float, float, float]]) -> list[list[float]]:
    """(mean, low, high) as the distances below and above that matplotlib takes."""
    return [[mean - low for mean, low, _ in points], [high - mean for mean, _, high in points]]


def _mean_in_spreads(gain: Gain | None) -> float:
    return gain.in_spreads[0] if gain is not None and gain.in_spreads is not None else float("nan")


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=DPI, layout="constrained")


def _png(figure: Figure) -> bytes:
    for axis in figure.axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
