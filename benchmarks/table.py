"""Results on a terminal: a block per case as soon as it is measured, a summary at the end."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TextIO

from .case import OURS, Work
from .result import CaseResult, Line, Verdict

NAME_WIDTH = 16
DISTURBED = 0.1


class Style:
    """Terminal attributes, or nothing where the output is not a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._on = stream.isatty() and "NO_COLOR" not in os.environ

    def __call__(self, text: str, code: str) -> str:
        """Returns ``text`` with an SGR code around it; its visible width stays."""
        return f"\x1b[{code}m{text}\x1b[0m" if self._on else text

    def bold(self, text: str) -> str:
        """Emphasis: titles, and our own line."""
        return self(text, "1")

    def verdict(self, text: str, good: bool | None) -> str:
        """Green, red, or plain where nothing was measured."""
        return text if good is None else self(text, "32" if good else "31")


def three_digits(value: float) -> str:
    """Formats with three significant digits and no exponent: 0.0123, 1.23, 12.3, 1234."""
    if not math.isfinite(value):
        return "-"
    if value == 0:
        return "0"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:.{digits}f}"


def times(value: float) -> str:
    """Formats a ratio: 0.08x, 1.29x, 12.3x, 123x; a dash where there is none."""
    if not math.isfinite(value):
        return "-"
    return f"{value:.2f}x" if value < 9.995 else f"{three_digits(value)}x"


def amount(work: Work) -> str:
    """Formats work: 0.604 GFLOP, 68.1 MB."""
    if work.unit == "bytes":
        return f"{three_digits(work.amount / 1e6)} MB"
    return f"{three_digits(work.amount / 1e9)} GFLOP"


def shares(seconds: Mapping[str, float]) -> str:
    """Formats a time by kind: convolution 81 %, the rest 19 %."""
    total = sum(seconds.values()) or 1.0
    return ", ".join(f"{kind} {value / total:.0%}" for kind, value in seconds.items())


