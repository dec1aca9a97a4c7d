"""Timing by turns.

Competitors are measured round after round, each taking one short turn per round, in an order that
changes from round to round. What disturbs the machine for a second then disturbs everybody, and the
ratio of two times from the *same* round says more than the ratio of two averages.
"""

from __future__ import annotations

import gc
import math
import random
import resource
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

from .case import OURS, Competitor, Work
from .place import Place

# Worker threads of the previous competitor go on polling for work (OpenMP's for about 10 ms) and
# would take a core from the next one: wait until they sleep.
PAUSE_SECONDS = 0.015
# Below this a competitor gets one unmeasured call first in each turn, to wake its own workers.
WAKE_BELOW_SECONDS = 0.05
MOST_CALLS = 1000  # per turn
CPU = Place()


@dataclass(frozen=True)
class Effort:
    """How long to measure."""

    min_rounds: int = 7
    min_seconds: float = 1.0  # per competitor
    turn_seconds: float = 0.03
    # Whoever has used so much has had enough turns, be it one.
    max_seconds: float = 10.0
    slow: bool = True  # whether those take part who need many seconds for a call

    @staticmethod
    def quick() -> Effort:
        """The effort for a first look."""
        return Effort(min_rounds=3, min_seconds=0.2, turn_seconds=0.02, max_seconds=3.0, slow=False)

    def at_least(self, rounds: int | None, seconds: float | None) -> Effort:
        """Returns the effort with what was asked for in place of the defaults."""
        return replace(
            self,
            min_rounds=self.min_rounds if rounds is None else max(1, rounds),
            min_seconds=self.min_seconds if seconds is None else seconds,
            max_seconds=max(self.max_seconds, seconds or 0),
        )


@dataclass
class Samples:
    """Seconds: ``times[name][step][round]``, and of the floor, ``floor[round][work]``."""

    times: dict[str, dict[str, dict[int, float]]] = field(default_factory=dict)
    floor: dict[int, Mapping[Work, float]] = field(default_factory=dict)

    @classmethod
    def of(cls, competitors: Mapping[str, Competitor]) -> Samples:
        """Returns samples with a place for each step of each competitor, and nothing in them."""
        return cls({name: {step: {} for step in c.steps} for name, c in competitors.items()})

    def enough(self) -> bool:
        """Returns whether everybody has had a turn."""
        return all(step for steps in self.times.values() for step in steps.values())

    def seconds(self, name: str, steps: tuple[str, ...]) -> dict[int, float]:
        """Returns the time of ``steps`` together, by round."""
        per_step = [self.times[name][step] for step in steps]
        return {i: sum(step[i] for step in per_step) for i in per_step[0]}


def start_once(competitor: Competitor, place: Place = CPU) -> list[Any]:
    """Runs all steps and returns points in time around them; lets go then what steps returned."""
    marks, kept = [place.mark()], []
    for call in competitor.steps.values():
        kept.append(call())
        marks.append(place.mark())
    return marks


def laps(competitor: Competitor, marks: Sequence[Any], place: Place = CPU) -> dict[str, float]:
    """Returns the seconds of each step from what `start_once` returned."""
    return {
        step: place.seconds(start, end)
        for step, (start, end) in zip(competitor.steps, pairwise(marks), strict=True)
    }


def run_once(competitor: Competitor, place: Place = CPU) -> dict[str, float]:
    """Runs all steps, waits for them and returns the seconds of each."""
    return laps(competitor, start_once(competitor, place), place)


def estimate(competitor: Competitor, place: Place = CPU) -> float:
    """Returns about how many seconds a call takes; what is short is asked again, now warm."""
    seconds = sum(run_once(competitor, place).values())
    if seconds < WAKE_BELOW_SECONDS:
        seconds = min(sum(run_once(competitor, place).values()) for _ in range(3))
    return max(1e-7, seconds)


def preemptions() -> int:
    """Returns how often the system has taken a core from a thread of this process."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def take_turn(
    competitor: Competitor, expected: float, turn_seconds: float, place: Place = CPU
) -> dict[str, float]:
    """Runs a competitor for about ``turn_seconds`` and returns its median seconds per step.

    Calls during which a thread lost its core to another process count only if there are no others.
    A GPU gets all calls of the turn at once: what is timed is its work, not how calls come to it.
    """
    time.sleep(PAUSE_SECONDS)
    if expected < WAKE_BELOW_SECONDS:
        run_once(competitor, place)
    wanted = min(MOST_CALLS, max(1, math.ceil(turn_seconds / expected)))
    clean: list[list[Any]] = []
    disturbed: list[list[Any]] = []
    for _ in range(wanted):
        before = preemptions()
        marks = start_once(competitor, place)
        (clean if preemptions() == before else disturbed).append(marks)
    calls = [laps(competitor, marks, place) for marks in clean or disturbed]
    return {step: statistics.median(call[step] for call in calls) for step in competitor.steps}


def rotate(
    competitors: Mapping[str, Competitor],
    effort: Effort,
    samples: Samples,
    place: Place = CPU,
    *,
    floor: Callable[[], Mapping[Work, float]] | None = None,
    progress: Callable[[str, int], None] = lambda name, round_: None,
    seed: int = 0,
) -> None:
    """Measures all competitors by turns.

    Whoever has had ``effort.min_rounds`` turns and ``effort.min_seconds``, or in fewer turns
    ``effort.max_seconds``, drops out; ours stays to the end, so that every sample of a peer has a
    partner in its round.

    Args:
        competitors: by name; ours is called `OURS`.
        effort: how long to measure.
        samples: what is measured is put here at once, so that an interrupt loses nothing.
        place: where they compute.
        floor: measures the seconds that the work of the case takes at the least, once per round.
        progress: called before each turn.
        seed: of the order of the turns.
    """
    spent = dict.fromkeys(competitors, 0.0)
    expected: dict[str, float] = {}
    for name, competitor in competitors.items():
        progress(name, 0)
        expected[name] = estimate(competitor, place)
    order = random.Random(seed)
    collecting = gc.isenabled()
    gc.disable()
    try:
        round_ = 0
        waiting = set(competitors)
        while waiting:
            turns = sorted(waiting | ({OURS} & set(competitors)))
            order.shuffle(turns)
            if floor:
                samples.floor[round_] = floor()
            for name in turns:
                progress(name, round_ + 1)
                seconds = take_turn(competitors[name], expected[name], effort.turn_seconds, place)
                for step, value in seconds.items():
                    samples.times[name][step][round_] = value
                spent[name] += max(sum(seconds.values()), effort.turn_seconds)
            round_ += 1
            least = effort.min_seconds if round_ >= effort.min_rounds else effort.max_seconds
            waiting = {name for name in waiting if spent[name] < least}
    finally:
        if collecting:
            gc.enable()


def paired_ratio(numerator: Mapping[int, float], denominator: Mapping[int, float]) -> float:
    """Returns the median over rounds of the ratio of two times taken in the same round."""
    shared = numerator.keys() & denominator.keys()
    if not shared:
        return math.nan
    return statistics.median(numerator[i] / denominator[i] for i in shared)
