"""`deformops check`: every op against references, finite differences and torch's machinery."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence

import torch

from deformops import ops
from deformops.cli.case import Case
from deformops.cli.cases import cases
from deformops.testing import CHECKS, Report, Result, check_op

DEVICES = ("cpu", "cuda", "simulated")
_MARKS = {"passed": "ok", "failed": "FAILED", "skipped": "-"}
EPILOG = """\
Prints a table, a row for each op, a column for each check: ok, FAILED, or - where a check does not
apply; what failed follows in words. The status is 1 if anything failed. What each check compares
with what is said by deformops.testing.check_op, which does the work and checks ops of yours, too.

examples:
  deformops check
  what one op does under torch.compile and torch.export:
    deformops check --op deform_conv2d --check compile --check export --verbose
  the CUDA kernels, on a GPU or without one:
    deformops check --device cuda
    deformops check --device simulated --op nms
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.epilog = EPILOG
    names = [case.op.split()[0] for case in cases("deformops", "meta")]
    parser.add_argument(
        "--device",
        choices=DEVICES,
        default="cpu",
        help="where the kernels run; 'simulated' executes the CUDA kernels on the CPU, if that was "
        "built (make simulated)",
    )
    parser.add_argument(
        "--op",
        action="append",
        choices=sorted(set(names)),
        metavar="NAME",
        help=f"only this op; may be given again ({', '.join(sorted(set(names)))})",
    )
    parser.add_argument(
        "--check",
        action="append",
        choices=CHECKS,
        metavar="NAME",
        help=f"only this check; may be given again ({', '.join(CHECKS)})",
    )
    parser.add_argument(
        "--exhaustive",
        action="store_true",
        help="finite differences for each number in turn: minutes instead of seconds",
    )
    parser.add_argument(
        "--verbose", action="store_true", help="print errors and times of all checks"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the checks and prints a table.

    Args:
        arguments: parsed, with the options of `add_arguments`.

    Returns:
        The exit status: 0, or 1 if a check failed or the device is missing.
    """
    problem = _missing(arguments.device)
    if problem:
        print(f"deformops check: {problem}", file=sys.stderr)
        return 1
    namespace = "deformops_simulated" if arguments.device == "simulated" else "deformops"
    device = "cuda" if arguments.device == "cuda" else "cpu"
    chosen = [
        case
        for case in cases(namespace, device)
        if not arguments.op or case.op.split()[0] in arguments.op
    ]
    asked = tuple(arguments.check or CHECKS)
    start = time.perf_counter()
    progress = _Progress(sum(len(_applicable(case, asked)) for case in chosen))
    reports = [
        check_op(
            case.function,
            *case.inputs,
            reference=case.reference,
            raw_calls=case.raw_calls,
            batch_inputs=case.batch_inputs,
            exhaustive=arguments.exhaustive,
            checks=_applicable(case, asked),
            name=case.op,
            on_result=progress.show,
            raise_on_failure=False,
        )
        for case in chosen
    ]
    progress.clear()
    _print_table(reports, asked)
    for report in reports:
        if arguments.verbose:
            print(f"\n{report}")
        for result in report.results:
            if result.status == "failed":
                print(f"\n{report.op}: {result.check}: {result.detail}")
    failed = sum(result.status == "failed" for report in reports for result in report.results)
    total = progress.done
    verdict = f"{failed} of {total} checks failed" if failed else f"all {total} checks passed"
    print(f"\n{verdict} on {arguments.device} in {time.perf_counter() - start:.0f} s")
    return 1 if failed else 0


def _missing(device: str) -> str:
    """Why there is no such device here; empty if there is."""
    if device == "cuda":
        if not torch.cuda.is_available():
            return "torch finds no CUDA device; `deformops info` says more"
        if not torch._C._dispatch_has_kernel_for_dispatch_key("deformops::gather_columns", "CUDA"):
            return "this library was built without CUDA kernels; `deformops info` says more"
    if device == "simulated":
        try:
            from deformops import simulation
        except ImportError as error:
            return str(error)
        simulation.load()
        ops.register("deformops_simulated")
    return ""


def _applicable(case: Case, asked: Sequence[str]) -> list[str]:
    return [check for check in asked if check in case.checks]


class _Progress:
    """One line that is written over, on a terminal."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.done = 0

    def show(self, result: Result) -> None:
        self.done += 1
        if sys.stderr.isatty():
            line = f"{self.done}/{self.total} {result.check} {_MARKS[result.status]}"
            print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr, flush=True)


def _print_table(reports: Sequence[Report], checks: Sequence[str]) -> None:
    """A row for each op, a column for each check."""
    rows = [["op", *checks]]
    for report in reports:
        marks = {result.check: _MARKS[result.status] for result in report.results}
        rows.append([report.op, *(marks.get(check, "-") for check in checks)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print(
            "  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip()
        )
