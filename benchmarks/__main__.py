"""The command line: ``python -m benchmarks [SUITE ...]``, and three other commands."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from . import compare, kernels, plot, report, run, suites
from .case import MissingPeerError
from .engines import require
from .measure import Measuring
from .options import add_measuring, make_plan
from .place import NoDeviceError
from .table import Table

PICTURES = (".png", ".svg", ".pdf")
COMMANDS = {"compare": compare.main, "kernels": kernels.main, "report": report.main}
EPILOG = """\
other commands (each has --help):
  python -m benchmarks kernels           what the CUDA kernels take and move, and predicted times
  python -m benchmarks report            REPORT.md: everything with pictures, measured or of a run
  python -m benchmarks compare OLD NEW   one run (--json) against another

suites: """


def parser() -> argparse.ArgumentParser:
    """Returns the argument parser."""
    result = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measures ops against their peers and the limits of the machine: all suites, "
        "or those that are named.",
        epilog=EPILOG + ", ".join(suites.names()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    result.add_argument("suites", nargs="*", metavar="SUITE", help="what to measure (default: all)")
    result.add_argument("--list", action="store_true", help="list the cases and stop")
    add_measuring(result)
    result.add_argument("--json", type=Path, metavar="FILE", help="write everything to FILE")
    result.add_argument("--plot", type=Path, metavar="FILE", help="draw it (PNG, SVG, PDF)")
    result.add_argument(
        "--compare", type=Path, metavar="OLD", help="then compare with an older run (--json)"
    )
    return result


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


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command; returns the exit status."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    if words and words[0] in COMMANDS:
        return COMMANDS[words[0]](words[1:])
    options_parser = parser()
    options = options_parser.parse_args(words)
    try:
        plan = make_plan(options.suites, options)
        check_files(options)
        old = run.load(options.compare) if options.compare else None
    except (ValueError, NoDeviceError) as error:
        options_parser.error(str(error))
    if options.list:
        for step in plan.steps:
            print("\n".join(f"{step.suite.name}: {case.name}" for case in step.cases))
        return 0
    table = Table()
    measuring = Measuring(plan, words, table, options.json)
    new = measuring.all()
    if options.json:
        table.text(f"wrote {options.json}")
    if options.plot and list(new):
        plot.draw(new, options.plot)
        table.text(f"wrote {options.plot}")
    if old:
        compare.show(table, compare.compare(new, old), old)
    return measuring.status


if __name__ == "__main__":
    torch.manual_seed(0)
    try:
        status = main()
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever read our output has gone (`--list | head`); nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