class Table:
    """Prints results to a stream."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._style = Style(self._stream)

    def text(self, text: str = "", *, bold: bool = False) -> None:
        """Prints a line."""
        text = text.rstrip()
        print(self._style.bold(text) if bold else text, file=self._stream, flush=True)

    def block(self, result: CaseResult) -> None:
        """Prints everything about one case."""
        for part in result.parts():
            self._part(result, [line for line in result.lines if line.part == part])

    def _part(self, result: CaseResult, lines: Sequence[Line]) -> None:
        title = f"{result.case}" + (f": {lines[0].part}" if len(result.parts()) > 1 else "")
        self.text()
        work = lines[0].work
        self.text(title + (f"  ({amount(work)})" if work else ""), bold=True)
        group = "".join(f"{f'{line.place}, ms':>30}" for line in lines)
        self.text(f"  {'':{NAME_WIDTH}}{group}")
        columns = f"{'median':>12}{'fastest':>9}{'ratio':>9}" * len(lines)
        self.text(f"  {'':{NAME_WIDTH}}{columns}" + (f"{'adds MB':>11}" if result.memory else ""))
        if work:
            self._floor(lines)
        for name in _names(lines):
            row = f"  {name:{NAME_WIDTH}}" + "".join(_cells(line, name) for line in lines)
            if result.memory:
                row += f"{_megabytes(result.memory.get(name)):>11}"
            self.text(row, bold=name == OURS)
        for line in lines:
            for name, seconds in line.split.items():
                self.text(f"  {name}, {line.place}: {shares(seconds)}")
        self._disturbed(lines)

    def _floor(self, lines: Sequence[Line]) -> None:
        floors = "".join(f"{three_digits(line.floor_seconds * 1e3):>12}{'':18}" for line in lines)
        self.text(f"  {'floor':{NAME_WIDTH}}{floors}")

    def _disturbed(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if line.others_share is not None and line.others_share > DISTURBED:
                share = f"{line.others_share:.0%}"
                self.text(
                    f"  disturbed: other processes used {share} of the machine ({line.place})"
                )

    def summary(self, results: Sequence[CaseResult]) -> None:
        """Prints one row per line: our time, and the ratios to the floor and to every peer."""
        lines = [line for result in results for line in result.lines]
        if not lines:
            return
        peers = [name for name in _names(lines) if name != OURS]
        width = max(len(str(line)) for line in lines)
        widths = {name: max(9, len(name) + 2) for name in peers}
        self.text()
        head = f"{'summary':{width}}  {'':9}   ours ms    floor"
        head += "".join(f"{name:>{widths[name]}}" for name in peers) + "  targets"
        self.text(head, bold=True)
        for line in lines:
            ours = line.measurements[OURS]
            row = f"{line!s:{width}}{line.place!s:>11}"
            row += f"{three_digits(ours.median * 1e3):>10}{times(ours.ratio):>9}"
            row += "".join(f"{_ratio(line, name):>{widths[name]}}" for name in peers)
            met = [verdict.met for verdict in line.verdicts if verdict.met is not None]
            tally = f"{met.count(True):>5}/{len(met)}" if met else ""
            self.text(row + self._style.verdict(tally, all(met) if met else None))
        self.text(
            "floor: our time / the floor's; peers: their time / ours, so above 1 we are faster; "
            "medians of ratios within a round"
        )

    def targets(self, results: Iterable[CaseResult]) -> None:
        """Prints every target with what was measured."""
        judged = [(line, v) for result in results for line in result.lines for v in line.verdicts]
        if not judged:
            return
        met = sum(verdict.met is True for _, verdict in judged)
        self.text()
        unknown = sum(verdict.met is None for _, verdict in judged)
        rest = f", {unknown} not measured" if unknown else ""
        self.text(f"targets: {met} of {len(judged) - unknown} met{rest}", bold=True)
        width = max(len(str(line)) for line, _ in judged)
        wide = max(len(verdict.target) for _, verdict in judged)
        for line, verdict in judged:
            where = f"{line!s:{width}}  {line.place}"
            value = f"{times(verdict.value):>8}"
            self.text(f"  {where}  {verdict.target:{wide}}{value}  {self._verdict(verdict)}")

    def _verdict(self, verdict: Verdict) -> str:
        words = {True: "met", False: "missed", None: "not measured"}
        return self._style.verdict(words[verdict.met], verdict.met)

    def judged(self, text: str, good: bool | None) -> str:
        """Returns a text in green or red; as it is where nothing is to be said."""
        return self._style.verdict(text, good)

    def scaling(self, results: Iterable[CaseResult]) -> None:
        """Prints how much faster we get from the fewest threads to the most."""
        rows = []
        for result in results:
            for part in result.parts():
                lines = [line for line in result.lines if line.part == part]
                few, many = lines[0], lines[-1]
                if few.place != many.place:
                    gain = few.measurements[OURS].minimum / many.measurements[OURS].minimum
                    rows.append((str(few), few.place, many.place, gain))
        if not rows:
            return
        self.text()
        self.text(f"ours with {rows[0][2]} against {rows[0][1]}, fastest rounds", bold=True)
        width = max(len(row[0]) for row in rows)
        for where, _, _, gain in rows:
            self.text(f"  {where:{width}}{times(gain):>9}")


def _names(lines: Iterable[Line]) -> list[str]:
    """Returns all competitors that took part, were refused or are missing; ours first."""
    names: dict[str, None] = {OURS: None}
    for line in lines:
        names.update(dict.fromkeys([*line.measurements, *line.refused, *line.missing]))
    return list(names)


def _cells(line: Line, name: str) -> str:
    measured = line.measurements.get(name)
    if measured is None:
        word = "refused" if name in line.refused else "-"
        return f"{word:>12}{'':18}"
    median, fastest = three_digits(measured.median * 1e3), three_digits(measured.minimum * 1e3)
    return f"{median:>12}{fastest:>9}{times(measured.ratio):>9}"


def _ratio(line: Line, name: str) -> str:
    if name in line.refused:
        return "refused"
    measured = line.measurements.get(name)
    return times(measured.ratio) if measured else "-"


def _megabytes(value: int | None) -> str:
    return "-" if value is None else f"{value / 1e6:.1f}"
