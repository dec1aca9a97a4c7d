"""The command line: ``python -m benchmarks SUITE [options]``, ``python -m benchmarks kernels``."""

from __future__ import annotations

import argparse
import datetime
import json
import platform
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import kernels, memory, suites
from .case import Case, MissingPeerError, Suite
from .engines import require
from .limits import LARGEST_COPY, Limits, NoCompilerError
from .machine import cores, cpu_name, describe, versions
from .plot import draw
from .result import CaseResult
from .rotation import Effort
from .session import NothingToMeasureError, Session
from .table import Table, thread_count

PICTURES = (".png", ".svg", ".pdf")
RATIOS = (
    "ratio: median over rounds of time / our time in the same round; ours: our time / the floor's",
    "floor: the flops at the multiply-add peak, or a copy of as many bytes; measured in each round",
)


def parser() -> argparse.ArgumentParser:
    """Returns the argument parser."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures ops against their peers and the limits of the machine.",
        epilog="suites: "
        + ", ".join(suites.names())
        + "; python -m benchmarks kernels: registers, occupancy and spills of the CUDA kernels",
    )
    result.add_argument("suite", nargs="?", choices=suites.names(), help="what to measure")
    result.add_argument("--list", action="store_true", help="list the cases and stop")
    result.add_argument(
        "--threads", default="1,all", help="numbers of threads, as in 1,2 or 1,all (default: 1,all)"
    )
    result.add_argument(
        "--cases", default="", metavar="TEXT", help="only cases whose name has TEXT"
    )
    result.add_argument("--peers", metavar="A,B", help="only these competitors beside ours")
    result.add_argument("--quick", action="store_true", help="few cases, few rounds, no memory")
    result.add_argument("--repeats", type=int, metavar="N", help="at least N rounds")
    result.add_argument("--min-time", type=float, metavar="S", help="at least S seconds for each")
    result.add_argument("--no-memory", action="store_true", help="skip the memory measurement")
    result.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    result.add_argument(
        "--plot", type=Path, metavar="FILE", help="draw a bar chart (PNG, SVG, PDF)"
    )
    return result


def parse_threads(text: str) -> list[int]:
    """Turns "1,all" into rising, distinct numbers of threads.

    Raises:
        ValueError: for anything but positive numbers and the word all.
    """
    counts = set()
    for word in text.split(","):
        count = cores() if word.strip() == "all" else int(word)
        if count < 1:
            raise ValueError(f"expected positive numbers of threads or all, got {text!r}")
        counts.add(count)
    return sorted(counts)


def check_files(options: argparse.Namespace) -> None:
    """Finds out before anything is measured whether the results can be written.

    Raises:
        ValueError: a folder is missing, or the chart cannot be drawn.
    """
    for name, file in (("--json", options.json), ("--plot", options.plot)):
        if file and not file.parent.is_dir():
            raise ValueError(f"{name}: {file.parent} is no folder")
    if options.plot:
        if options.plot.suffix not in PICTURES:
            raise ValueError(f"--plot: expected a name ending in {', '.join(PICTURES)}")
        try:
            require("matplotlib")
        except MissingPeerError as error:
            raise ValueError(f"--plot: {error}") from error


def select(suite: Suite, text: str, peers: str | None, quick: bool) -> list[Case]:
    """Returns the cases that were asked for, each with the competitors that were asked for."""
    chosen = [case for case in suite.cases if text in case.name]
    if quick and not text:
        chosen = [case for case in chosen if case.quick]
    return [case.with_peers(peers.split(",")) if peers else case for case in chosen]


class StatusLine:
    """One line on a terminal that is overwritten while work goes on; silent elsewhere."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        """Shows ``text`` in place of what was there; an empty text clears the line."""
        if self._on:
            print(f"\r\x1b[K{text[:118]}", end="", file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one suite, or the table of kernels; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words[:1] == ["kernels"]:
        return kernels.main(words[1:])
    options_parser = parser()
    options = options_parser.parse_args(words)
    if options.suite is None:
        options_parser.print_help()
        return 0
    try:
        threads = parse_threads(options.threads)
    except ValueError as error:
        options_parser.error(f"--threads: {error}")
    suite = suites.load(options.suite)
    cases = select(suite, options.cases, options.peers, options.quick)
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    try:
        check_files(options)
    except ValueError as error:
        options_parser.error(str(error))
    if not cases:
        options_parser.error(f"no case has {options.cases!r} in its name (see --list)")
    return run(suite, cases, threads, options)


def run(
    suite: Suite, cases: Sequence[Case], threads: Sequence[int], options: argparse.Namespace
) -> int:
    """Measures, prints as results come, and writes the files; an interrupt only ends it early."""
    status, table = StatusLine(), Table()
    effort = Effort.quick() if options.quick else Effort()
    effort = effort.at_least(options.repeats, options.min_time)
    limits = start_limits(table)
    with_memory = memory.available() and not (options.quick or options.no_memory)
    session = Session(suite, threads, effort, limits, with_memory, status)
    introduce(table, suite, threads, limits)
    interrupted = failed = False
    printed = 0
    try:
        for result in session.run(cases):
            status("")
            table.block(result)
            printed += 1
    except KeyboardInterrupt:
        interrupted = True
    except (NothingToMeasureError, ImportError) as error:
        table.text(f"stopped: {error}")
        failed = True
    status("")
    for unfinished in session.results[printed:]:
        table.block(unfinished)
    results = [result for result in session.results if result.lines]
    table.summary(results)
    table.targets(results)
    table.scaling(results)
    conclude(table, session, interrupted, len(cases))
    save(options, suite, session, results, table)
    return 130 if interrupted else 1 if failed else 0


def start_limits(table: Table) -> Limits | None:
    """Returns the floor's meter, or says why there is none."""
    try:
        return Limits()
    except (NoCompilerError, OSError) as error:
        table.text(f"no floor: {error}")
        return None


