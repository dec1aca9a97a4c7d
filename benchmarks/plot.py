"""Results as pictures: everybody's time over ours, and what takes the time of a network."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from .case import FLOOR, OURS
from .engines import require
from .result import Line
from .run import Run, SuiteResult
from .table import DISTURBED, three_digits

PAPER, INK, QUIET, RULE, SLOWER = "#ffffff", "#20242a", "#7b828c", "#e3e5e8", "#fbf1ec"
OUR_COLOR = "#0b6e8a"
# Whoever is in several suites looks the same in all of them.
COLORS = {
    "torchvision": "#e07b39",
    "torch NCHW": "#e07b39",
    "openvino": "#6a51a3",
    "onnxruntime": "#c2488d",
    "opencv": "#7a9a3b",
    "pydensecrf": "#7a9a3b",
}
OTHERS = ("#c9a227", "#8c6d5a", "#4a7fb5", "#999999")
KINDS = (
    *("#0b6e8a", "#e07b39", "#7a9a3b", "#c2488d", "#6a51a3", "#c9a227"),
    *("#4a7fb5", "#8c6d5a", "#20242a", "#e8a6c8", "#8fd0c6", "#b4bac2"),
)
TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 100, 300, 1000)
BACKDROP = {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
FLOOR_STYLE = {"marker": "|", "mec": INK, "mfc": INK, "ms": 9, "mew": 2}
# Inches: of a line; above the lines of a suite; of a picture, its left, upper and lower margins.
ROW, HEAD = 0.21, 0.75
WIDTH, LEFT, TOP, BOTTOM = 12.0, 4.1, 0.15, 0.8
# The part of a panel that marks may use; the rest is for our time.
MARKED = 0.82

DPI = 110

Style = dict[str, Any]


def draw(run: Run, file: Path, only: SuiteResult | None = None) -> None:
    """Draws, for each line of a run, the time of everybody over ours, on a logarithmic axis.

    Right of 1 ours is faster. The floor is a tick; our own variants are squares, and who computes
    something else is hollow.

    Args:
        run: with at least one line.
        file: to write; its ending names the format.
        only: the one suite to draw.

    Raises:
        MissingPeerError: matplotlib is not installed.
    """
    figure_of, settings = _matplotlib()
    drawn = [suite for suite in ([only] if only else run.suites) if suite.lines]
    with settings:
        height = TOP + BOTTOM + sum(HEAD + ROW * len(_names(suite.lines)) for suite in drawn)
        figure = figure_of(figsize=(WIDTH, height), facecolor=PAPER)
        top = TOP
        for suite in drawn:
            rows, styles = _names(suite.lines), _styles(suite.lines)
            title = suite.title[0].upper() + suite.title[1:]
            figure.text(0.2 / WIDTH, 1 - (top + 0.18) / height, title, fontsize=12, weight="bold")
            legend = {"floor": FLOOR_STYLE, **styles}
            if all(math.isnan(line.floor_seconds) for line in suite.lines):
                legend = styles
            _legend(figure, legend, 1 - (top + 0.42) / height)
            top += HEAD
            for row, name in enumerate(rows):
                y = 1 - (top + ROW * (row + 0.5)) / height
                figure.text((LEFT - 0.1) / WIDTH, y, name, ha="right", va="center")
            for column, place in enumerate(run.places):
                lines = [line for line in suite.lines if line.place == place]
                width = (WIDTH - LEFT - 0.1) / len(run.places)
                axes = figure.add_axes((
                    (LEFT + column * width) / WIDTH,
                    1 - (top + ROW * len(rows)) / height,
                    (width - 0.15) / WIDTH,
                    ROW * len(rows) / height,
                ))  # fmt: skip
                _panel(axes, lines, rows, _limits(suite.lines), styles)
                axes.set_title(str(place), loc="left", fontsize=9, weight="bold", pad=4)
            top += ROW * len(rows)
        figure.text(0.2 / WIDTH, 0.28 / height, _footer(run), color=QUIET, va="center")
        figure.savefig(file, dpi=DPI)


def draw_split(suite: SuiteResult, file: Path) -> None:
    """Draws what takes the time of each network, as bars of its kinds of layers, at each place.

    Raises:
        MissingPeerError: matplotlib is not installed.
        ValueError: no line of the suite is split.
    """
    bars = [(line, name) for line in suite.lines for name in line.split]
    if not bars:
        raise ValueError(f"{suite.name}: the time of no line is split")
    totals: dict[str, float] = {}
    for line, name in bars:
        for kind, seconds in line.split[name].items():
            totals[kind] = totals.get(kind, 0.0) + seconds
    kinds = sorted(totals, key=lambda kind: -totals[kind])
    colors = dict(zip(kinds, cycle(KINDS), strict=False))
    figure_of, settings = _matplotlib()
    with settings:
        height = 1.15 + 0.24 * len(bars)
        figure = figure_of(figsize=(WIDTH, height), facecolor=PAPER)
        axes = figure.add_axes((0.44, 0.35 / height, 0.5, 1 - 1.1 / height))
        longest = max(sum(line.split[name].values()) for line, name in bars)
        for row, (line, name) in enumerate(bars):
            left = 0.0
            for kind in kinds:
                seconds = line.split[name].get(kind, 0.0)
                axes.barh(row, seconds, left=left, height=0.74, color=colors[kind])
                left += seconds
            text = f"{three_digits(left * 1e3)} ms"
            axes.text(left + 0.008 * longest, row, text, va="center", fontsize=8)
        labels = [f"{line.case}, {line.place}: {name}" for line, name in bars]
        axes.set_yticks(range(len(bars)), labels, fontsize=8)
        axes.set_xlim(0, longest * 1.12)
        axes.set_ylim(len(bars) - 0.4, -0.6)
        axes.tick_params(length=0)
        axes.set_xticks([])
        for spine in axes.spines.values():
            spine.set_visible(False)
        title = "What takes the time of a network (one call, by kind of layer)"
        figure.text(0.2 / WIDTH, 1 - 0.3 / height, title, fontsize=12, weight="bold")
        squares = {
            kind: {"marker": "s", "mec": color, "mfc": color, "ms": 7}
            for kind, color in colors.items()
        }
        _legend(figure, squares, 1 - 0.58 / height)
        figure.savefig(file, dpi=DPI)


def _matplotlib() -> tuple[Any, Any]:
    """Returns matplotlib's figure and a context with our settings."""
    require("matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    settings: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
        "font.size": 8,
        "text.color": INK,
        "svg.fonttype": "none",
    }
    return Figure, mpl.rc_context(settings)


