"""Options that say what is measured and how, and the plan that follows from them."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from . import memory, suites
from .case import OURS, Case, Suite
from .machine import cores
from .place import Place, cuda
from .plan import Plan, Step
from .rotation import Effort

FILES = ("--json", "--plot", "--compare", "--output")


def add_measuring(to: argparse.ArgumentParser) -> None:
    """Adds the options."""
    to.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="(default: cpu)")
    to.add_argument(
        "--threads", default="1,all", help="numbers of threads, as in 1,2 or 1,all (default: 1,all)"
    )
    to.add_argument("--cases", default="", metavar="TEXT", help="only cases whose name has TEXT")
    to.add_argument("--peers", metavar="A,B", help="only these competitors beside ours")
    to.add_argument("--quick", action="store_true", help="few cases, few rounds")
    to.add_argument("--repeats", type=int, metavar="N", help="at least N rounds")
    to.add_argument("--min-time", type=float, metavar="S", help="at least S seconds for each")
    to.add_argument("--no-memory", action="store_true", help="skip the memory measurement")


def make_plan(names: Sequence[str], options: argparse.Namespace) -> Plan:
    """Returns what the options ask for, of the suites called ``names``; of all where none is.

    Raises:
        ValueError: a suite, a case, a competitor or a number of threads is none.
        NoDeviceError: there is no such device.
    """
    for name in names:
        if name not in suites.names():
            raise ValueError(f"no suite is called {name!r}: {', '.join(suites.names())}")
    try:
        places = [Place(count) for count in parse_threads(options.threads)]
    except ValueError as error:
        raise ValueError(f"--threads: {error}") from error
    if options.device == "cuda":
        places = [cuda()]
    chosen = [suites.load(name) for name in dict.fromkeys(names or suites.names())]
    _check_peers(options.peers, chosen)
    steps = []
    for suite in chosen:
        cases = select(suite, options.cases, options.peers, options.quick)
        if cases:
            steps.append(Step(suite, cases))
    if not steps:
        raise ValueError(f"no case has {options.cases!r} in its name (see --list)")
    effort = Effort.quick() if options.quick else Effort()
    effort = effort.at_least(options.repeats, options.min_time)
    measurable = memory.available() or places[0].on_gpu
    return Plan(steps, places, effort, options.quick, measurable and not options.no_memory)


def _check_peers(text: str | None, chosen: Sequence[Suite]) -> None:
    """Raises ValueError for names that no competitor of some suites has."""
    known = {name for suite in chosen for case in suite.cases for name in case.entries}
    unknown = set(text.split(",") if text else ()) - known
    if unknown:
        names = ", ".join(sorted(known - {OURS}))
        raise ValueError(f"--peers: expected some of {names}, got {', '.join(sorted(unknown))}")


def without_files(words: Sequence[str]) -> list[str]:
    """Returns what of a command line says what is measured, not where it is written."""
    kept: list[str] = []
    skip = False
    for word in words:
        if not skip and word.partition("=")[0] not in FILES:
            kept.append(word)
        skip = not skip and word in FILES
    return kept


def parse_threads(text: str) -> list[int]:
    """Turns "1,all" into rising, distinct numbers of threads.

    Raises:
        ValueError: for anything but positive numbers and the word all.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(word == "all" or (word.isdecimal() and int(word) > 0) for word in words):
        raise ValueError(f"expected positive numbers of threads or all, got {text!r}")
    return sorted({cores() if word == "all" else int(word) for word in words})


def select(suite: Suite, text: str, peers: str | None, quick: bool) -> list[Case]:
    """Returns the cases that were asked for, each with the competitors that were asked for."""
    chosen = [case for case in suite.cases if text in case.name]
    if quick and not text:
        chosen = [case for case in chosen if case.quick]
    return [case.with_peers(peers.split(",")) if peers else case for case in chosen]
