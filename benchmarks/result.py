"""What came out: plain data, ready for the terminal, JSON and the chart."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .case import FLOOR, OURS, Case, Part, Target, Work
from .place import Place
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
    """One part of one case at one place."""

    case: str
    part: str
    place: Place
    work: Work | None
    floor_seconds: float  # nan where no limit was measured
    measurements: dict[str, Measurement]
    refused: dict[str, str] = field(default_factory=dict)  # competitor: why
    missing: dict[str, str] = field(default_factory=dict)
    verdicts: list[Verdict] = field(default_factory=list)
    others_share: float | None = None  # of the machine, used by other processes meanwhile
    # Competitor: kind of op: seconds of one call, where the competitor tells.
    split: dict[str, dict[str, float]] = field(default_factory=dict)

    def __str__(self) -> str:
        return self.case if self.case.endswith(self.part) else f"{self.case}: {self.part}"

    def as_dict(self) -> dict[str, object]:
        """Returns the line as JSON types; numbers that are not numbers become None."""
        return {
            "part": self.part,
            "threads": self.place.threads,
            "device": self.place.device,
            "work": {self.work.unit: self.work.amount} if self.work else None,
            "floor_seconds": _number(self.floor_seconds),
            "competitors": {
                name: {
                    "median_seconds": m.median,
                    "min_seconds": m.minimum,
                    "ratio": _number(m.ratio),
                    "landmark": m.landmark,
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
            "split_seconds": self.split,
        }

    @classmethod
    def from_dict(cls, case: str, values: Mapping[str, Any]) -> Line:
        """Returns the line of which `as_dict` made ``values``."""
        works = [Work(amount, unit) for unit, amount in (values["work"] or {}).items()]
        return cls(
            case=case,
            part=values["part"],
            place=Place(values["threads"], values["device"]),
            work=works[0] if works else None,
            floor_seconds=_or_nan(values["floor_seconds"]),
            measurements={
                name: Measurement(
                    tuple(measured["rounds_seconds"]),
                    _or_nan(measured["ratio"]),
                    measured["landmark"],
                )
                for name, measured in values["competitors"].items()
            },
            refused=values["refused"],
            missing=values["missing"],
            verdicts=[
                Verdict(target["target"], _or_nan(target["measured"]), target["met"])
                for target in values["targets"]
            ],
            others_share=values["others_share"],
            split=values["split_seconds"],
        )


@dataclass
class CaseResult:
    """All lines of a case, and the bytes that one call of each competitor adds."""

    case: str
    lines: list[Line] = field(default_factory=list)
    memory: dict[str, int | None] = field(default_factory=dict)
    seconds: float = 0.0  # that measuring took

    def parts(self) -> list[str]:
        """Returns the names of the parts, in order."""
        return list(dict.fromkeys(line.part for line in self.lines))

    def as_dict(self) -> dict[str, object]:
        """Returns the result as JSON types."""
        return {
            "case": self.case,
            "lines": [line.as_dict() for line in self.lines],
            "memory_bytes": self.memory,
            "seconds": self.seconds,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> CaseResult:
        """Returns the result of which `as_dict` made ``values``."""
        lines = [Line.from_dict(values["case"], line) for line in values["lines"]]
        return cls(values["case"], lines, values["memory_bytes"], values["seconds"])


def make_line(
    case: Case, part: Part, place: Place, samples: Samples, *, one: int, all_: int
) -> Line:
    """Reduces the samples of one part to a line.

    Args:
        case: whose targets are judged.
        part: of the case.
        place: where competitors computed.
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
        place=place,
        work=work,
        floor_seconds=statistics.median(floor.values()) if floor else math.nan,
        measurements=measurements,
    )
    for target in case.targets:
        threads = place.threads
        wanted = {"any": True, "one": threads == one, "all": threads == all_ and all_ > one}
        # Targets are those of the CPU.
        if target.part == part.name and wanted[target.threads] and not place.on_gpu:
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


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None