def introduce(table: Table, suite: Suite, threads: Sequence[int], limits: Limits | None) -> None:
    """Prints what is measured, with what, and on what."""
    table.text(f"{suite.name}: {suite.title}", bold=True)
    table.text(f"{cpu_name()}, {cores()} cores, {platform.system()}")
    table.text(", ".join(f"{name} {version}" for name, version in versions().items()))
    if limits:
        rates = (
            f"{limits.flops_per_second(n) / 1e9:.0f} GFLOP/s, "
            f"{limits.bytes_per_second(n, 2 * LARGEST_COPY) / 1e9:.1f} GB/s on {thread_count(n)}"
            for n in threads
        )
        what = f"multiply-adds ({limits.instructions}), a copy of {LARGEST_COPY >> 20} MiB"
        table.text(f"{what}: " + "; ".join(rates))
    for note in (*RATIOS, *suite.notes):
        table.text(f"- {note}")


def conclude(table: Table, session: Session, interrupted: bool, wanted: int) -> None:
    """Prints what a reader must not overlook."""
    if session.notes:
        table.text()
    for note in session.notes:
        table.text(f"note: {note}")
    if interrupted:
        table.text()
        table.text(f"interrupted: {len(session.results)} of {wanted} cases begun", bold=True)


def save(
    options: argparse.Namespace,
    suite: Suite,
    session: Session,
    results: Sequence[CaseResult],
    table: Table,
) -> None:
    """Writes the files that were asked for."""
    if options.json:
        document = {
            "suite": suite.name,
            "when": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "machine": describe(),
            "instructions": session.limits.instructions if session.limits else None,
            "threads": list(session.threads),
            "notes": [*suite.notes, *session.notes],
            "results": [result.as_dict() for result in results],
        }
        options.json.write_text(json.dumps(document, indent=1) + "\n")
        table.text(f"wrote {options.json}")
    if options.plot and results:
        try:
            draw(suite.title, results, options.plot)
        except ValueError as error:
            table.text(f"no chart: {error}")
        else:
            table.text(f"wrote {options.plot}")


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
