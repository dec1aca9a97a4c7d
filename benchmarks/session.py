"""Runs a suite: build, compare, take turns, reduce."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from . import memory
from .case import OURS, Case, Competitor, Entry, MissingPeerError, Suite
from .limits import Meter
from .machine import Neighbours
from .place import Place
from .result import CaseResult, make_line
from .rotation import Effort, Samples, rotate
from .verify import largest_difference


class NothingToMeasureError(Exception):
    """Our own implementation could not be run; the message says why."""


@dataclass
class Session:
    """How a run was asked for, and what has come out of it so far.

    ``results`` grows while `run` runs, the case under way included: whoever interrupts it finds
    there what is complete.
    """

    suite: Suite
    places: Sequence[Place]
    effort: Effort
    limits: Meter | None = None
    memory: bool = False
    progress: Callable[[str], None] = lambda text: None
    results: list[CaseResult] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)  # each once, in order of appearance

    def run(self, cases: Sequence[Case]) -> Iterator[CaseResult]:
        """Yields the result of each case as soon as it is complete."""
        for case in cases:
            start = time.monotonic()
            result = CaseResult(case.name)
            self.results.append(result)
            for place in self.places:
                with place.chosen():
                    self._time(case, place, result, f"{case.name}, {place}")
            if self.memory:
                self._remember(case, result)
            result.seconds = time.monotonic() - start
            yield result

    def _time(self, case: Case, place: Place, result: CaseResult, where: str) -> None:
        """Adds the lines of one case at one place to its result."""
        self.progress(f"{where}: building and comparing")
        competitors, missing, refused = self._assemble(case, place)
        limits, works = self.limits, {part.work for part in case.parts if part.work}
        neighbours, samples = Neighbours(), Samples.of(competitors)
        try:
            rotate(
                competitors,
                self.effort,
                samples,
                place,
                floor=(lambda: limits.seconds(works, place)) if limits and works else None,
                progress=lambda name, round_: self.progress(f"{where}: round {round_}, {name}"),
            )
        finally:
            # Also after an interrupt: a few rounds are better than nothing.
            if samples.enough():
                fewest, most = min(self.places).threads, max(self.places).threads
                for part in case.parts:
                    line = make_line(case, part, place, samples, one=fewest, all_=most)
                    line.missing, line.refused = missing, refused
                    line.others_share = neighbours.share()
                    result.lines.append(line)
        self.progress(f"{where}: splitting the time")
        for name, competitor in competitors.items():
            if competitor.split:
                result.lines[-1].split[name] = dict(competitor.split())

    def _assemble(
        self, case: Case, place: Place
    ) -> tuple[dict[str, Competitor], dict[str, str], dict[str, str]]:
        """Builds all competitors and drops those that do not compute what ours computes."""
        competitors: dict[str, Competitor] = {}
        missing: dict[str, str] = {}
        refused: dict[str, str] = {}
        for name, entry in case.entries.items():
            if entry.slow and not self.effort.slow:
                missing[name] = "takes many seconds for a call: left out of a first look"
                self.notes[f"{name} {missing[name]}: {case.name}"] = None
                continue
            try:
                competitors[name] = entry.factory(place)
            except MissingPeerError as error:
                missing[name] = str(error)
                self.notes[str(error)] = None
        if OURS not in competitors:
            raise NothingToMeasureError(f"{case.name}: {missing.get(OURS, 'no entry of our own')}")
        ours = competitors[OURS].results()
        for name in [name for name in competitors if name != OURS]:
            comparison = compare(case.entries[name], competitors[name], ours)
            if not comparison.same:
                refused[name] = comparison.text
                self.notes[f"{name} refused in {case.name}: {comparison.text}"] = None
                del competitors[name]
            elif comparison.text:
                self.notes[f"{name} timed in {case.name} though its {comparison.text}"] = None
        return competitors, missing, refused

    def _remember(self, case: Case, result: CaseResult) -> None:
        """Measures memory at the last place, of everybody who took part."""
        took_part = {name for line in result.lines for name in line.measurements}
        for name in case.entries:
            if name in took_part:
                self.progress(f"{case.name}: memory, {name}")
                result.memory[name] = memory.growth(
                    self.suite.name, case.name, name, max(self.places)
                )


@dataclass(frozen=True)
class Comparison:
    """Whether a competitor may be timed beside ours, and what there is to say about its results."""

    same: bool
    text: str = ""


def compare(entry: Entry, competitor: Competitor, ours: Mapping[str, Any]) -> Comparison:
    """Compares a competitor's results with ours."""
    try:
        results = competitor.results()
    except Exception as error:  # a peer's failure is its own, whatever it raises
        reason = str(error).strip().splitlines()
        text = f"failed with {type(error).__name__}: {reason[0] if reason else ''}"
        return Comparison(False, text)
    if entry.landmark:
        return Comparison(True)
    what, difference = largest_difference(results, ours)
    text = f"{what} differs from ours by {difference}" if difference.notable else ""
    return Comparison(difference.share <= entry.tolerance, text)
