"""What will be measured, and about how long that takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from .case import OURS, Case, Suite
from .place import Place
from .rotation import Effort

# What building takes, and a process that measures memory; as a rule.
PREPARE_SECONDS = 0.4
MEMORY_SECONDS = 0.6
# How fast a competitor is, as a rule: flops or bytes a second.
USUAL = {"flops": 150e9, "bytes": 0.3e9}


@dataclass(frozen=True)
class Step:
    """Some cases of one suite."""

    suite: Suite
    cases: Sequence[Case]


@dataclass(frozen=True)
class Plan:
    """All that a run does."""

    steps: Sequence[Step]
    places: Sequence[Place]
    effort: Effort
    quick: bool
    memory: bool

    @property
    def cases(self) -> int:
        """How many there are."""
        return sum(len(step.cases) for step in self.steps)

    def seconds(self, case: Case) -> float:
        """Returns about how long a case takes: a guess, made before anything is known of it."""
        entries = [e for e in case.entries.values() if self.effort.slow or not e.slow]
        works = [part.work for part in case.parts if part.work]
        call = max([case.call_seconds, *(work.amount / USUAL[work.unit] for work in works)])
        effort = self.effort
        turns = max(effort.min_seconds, effort.min_rounds * call)
        turns = min(turns, effort.max_seconds + call)
        # Every competitor is also called once to be compared and once to be known.
        total = len(self.places) * (turns + PREPARE_SECONDS + 2 * call)
        return len(entries) * (total + self.memory * (MEMORY_SECONDS + call))

    def describe(self) -> list[str]:
        """Returns a line for each suite, and one for all."""
        width = max(len(step.suite.name) for step in self.steps)
        lines = []
        for step in self.steps:
            seconds = sum(map(self.seconds, step.cases))
            peers = {name for case in step.cases for name in case.entries} - {OURS}
            text = f"{step.suite.name:{width}}  {len(step.cases):3} cases, {len(peers)} beside ours"
            lines.append(f"{text}, about {minutes(seconds)}")
        total = minutes(sum(self.seconds(case) for step in self.steps for case in step.cases))
        where = ", ".join(map(str, self.places))
        what = f"{self.cases} cases on {where}, {'with' if self.memory else 'without'} memory"
        return [*lines, f"{what}: about {total}; Ctrl-C ends it early and keeps what is there"]


class Remaining:
    """How long is left: the guesses, corrected by how wrong they have been so far."""

    def __init__(self, plan: Plan) -> None:
        self._guesses = [plan.seconds(case) for step in plan.steps for case in step.cases]
        self._start = time.monotonic()
        self._done = 0
        self._spent = 0.0  # until the last case was done

    def case_done(self) -> None:
        """Says that one more case is done."""
        self._done += 1
        self._spent = time.monotonic() - self._start

    def __str__(self) -> str:
        guessed = sum(self._guesses[: self._done])
        # A first case that is far off must not speak for all others.
        wrong = (self._spent + 30) / (guessed + 30)
        left = wrong * sum(self._guesses[self._done :])
        elapsed = time.monotonic() - self._start - self._spent
        return f"{self._done}/{len(self._guesses)}, about {minutes(max(1.0, left - elapsed))} left"


def minutes(seconds: float) -> str:
    """Formats a duration that is only known roughly: 40 s, 3 min, 1.5 h."""
    if seconds < 90:
        return f"{max(1, round(seconds / 5)) * 5} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
