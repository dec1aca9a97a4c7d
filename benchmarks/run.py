"""A run as a document: what was measured, on what and how; written to JSON and read from it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .place import Place
from .result import CaseResult, Line


@dataclass
class SuiteResult:
    """What came out of one suite."""

    name: str
    title: str
    notes: list[str]  # what a reader has to know: the suite's, and what happened in this run
    results: list[CaseResult] = field(default_factory=list)

    @property
    def lines(self) -> list[Line]:
        """All lines, in order."""
        return [line for result in self.results for line in result.lines]

    def as_dict(self) -> dict[str, object]:
        """Returns the results as JSON types."""
        return {
            "suite": self.name,
            "title": self.title,
            "notes": self.notes,
            "results": [result.as_dict() for result in self.results],
        }


@dataclass
class Run:
    """What came out of one command."""

    command: str
    when: str  # ISO 8601
    machine: Mapping[str, Any]  # see `machine.describe`
    places: Sequence[Place]
    quick: bool
    floor: str | None  # what multiplies for the floor
    suites: list[SuiteResult] = field(default_factory=list)
    finished: bool = False

    def __iter__(self) -> Iterator[tuple[str, Line]]:
        """Yields the name of the suite and the line, of all lines."""
        for suite in self.suites:
            for line in suite.lines:
                yield suite.name, line

    def as_dict(self) -> dict[str, object]:
        """Returns the run as JSON types."""
        return {
            "command": self.command,
            "when": self.when,
            "machine": dict(self.machine),
            "places": [{"threads": p.threads, "device": p.device} for p in self.places],
            "quick": self.quick,
            "floor": self.floor,
            "finished": self.finished,
            "suites": [suite.as_dict() for suite in self.suites],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Run:
        """Returns the run of which `as_dict` made ``values``."""
        suites = [
            SuiteResult(
                suite["suite"],
                suite["title"],
                suite["notes"],
                [CaseResult.from_dict(result) for result in suite["results"]],
            )
            for suite in values["suites"]
        ]
        places = [Place(**place) for place in values["places"]]
        plain = ("command", "when", "machine", "quick", "floor", "finished")
        return cls(places=places, suites=suites, **{name: values[name] for name in plain})

    def save(self, file: Path) -> None:
        """Writes the run; whoever reads meanwhile finds the old file or the new one."""
        unfinished = file.with_name(file.name + ".part")
        unfinished.write_text(json.dumps(self.as_dict(), indent=1, allow_nan=False) + "\n")
        unfinished.replace(file)


def load(file: Path) -> Run:
    """Reads a run.

    Raises:
        ValueError: the file is not there, or no run of this program.
    """
    try:
        return Run.from_dict(json.loads(file.read_text()))
    except OSError as error:
        raise ValueError(f"cannot read {file}: {error.strerror}") from error
    except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{file} is not what python -m benchmarks --json of this version writes "
            f"({type(error).__name__}: {error})"
        ) from error
