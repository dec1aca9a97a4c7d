"""Carries out a plan: prints results as they come, and keeps what is there whatever happens."""

from __future__ import annotations

import datetime
import platform
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from .gpu_limits import GpuLimits
from .limits import LARGEST_COPY, Limits, Meter, NoCompilerError
from .machine import cores, cpu_name, describe, versions
from .options import without_files
from .place import Place
from .plan import Plan, Remaining, Step
from .run import Run, SuiteResult
from .session import NothingToMeasureError, Session
from .table import Table

INTERRUPTED = 130
RATIOS = (
    "ratio: median over rounds of time / our time in the same round; ours: our time / the floor's",
    "floor: the flops at the multiply-add peak, or a copy of as many bytes; measured in each round",
)


class StatusLine:
    """One line on a terminal that is overwritten while work goes on; silent elsewhere."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Shows ``text`` in place of what was there; an empty text clears the line."""
        if self._on:
            print(f"\r\x1b[K{text[:118]}", end="", file=sys.stderr, flush=True)


class Measuring:
    """A run under way.

    Args:
        plan: what to measure.
        command: the words after ``python -m benchmarks``, for the record.
        table: prints.
        json: written after every case.
    """

    def __init__(
        self, plan: Plan, command: Sequence[str], table: Table, json: Path | None = None
    ) -> None:
        self._plan, self._table, self._json = plan, table, json
        self._limits = _start_limits(table, plan.places)
        self._status, self._remaining = StatusLine(), Remaining(plan)
        self.status = 0  # of the process: 1 where a suite could not be run, 130 after Ctrl-C
        self.run = Run(
            command=shlex.join(["python", "-m", "benchmarks", *without_files(command)]),
            when=datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            machine=describe(plan.places[0]),
            places=plan.places,
            quick=plan.quick,
            floor=self._limits.instructions if self._limits else None,
        )

    def all(self) -> Run:
        """Measures everything; Ctrl-C only ends it early."""
        self._introduce()
        try:
            for step in self._plan.steps:
                self._measure(step)
        except KeyboardInterrupt:
            begun = sum(len(suite.results) for suite in self.run.suites)
            self._table.text()
            self._table.text(f"interrupted: {begun} of {self._plan.cases} cases begun", bold=True)
            self.status = INTERRUPTED
        self.run.finished = self.status == 0
        self._save()
        return self.run

    def _measure(self, step: Step) -> None:
        """Measures the cases of one suite."""
        plan, table, suite = self._plan, self._table, step.suite
        table.text()
        table.text(f"{suite.name}: {suite.title}", bold=True)
        for note in suite.notes:
            table.text(f"- {note}")
        session = Session(
            suite,
            plan.places,
            plan.effort,
            self._limits,
            plan.memory,
            lambda text: self._status(f"[{self._remaining}] {suite.name}: {text}"),
        )
        outcome = SuiteResult(suite.name, suite.title, list(suite.notes), session.results)
        self.run.suites.append(outcome)
        printed = 0
        try:
            for result in session.run(step.cases):
                self._status("")
                self._remaining.case_done()
                table.block(result)
                printed += 1
                self._save()
        except (NothingToMeasureError, ImportError) as error:
            table.text(f"stopped: {error}")
            self.status = 1
        finally:
            self._status("")
            for unfinished in session.results[printed:]:
                table.block(unfinished)
            outcome.notes += session.notes
            outcome.results = [result for result in session.results if result.lines]
            table.summary(outcome.results)
            table.targets(outcome.results)
            table.scaling(outcome.results)
            if session.notes:
                table.text()
            for note in session.notes:
                table.text(f"note: {note}")

    def _save(self) -> None:
        if self._json:
            self.run.save(self._json)

    def _introduce(self) -> None:
        """Prints what is measured, with what, and on what."""
        table, plan, limits = self._table, self._plan, self._limits
        table.text(f"{cpu_name()}, {cores()} cores, {platform.system()}")
        if plan.places[0].on_gpu:
            table.text(torch.cuda.get_device_name())
        table.text(", ".join(f"{name} {version}" for name, version in versions().items()))
        if limits:
            rates = "; ".join(limits.rates(place) for place in plan.places)
            what = f"multiply-adds ({limits.instructions}), a copy of {LARGEST_COPY >> 20} MiB"
            table.text(f"{what}: {rates}")
        for note in RATIOS:
            table.text(f"- {note}")
        table.text()
        for line in plan.describe():
            table.text(line)


def _start_limits(table: Table, places: Sequence[Place]) -> Meter | None:
    """Returns the floor's meter, or says why there is none."""
    if places[0].on_gpu:
        return GpuLimits()
    try:
        return Limits()
    except (NoCompilerError, OSError) as error:
        table.text(f"no floor: {error}")
        return None
