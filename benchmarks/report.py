"""``python -m benchmarks report``: a run as a page to read, with pictures and commands."""

from __future__ import annotations

import argparse
import math
import statistics
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from . import kernels, plot
from .case import OURS
from .measure import Measuring
from .options import add_measuring, make_plan
from .place import NoDeviceError
from .result import CaseResult, Line
from .run import Run, SuiteResult, load
from .table import DISTURBED, Table, amount, shares, three_digits, times

PAGE = Path(__file__).with_name("REPORT.md")
# A row in which a peer's time is less than this share of ours is one in which it is faster.
BEHIND = 0.95
# Columns of words.
WORDS = {"suite", "row", "place", "who", "shape", "on", "adds MB"} | {
    "peers: their time / ours",
    "time of one call, by kind of layer",
}

HEAD = """\
# Benchmarks: what was measured

Written by `python -m benchmarks report`; do not edit. Every competitor's result was compared with
ours before it was timed, all took turns in the same minutes, and a ratio is the median of ratios of
times of the same round ([README.md](README.md)). In tables and pictures a peer's number is **its
time / ours: above 1 ours is faster**. The floor is what the machine needs for the multiplications
and additions of the problem, or for a copy of as many bytes.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes the report; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks report", description=__doc__)
    parser.add_argument(
        "run", nargs="?", type=Path, help="what --json wrote (default: everything is measured now)"
    )
    parser.add_argument(
        "--output", type=Path, default=PAGE, metavar="FILE", help="(default: %(default)s)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep what was measured in FILE")
    add_measuring(parser)
    options = parser.parse_args(arguments)
    status = 0
    try:
        for name, file in (("--output", options.output), ("--json", options.json)):
            if file and not file.parent.is_dir():
                raise ValueError(f"{name}: {file.parent} is no folder")
        if options.run:
            run = load(options.run)
        else:
            words = ["report", *(arguments or [])]
            measuring = Measuring(make_plan([], options), words, Table(), options.json)
            run, status = measuring.all(), measuring.status
    except (ValueError, NoDeviceError) as error:
        parser.error(str(error))
    for file in write(run, options.output):
        print(f"wrote {file}")
    return status


def write(run: Run, page: Path) -> Iterator[Path]:
    """Writes a page and its pictures, which lie beside it, and yields their paths."""
    pictures: dict[str, list[Path]] = {}
    for suite in run.suites:
        if suite.lines:
            picture = page.with_name(f"{page.stem}-{suite.name}.png")
            plot.draw(run, picture, suite)
            pictures[suite.name] = [picture]
            if any(line.split for line in suite.lines):
                picture = page.with_name(f"{page.stem}-{suite.name}-split.png")
                plot.draw_split(suite, picture)
                pictures[suite.name].append(picture)
            yield from pictures[suite.name]
    parts = [HEAD, *_what(run), *_summary(run), *_behind(run)]
    for suite in run.suites:
        parts += _suite(suite, pictures.get(suite.name, []))
    parts += _kernels(page)
    page.write_text("\n".join(parts))
    yield page


def _what(run: Run) -> Iterator[str]:
    machine = run.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    gpu = f"{machine['gpu']}; " if "gpu" in machine else ""
    yield "## The run\n"
    yield f"    {run.command}\n"
    yield (
        f"{'A quick look' if run.quick else 'A full run'} of {run.when}, on "
        f"{', '.join(map(str, run.places))}: {gpu}{machine['cpu']}, {machine['cores']} cores, "
        f"{machine['system']}, Python {machine['python']}, {versions}. "
        f"Floor: {run.floor or 'not measured (no C compiler)'}.\n"
    )
    if not run.finished:
        yield "**This run did not come to its end: rows are missing.**\n"
    share = max((line.others_share or 0.0 for _, line in run), default=0.0)
    if share > DISTURBED:
        yield f"**Other processes used up to {share:.0%} of the machine meanwhile.**\n"


def _summary(run: Run) -> Iterator[str]:
    yield "## Summary\n"
    yield "Medians over the rows of a suite (the smallest and the largest in brackets).\n"
    rows = [["suite", "rows", "ours / floor", "peers: their time / ours", "targets met"]]
    for suite in run.suites:
        lines = [line for line in suite.lines if OURS in line.measurements]
        if lines:
            verdicts = [v for line in lines for v in line.verdicts if v.met is not None]
            met = f"{sum(v.met is True for v in verdicts)} of {len(verdicts)}" if verdicts else "-"
            peers = {name: _ratios(lines, name) for name in _peers(lines)}
            text = "; ".join(f"{name} {_spread(ratios)}" for name, ratios in peers.items())
            floors = _spread(_ratios(lines, OURS))
            rows.append([f"[{suite.name}](#{suite.name})", str(len(lines)), floors, text, met])
    yield from _markdown(rows)
    yield ""


def _peers(lines: Iterable[Line]) -> list[str]:
    """Returns who computes the same, our own variants left out."""
    return list(
        dict.fromkeys(
            name
            for line in lines
            for name, measured in line.measurements.items()
            if not name.startswith(OURS) and not measured.landmark
        )
    )


def _ratios(lines: Iterable[Line], name: str) -> list[float]:
    found = [line.measurements[name].ratio for line in lines if name in line.measurements]
    return [ratio for ratio in found if math.isfinite(ratio)]


def _spread(ratios: Sequence[float]) -> str:
    if not ratios:
        return "-"
    ends = f" ({times(min(ratios))} - {times(max(ratios))})" if len(ratios) > 1 else ""
    return times(statistics.median(ratios)) + ends


def _behind(run: Run) -> Iterator[str]:
    """Says where somebody is faster."""
    rows = [["suite", "row", "place", "who", "its time / ours"]]
    for suite, line in run:
        for name in _peers([line]):
            ratio = line.measurements[name].ratio
            if ratio < BEHIND:
                rows.append([suite, str(line), str(line.place), name, times(ratio)])
    yield f"Rows in which a peer is faster (takes less than {BEHIND:.0%} of our time):\n"
    yield from _markdown(rows) if len(rows) > 1 else ["none."]
    yield ""


def _suite(suite: SuiteResult, pictures: Sequence[Path]) -> Iterator[str]:
    yield f"## {suite.name}\n"
    yield f"{suite.title[0].upper()}{suite.title[1:]}: `python -m benchmarks {suite.name}`.\n"
    for note in suite.notes:
        yield f"- {note}"
    yield ""
    for picture in pictures:
        yield f"![{suite.title}]({picture.name})\n"
    names = [n for n in _names(suite.lines) if n != OURS]
    floor = any(line.work for line in suite.lines)
    head = ["shape", "on", "ours, ms", *(["floor, ms", "ours / floor"] if floor else []), *names]
    rows = [[*head, "adds MB"]]
    for result in suite.results:
        for line in result.lines:
            rows.append(list(_row(result, line, names, floor=floor)))
    yield from _markdown(rows)
    yield ""
    split = [
        [str(line), str(line.place), name, shares(seconds)]
        for line in suite.lines
        for name, seconds in line.split.items()
    ]
    if split:
        yield from _markdown([["shape", "on", "who", "time of one call, by kind of layer"], *split])
        yield ""


def _names(lines: Iterable[Line]) -> list[str]:
    lists = [[*line.measurements, *line.refused, *line.missing] for line in lines]
    return list(dict.fromkeys(name for names in lists for name in names))


def _row(result: CaseResult, line: Line, names: Sequence[str], *, floor: bool) -> Iterator[str]:
    ours = line.measurements.get(OURS)
    yield str(line) + (f" ({amount(line.work)})" if line.work else "")
    yield str(line.place)
    yield three_digits(ours.median * 1e3) if ours else "-"
    if floor:
        yield three_digits(line.floor_seconds * 1e3)
        yield times(ours.ratio) if ours else "-"
    for name in names:
        measured = line.measurements.get(name)
        word = "refused" if name in line.refused else "missing" if name in line.missing else "-"
        yield times(measured.ratio) if measured else word
    memory = {name: grown for name, grown in result.memory.items() if grown is not None}
    yield "; ".join(f"{name} {grown / 1e6:.1f}" for name, grown in memory.items()) or "-"


def _kernels(page: Path) -> Iterator[str]:
    yield "## CUDA kernels\n"
    yield (
        "Registers, shared memory and occupancy of every kernel, what each launch moves and "
        "computes, and the time that GPUs need for that at the least (predicted, not measured): "
        f"`python -m benchmarks kernels`, recorded in {kernels.TABLE.name}.\n"
    )


def _markdown(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """A table whose first row is its head; numbers to the right, words to the left."""
    yield f"| {' | '.join(rows[0])} |"
    yield f"|{'|'.join(' --- ' if name in WORDS else ' ---: ' for name in rows[0])}|"
    for row in rows[1:]:
        yield f"| {' | '.join(row)} |"
