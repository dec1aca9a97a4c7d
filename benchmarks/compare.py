"""One run against an older one: row by row, and what makes them hard to compare."""

from __future__ import annotations

import argparse
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .case import OURS
from .result import Line
from .run import Run, load
from .table import DISTURBED, Table, three_digits, times

Key = tuple[str, str, str, str]  # suite, case, part, place
# Where nothing changed two runs differ by so much, in most rows.
NOISE = 1.1


@dataclass(frozen=True)
class Row:
    """A line that both runs have."""

    key: Key
    old: Line
    new: Line

    @property
    def ratio(self) -> float:
        """Our time now / then."""
        return self.new.measurements[OURS].median / self.old.measurements[OURS].median

    @property
    def floor(self) -> float:
        """The floor's time now / then: how much slower the machine itself has become."""
        return self.new.floor_seconds / self.old.floor_seconds

    @property
    def adjusted(self) -> float:
        """Our time now / then, in units of the floor of each run; without a floor, as it is."""
        return self.ratio / self.floor if math.isfinite(self.floor) else self.ratio

    def peers(self) -> dict[str, tuple[float, float]]:
        """Peer -> its time / ours, then and now, of those in both."""
        shared = [n for n in self.old.measurements if n in self.new.measurements and n != OURS]
        return {n: (self.old.measurements[n].ratio, self.new.measurements[n].ratio) for n in shared}


@dataclass(frozen=True)
class Comparison:
    """Two runs, side by side."""

    rows: list[Row]
    appeared: list[Key]
    vanished: list[Key]
    differences: list[str]  # of what was measured on


def compare(new: Run, old: Run) -> Comparison:
    """Finds rows that both have and those that one has, and all that is not the same."""
    lines_of_new, lines_of_old = by_key(new), by_key(old)
    return Comparison(
        rows=[
            Row(key, lines_of_old[key], line)
            for key, line in lines_of_new.items()
            if key in lines_of_old
        ],
        appeared=[key for key in lines_of_new if key not in lines_of_old],
        vanished=[key for key in lines_of_old if key not in lines_of_new],
        differences=list(differences(new, old)),
    )


def by_key(run: Run) -> dict[Key, Line]:
    """The lines in which ours was measured."""
    return {
        (suite, line.case, line.part, str(line.place)): line
        for suite, line in run
        if OURS in line.measurements
    }


def differences(new: Run, old: Run) -> Iterable[str]:
    """What a reader must know before comparing times of two runs, a line each."""
    was, now = dict(old.machine), dict(new.machine)
    versions = was.pop("versions", {}), now.pop("versions", {})
    for of_old, of_new in ((was, now), versions):
        for name in {**of_old, **of_new}:
            before, after = of_old.get(name, "not there"), of_new.get(name, "not there")
            if before != after:
                yield f"{name.replace('_', ' ')}: {before} then, {after} now"
    places = [", ".join(map(str, run.places)) for run in (old, new)]
    if places[0] != places[1]:
        yield f"measured on {places[0]} then, on {places[1]} now"
    if old.quick != new.quick:
        first, second = ("a quick look", "a full run")[:: 1 if old.quick else -1]
        yield f"{first} then, {second} now"
    for name, run in (("then", old), ("now", new)):
        if not run.finished:
            yield f"the run {name} was ended early"
        share = max((line.others_share or 0.0 for _, line in run), default=0.0)
        if share > DISTURBED:
            yield f"other processes used up to {share:.0%} of the machine {name}"


def show(table: Table, comparison: Comparison, old: Run) -> None:
    """Prints a comparison."""
    table.text()
    table.text(f"against the run of {old.when} ({old.command})", bold=True)
    for difference in comparison.differences:
        table.text(f"  not the same: {difference}")
    rows = comparison.rows
    if rows:
        width = max(len(_name(row.key)) for row in rows)
        head = f"{'':{width}}{'then, ms':>11}{'now, ms':>10}{'now/then':>10}{'floor':>8}"
        table.text(f"{head}{'adjusted':>10}  peers, their time / ours, then > now", bold=True)
    for row in rows:
        before, after = (line.measurements[OURS].median * 1e3 for line in (row.old, row.new))
        text = f"{_name(row.key):{width}}{three_digits(before):>11}{three_digits(after):>10}"
        text += f"{times(row.ratio):>10}{times(row.floor):>8}"
        good = None if 1 / NOISE <= row.adjusted <= NOISE else row.adjusted < 1
        peers = "; ".join(f"{n} {times(a)} > {times(b)}" for n, (a, b) in row.peers().items())
        table.text(text + table.judged(f"{times(row.adjusted):>10}", good) + f"  {peers}")
    for title, keys in (("new", comparison.appeared), ("gone", comparison.vanished)):
        for key in keys:
            table.text(f"  {title}: {_name(key)}")
    if rows:
        table.text(
            "adjusted: now/then over the floor's now/then, so that a slower machine is no slower "
            f"op; within {NOISE - 1:.0%} it says nothing"
        )
    else:
        table.text("no row in common")


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares two files; returns the exit status."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks compare", description=__doc__)
    parser.add_argument("old", type=Path, help="what --json wrote then")
    parser.add_argument("new", type=Path, help="what --json wrote now")
    options = parser.parse_args(arguments)
    try:
        old, new = load(options.old), load(options.new)
    except ValueError as error:
        parser.error(str(error))
    show(Table(), compare(new, old), old)
    return 0


def _name(key: Key) -> str:
    suite, case, part, place = key
    where = case if case.endswith(part) else f"{case}: {part}"
    return f"{suite}, {where}, {place}"