def _names(lines: Iterable[Line]) -> list[str]:
    return list(dict.fromkeys(map(str, lines)))


def _styles(lines: Sequence[Line]) -> dict[str, Style]:
    """Returns how everybody but ours is drawn."""
    names = dict.fromkeys(name for line in lines for name in line.measurements if name != OURS)
    others, ours, landmarks = cycle(OTHERS), cycle("sD^"), cycle("oD")
    styles: dict[str, Style] = {}
    for name in names:
        measured = (line.measurements[name] for line in lines if name in line.measurements)
        hollow = any(measurement.landmark for measurement in measured)
        if name.startswith(OURS):
            color, marker = OUR_COLOR, next(ours)
        elif hollow:
            color, marker = QUIET, next(landmarks)
        else:
            color, marker = COLORS.get(name) or next(others), "o"
        face = "none" if hollow else color
        styles[name] = {"marker": marker, "mec": color, "mfc": face, "ms": 5.5, "mew": 1.2}
    return styles


def _ratio(line: Line, name: str) -> float:
    """Returns a time over ours, of the floor, too; NaN where there is none."""
    if name != FLOOR:
        return line.measurements[name].ratio if name in line.measurements else math.nan
    ours = line.measurements.get(OURS)
    return 1 / ours.ratio if ours else math.nan


def _limits(lines: Sequence[Line]) -> tuple[float, float]:
    """Returns the ends of the axis, with room for a text at the right of all marks."""
    names = [name for line in lines for name in line.measurements if name != OURS]
    ratios = [_ratio(line, name) for line in lines for name in (*names, FLOOR)]
    ratios = [ratio for ratio in ratios if math.isfinite(ratio)]
    first, last = 0.8 * min([0.6, *ratios]), max([3, *ratios])
    return first, first * (last / first) ** (1 / MARKED)


def _panel(
    axes: Any,
    lines: Sequence[Line],
    rows: Sequence[str],
    limits: tuple[float, float],
    styles: Mapping[str, Style],
) -> None:
    axes.set_xscale("log")
    axes.set_xlim(*limits)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvspan(limits[0], 1, color=SLOWER, zorder=0)
    ticks = [tick for tick in TICKS if limits[0] < tick < limits[1] / 1.5]
    axes.set_xticks(ticks, [f"{tick:g}x" for tick in ticks], color=QUIET, fontsize=7.5)
    axes.set_xticks([], minor=True)
    axes.set_yticks([])
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    for tick in ticks:
        axes.axvline(tick, color=INK if tick == 1 else RULE, linewidth=0.8, zorder=1)
    for line in lines:
        y = rows.index(str(line))
        axes.axhline(y, color=RULE, linewidth=0.6, zorder=1)
        floor = _ratio(line, FLOOR)
        axes.plot([floor, floor], [y - 0.36, y + 0.36], color=INK, linewidth=2, zorder=3)
        for name, style in styles.items():
            axes.plot(_ratio(line, name), y, zorder=4, linestyle="none", **style)
        if OURS in line.measurements:
            text = f"{three_digits(line.measurements[OURS].median * 1e3)} ms"
            axes.text(
                limits[1] * 0.97, y, text, ha="right", va="center", fontsize=7.5, bbox=BACKDROP
            )


def _legend(figure: Any, styles: Mapping[str, Style], y: float) -> None:
    """Draws a mark and a name for each of ``styles``, from left to right."""
    from matplotlib.lines import Line2D

    handles = [Line2D([], [], linestyle="none", **style) for style in styles.values()]
    figure.legend(
        handles,
        list(styles),
        loc="center left",
        bbox_to_anchor=(0.1 / WIDTH, y),
        ncols=len(styles),
        frameon=False,
        fontsize=8.5,
        handletextpad=0.1,
        columnspacing=1.2,
    )


def _footer(run: Run) -> str:
    text = (
        f"{run.machine['cpu']}. Dots: time over ours, medians within a round; right of 1x ours is "
        "faster. Black ticks, where there are some: the floor. At the right: our time."
    )
    share = max(line.others_share or 0.0 for _, line in run)
    if share > DISTURBED:
        text += f"\nDisturbed: other processes used up to {share:.0%} of the machine."
    return text
