"""Results as a picture: how much of the machine's arithmetic everybody turns into results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from .case import OURS
from .engines import require
from .machine import cpu_name
from .result import CaseResult, Line
from .table import DISTURBED, thread_count, three_digits, times

LIMITS = {"flops": "multiply-add peak", "bytes": "speed of a copy"}
PAPER, INK, QUIET, RULE = "#ffffff", "#20242a", "#7b828c", "#e3e5e8"
OUR_COLORS = ("#0b6e8a", "#6fb0c2", "#a9d0da")
PEER_COLORS = ("#dfa55c", "#8fa9b8", "#bccad2", "#b79fc4", "#9cb58f")
BAR, GAP, HEADING = 1.0, 0.35, 1.5  # heights, in bars
INCHES_PER_BAR = 0.19
WIDTH, MARGIN_TOP, MARGIN_BOTTOM = 12.0, 1.15, 0.85  # inches


def draw(title: str, results: Sequence[CaseResult], file: Path) -> None:
    """Draws one bar per case, part, number of threads and competitor.

    A bar is the share of the machine's limit that a competitor reaches: the floor's time over its
    own. Competitors that compute something else are drawn as ticks. Lines without a floor are left
    out.

    Args:
        title: of the suite.
        results: of the cases.
        file: to write; its ending names the format.

    Raises:
        MissingPeerError: matplotlib is not installed.
        ValueError: no line has a floor.
    """
    lines = [
        line for result in results for line in result.lines if math.isfinite(line.floor_seconds)
    ]
    if not lines:
        raise ValueError("nothing to draw: no line has a floor (was there a C compiler?)")
    require("matplotlib")
    import matplotlib as mpl
    from matplotlib.figure import Figure

    threads = sorted({line.threads for line in lines})
    groups = list(dict.fromkeys((line.case, line.part) for line in lines))
    colors = _colors(lines)
    settings: Any = {
        "font.family": "sans-serif",
        "font.sans-serif": ["Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans"],
        "font.size": 8,
        "text.color": INK,
        "svg.fonttype": "none",
    }
    with mpl.rc_context(settings):
        bars = sum(HEADING + GAP + _rows(lines, *group, colors) * BAR for group in groups)
        height = bars * INCHES_PER_BAR + MARGIN_TOP + MARGIN_BOTTOM
        figure = Figure(figsize=(WIDTH, height), facecolor=PAPER)
        _headline(figure, title, lines, colors, height)
        for column, count in enumerate(threads):
            width = 0.94 / len(threads)
            axes = figure.add_axes((
                0.03 + column * width,
                MARGIN_BOTTOM / height,
                width - 0.02,
                1 - (MARGIN_TOP + MARGIN_BOTTOM) / height,
            ))  # fmt: skip
            _panel(axes, [line for line in lines if line.threads == count], groups, colors, bars)
            axes.set_title(thread_count(count), loc="left", fontsize=10, weight="bold", pad=4)
        figure.savefig(file, dpi=160)


def _colors(lines: Sequence[Line]) -> dict[str, str]:
    """Returns a colour for everybody who is drawn as a bar, our own variants first."""
    names = list(dict.fromkeys(name for line in lines for name in line.measurements))
    names = [name for name in names if not any(_landmark(line, name) for line in lines)]
    ours = [name for name in names if name.startswith(OURS)]
    peers = [name for name in names if name not in ours]
    return dict(zip(ours, cycle(OUR_COLORS))) | dict(zip(peers, cycle(PEER_COLORS)))


def _headline(
    figure: Any, title: str, lines: Sequence[Line], colors: dict[str, str], height: float
) -> None:
    def at(inches: float) -> float:
        return 1 - inches / height

    figure.text(0.03, at(0.38), title[0].upper() + title[1:], fontsize=15, weight="bold")
    units = sorted({line.work.unit for line in lines if line.work})
    limits = " or ".join(LIMITS[unit] for unit in units)
    subtitle = f"share of the {limits} that becomes results; {cpu_name()}"
    figure.text(0.03, at(0.6), subtitle, color=QUIET, fontsize=9)
    x = 0.97
    for name, color in reversed(colors.items()):
        weight = "bold" if name == OURS else "normal"
        label = figure.text(x, at(0.38), name, ha="right", fontsize=9, weight=weight)
        x = label.get_window_extent().x0 / figure.bbox.width - 0.05 / WIDTH
        figure.text(x, at(0.38), "■", ha="right", color=color, fontsize=11)
        x -= 0.32 / WIDTH
    figure.text(0.03, 0.45 / height, _footer(lines), color=QUIET, va="top", linespacing=1.5)


def _footer(lines: Sequence[Line]) -> str:
    text = (
        "100 % is the floor: the flops or bytes of the case at that speed, measured in each round. "
        "Times are medians; 2.0x: ours is 2.0 times as fast."
    )
    if any(m.landmark for line in lines for m in line.measurements.values()):
        text += " Thin ticks: a plain convolution, for orientation."
    share = max(line.others_share or 0 for line in lines)
    if share > DISTURBED:
        text += f"\nDisturbed: other processes used up to {share:.0%} of the machine."
    return text


def _landmark(line: Line, name: str) -> bool:
    return name in line.measurements and line.measurements[name].landmark


def _rows(lines: Sequence[Line], case: str, part: str, colors: dict[str, str]) -> int:
    present = {
        name
        for line in lines
        if (line.case, line.part) == (case, part)
        for name in line.measurements
        if name in colors
    }
    return len(present)


def _panel(
    axes: Any,
    lines: Sequence[Line],
    groups: Sequence[tuple[str, str]],
    colors: dict[str, str],
    height: float,
) -> None:
    by_group = {(line.case, line.part): line for line in lines}
    axes.set_xlim(0, 112)
    axes.set_ylim(height, 0)
    axes.set_facecolor(PAPER)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.set_yticks([])
    axes.set_xticks(range(0, 101, 20), [f"{x} %" for x in range(0, 101, 20)], color=QUIET)
    axes.tick_params(length=0)
    for x in range(0, 101, 20):
        axes.axvline(x, color=INK if x == 100 else RULE, linewidth=1 if x == 100 else 0.8, zorder=0)
    y = 0.0
    for group in groups:
        line = by_group.get(group)
        y += HEADING
        if line is None:
            continue
        case, part = group
        label = case if case.endswith(part) else f"{case}: {part}"
        axes.text(0, y - 0.3, label, weight="bold", va="bottom", bbox=_backdrop())
        top = y
        for name in colors:
            if name in line.measurements:
                _bar(axes, line, name, colors[name], y + BAR / 2)
                y += BAR
        for name in line.measurements:
            if _landmark(line, name):
                share = 100 * line.floor_seconds / line.measurements[name].median
                axes.plot([share, share], [top, y], color=QUIET, linewidth=0.9, zorder=3)
        y += GAP


def _bar(axes: Any, line: Line, name: str, color: str, y: float) -> None:
    measured = line.measurements[name]
    share = 100 * line.floor_seconds / measured.median
    axes.barh(y, share, height=BAR * 0.82, color=color, zorder=2)
    text = f"{three_digits(measured.median * 1e3)} ms"
    if name != OURS:
        text += f"  {times(measured.ratio)}"
    inside = share > 60
    axes.text(
        share + (-0.8 if inside else 0.8),
        y,
        text,
        ha="right" if inside else "left",
        va="center",
        color=PAPER if inside and name == OURS else INK,
        fontsize=7.5,
        zorder=4,
        bbox=None if inside else _backdrop(),
    )


def _backdrop() -> dict[str, Any]:
    """Paper behind a text, so that grid lines do not run through it."""
    return {"facecolor": PAPER, "edgecolor": "none", "pad": 0.6}
