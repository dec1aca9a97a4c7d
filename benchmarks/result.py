"""What came out: plain data, ready for the terminal, JSON and the chart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field

from .case import FLOOR, OURS, Case, Part, Target, Work
from .rotation import Samples, paired_ratio


@dataclass(frozen=True)
class Measurement:
    """One competitor in one line."""

    seconds: tuple[float, ...]  # one per round
    # Median over rounds of this time / our time in the same round; for ours, / the floor's time.
    ratio: float
    landmark: bool = False  # computes something else; shown for orientation

    @property
    def median(self) -> float:
        """Median seconds over the rounds."""
        return statistics.median(self.seconds)

    @property
    def minimum(self) -> float:
        """The fastest round, in seconds."""
        return min(self.seconds)


@dataclass(frozen=True)
class Verdict:
    """A target and the value it speaks of; ``met`` is None when there was nothing to compare."""

    target: str
    value: float
    met: bool | None


@dataclass
class Line:
    """One part of one case at one number of threads."""

    case: str
    part: str
    threads: int
    work: Work | None
    floor_seconds: float  # nan where no limit was measured
    measurements: dict[str, Measurement]
    refused: dict[str, str] = field(default_factory=dict)  # competitor: why
    missing: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    others_share: float | None = None  # of the machine, used by other processes meanwhile

    def as_dict(self) -> dict[str, object]:
        """Returns the line as JSON types; numbers that are not numbers become None."""
        return {
            "part": self.part,
            "threads": self.threads,
            "work": {self.work.unit: self.work.amount} if self.work else None,
            "floor_seconds": _number(self.floor_seconds),
            "competitors": {
                name: {
                    "median_seconds": m.median,
                    "min_seconds": m.minimum,
                    "ratio": _number(m.ratio),
                    "rounds_seconds": list(m.seconds),
                }
                for name, m in self.measurements.items()
            },
            "refused": self.refused,
            "missing": self.missing,
            "targets": [
                {"target": v.target, "measured": _number(v.value), "met": v.met}
                for v in self.verdicts
            ],
            "others_share": self.others_share,
        }


@dataclass
class CaseResult:
    """All lines of a case, and the bytes that one call of each competitor adds."""

    case: str
    lines: list[Line] = field(default_factory=list)
    memory: dict[str, int | None] = field(default_factory=dict)

    def parts(self) -> list[str]:
        """Returns the names of the parts, in order."""
        return list(dict.fromkeys(line.part for line in self.lines))

    def as_dict(self) -> dict[str, object]:
        """Returns the result as JSON types."""
        return {
            "case": self.case,
            "lines": [line.as_dict() for line in self.lines],
            "memory_bytes": self.memory,
        }


def make_line(
    case: Case, part: Part, threads: int, samples: Samples, *, one: int, all_: int
) -> Line:
    """Reduces the samples of one part to a line.

    Args:
        case: whose targets are judged.
        part: of the case.
        threads: that were used.
        samples: of the whole case.
        one: the number of threads that targets for "one" thread speak of.
        all_: likewise for "all".
    """
    work = part.work
    floor = {i: seconds[work] for i, seconds in samples.floor.items()} if work else {}
    times = {
        name: samples.seconds(name, part.steps)
        for name, steps in samples.times.items()
        if set(part.steps) <= set(steps)
    }
    ours = times.get(OURS, {})
    measurements = {}
    for name, by_round in times.items():
        ratio = paired_ratio(ours, floor) if name == OURS else paired_ratio(by_round, ours)
        landmark = case.entries[name].landmark
        measurements[name] = Measurement(tuple(by_round.values()), ratio, landmark)
    line = Line(
        case=case.name,
        part=part.name,
        threads=threads,
        work=work,
        floor_seconds=statistics.median(floor.values()) if floor else math.nan,
        measurements=measurements,
    )
    for target in case.targets:
        wanted = {"any": True, "one": threads == one, "all": threads == all_ and all_ > one}
        if target.part == part.name and wanted[target.threads]:
            line.verdicts.append(judge(target, measurements))
    return line


def judge(target: Target, measurements: Mapping[str, Measurement]) -> Verdict:
    """Compares a target with what was measured."""
    if target.against == (FLOOR,):
        value = measurements[OURS].ratio if OURS in measurements else math.nan
        return Verdict(str(target), value, None if math.isnan(value) else value <= target.bound)
    ratios = [measurements[name].ratio for name in target.against if name in measurements]
    ratios = [ratio for ratio in ratios if not math.isnan(ratio)]
    if not ratios:
        return Verdict(str(target), math.nan, None)
    value = min(ratios)
    return Verdict(str(target), 1 / value if target.bound < 1 else value, value >= target.bound)


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
