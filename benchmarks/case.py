"""What a suite is made of: cases, competitors, and the targets a case has to meet."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

import torch

from .place import Place

OURS = "ours"
FLOOR = "floor"
SAMENESS = 1e-4


class MissingPeerError(Exception):
    """A competitor that cannot run here; the message says why, in one line."""


@dataclass(frozen=True)
class Competitor:
    """One implementation, with its inputs ready.

    ``steps`` run in order and are timed one by one: ``{"forward": f}``, or
    ``{"forward": f, "backward": g}`` where ``g`` uses what ``f`` left behind.
    ``results`` runs the steps once more and returns what they compute, to be compared by name.
    ``split`` runs them once more and returns the seconds of each kind of op in them.
    """

    steps: Mapping[str, Callable[[], Any]]
    results: Callable[[], Mapping[str, Any]]
    split: Callable[[], Mapping[str, float]] | None = None


class Factory(Protocol):
    """Makes a competitor for a place; raises `MissingPeerError` where it cannot."""

    def __call__(self, place: Place, /) -> Competitor: ...


@dataclass(frozen=True)
class Entry:
    """A competitor's place in a case."""

    factory: Factory
    # Computes something else, as a plain convolution does beside a deformable one: never compared.
    landmark: bool = False
    # The largest accepted difference from ours, ||a - b|| / ||b||.
    tolerance: float = SAMENESS
    # A call takes many seconds: left out of a first look (--quick).
    slow: bool = False


@dataclass(frozen=True)
class Work:
    """What nobody can do without; the time that this machine needs for it is the floor."""

    amount: float
    unit: Literal["flops", "bytes"]
    dtype: torch.dtype = torch.float32  # of what is multiplied: GPUs have a peak for each

    @classmethod
    def flops(cls, count: float, dtype: torch.dtype = torch.float32) -> Work:
        """Multiplications and additions."""
        return cls(count, "flops", dtype)

    @classmethod
    def bytes(cls, count: float) -> Work:
        """Bytes that are read once and bytes that are written once, together."""
        return cls(count, "bytes")


@dataclass(frozen=True)
class Part:
    """What one line of the table reports: the sum of some steps, and the work they cannot avoid."""

    name: str
    steps: tuple[str, ...]
    work: Work | None = None  # None: there is no floor to speak of


@dataclass(frozen=True)
class Target:
    """A bound on a ratio taken within one run.

    Against the floor: our time over the floor's, at most ``bound``. Against peers: the time of the
    fastest of them over ours, at least ``bound``; a bound below 1 allows us to be slower.
    """

    part: str
    against: tuple[str, ...]
    bound: float
    threads: str = "any"  # "any", "one" or "all"

    def __str__(self) -> str:
        if self.against == (FLOOR,):
            return f"at most {self.bound:g}x the floor"
        who = self.against[0] if len(self.against) == 1 else "the best peer"
        if self.bound < 1:
            return f"at most {1 / self.bound:.3g}x the time of {who}"
        return f"at least {self.bound:g}x as fast as {who}"


@dataclass(frozen=True)
class Case:
    """One problem that everybody solves."""

    name: str
    parts: tuple[Part, ...]
    entries: Mapping[str, Entry]
    targets: tuple[Target, ...] = ()
    quick: bool = False  # belongs to the short selection of --quick
    call_seconds: float = 0.0  # about, where no work tells: for the plan of a run

    def with_peers(self, names: Sequence[str]) -> Case:
        """Returns the case with ours and, of the others, only those called ``names``."""
        kept = {name: e for name, e in self.entries.items() if name == OURS or name in names}
        return replace(self, entries=kept)


@dataclass(frozen=True)
class Suite:
    """All cases about one op."""

    name: str
    title: str
    cases: Sequence[Case]
    # Tiny cases with the same competitors: they wake libraries up before memory is measured.
    warm_up: Sequence[Case]
    # What a reader has to know about the competitors, one line each.
    notes: Sequence[str] = field(default_factory=tuple)

    def case(self, name: str) -> Case:
        """Returns the case called ``name``."""
        return next(case for case in (*self.cases, *self.warm_up) if case.name == name)
