"""python -m deformops.simulation: a command with one of the builds, the self-test, a profile."""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from pathlib import Path

import torch

from deformops import simulation
from deformops.simulation import report, selftest
from deformops.simulation.problems import Tensors, problems

TYPES = ("float64", "float32", "float16", "bfloat16")
ASAN_OPTIONS = {
    "detect_leaks": "0",  # Python's own
    "halt_on_error": "0",  # reports become exceptions
    "suppress_equal_pcs": "0",  # every time
    "verify_asan_link_order": "0",
    "detect_stack_use_after_return": "0",
    # The simulated device turns faults of kernels into exceptions itself.
    "handle_segv": "0",
    "handle_sigbus": "0",
    "handle_sigfpe": "0",
    "handle_sigill": "0",
}

EPILOG = """\
The builds: plain (fast: values, barriers, shared memory), race (each access is checked: races,
bounds, reads of what nobody wrote), asan (AddressSanitizer and UndefinedBehaviorSanitizer).

examples:
  a script of yours, its kernels checked for races:
    python -m deformops.simulation run race -- python script.py
  memory transactions and bank conflicts by source line:
    python -m deformops.simulation profile deform_conv2d --type float16
  is what was planted noticed?
    python -m deformops.simulation selftest --seeds 5
"""


def environment(build: str) -> dict[str, str]:
    """What a process needs in its environment to load a build.

    Args:
        build: one of `deformops.simulation.BUILDS`.

    Returns:
        Variables to add to the environment; for "asan" they preload the sanitizer's library and set
        its options.

    Raises:
        RuntimeError: the asan build's sanitizer is unknown (binutils' readelf tells it).
    """
    variables = {"DEFORMOPS_SIMULATED": build}
    if build == "asan":
        # The sanitizer looks for __cxa_throw when it starts, which Python alone does not have.
        preload = [_sanitizer(), "libstdc++.so.6", os.environ.get("LD_PRELOAD", "")]
        variables["LD_PRELOAD"] = " ".join(preload).strip()
        options = ":".join(f"{name}={value}" for name, value in ASAN_OPTIONS.items())
        variables["ASAN_OPTIONS"] = f"{os.environ.get('ASAN_OPTIONS', '')}:{options}".lstrip(":")
    return variables


def _sanitizer() -> str:
    """Name of the library that the asan build was linked with, as the dynamic loader knows it."""
    library = Path(__file__).parent / "libdeformops_simulated_asan.so"
    command = ["readelf", "--dynamic", str(library)]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    match = re.search(r"NEEDED.*\[(libasan\.so[.\d]*)\]", answer.stdout)
    if match is None:
        reason = answer.stderr.strip()
        raise RuntimeError(f"{library} does not say which libasan it needs: {reason}")
    return match[1]


def profile(op: str, tensors: Tensors, options: dict[str, bool], lines: int) -> None:
    """Runs an op's problem in the race build and prints what its kernels did.

    Args:
        op: a name of `deformops.simulation.problems`; others end the program.
        tensors: type and memory format.
        options: passed to the op.
        lines: source lines to show.
    """
    simulation.load("race")
    known = problems(torch.ops.deformops_simulated, tensors, options)
    if op not in known:
        sys.exit(f"profile: there is a problem for {', '.join(known)}, and none for {op!r}")
    problem = known[op]()
    with simulation.profile() as launches:
        result = problem.call()
    outputs = result if isinstance(result, tuple) else (result,)
    print(report.table(launches))
    print(f"\n{report.movement(launches, problem.inputs, outputs)}")
    print(f"\n{report.hot_lines(launches, lines)}")


def main(arguments: list[str] | None = None) -> int:
    """Entry of ``python -m deformops.simulation``."""
    parser = argparse.ArgumentParser(
        prog="python -m deformops.simulation",
        description="Runs the package's CUDA kernels on the CPU and checks what they do.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    run = commands.add_parser("run", help="run a command with one of the builds chosen")
    run.add_argument("build", choices=simulation.BUILDS)
    run.add_argument("words", nargs=argparse.REMAINDER, metavar="-- COMMAND ...")
    test = commands.add_parser("selftest", help="run kernels with planted mistakes")
    test.add_argument("--seeds", type=int, default=20, metavar="N", help="schedules (default: 20)")
    test.add_argument("--preemption", type=float, default=0.0, metavar="P")
    traffic = commands.add_parser("profile", help="count an op's memory transactions")
    traffic.add_argument("op", help="as in deform_conv2d_backward")
    traffic.add_argument("--type", default="float32", choices=TYPES)
    traffic.add_argument("--channels-last", action="store_true")
    traffic.add_argument("--deterministic", action="store_true", help="sums in one order")
    traffic.add_argument("--allow-tf32", action="store_true")
    traffic.add_argument("--lines", type=int, default=12, metavar="N", help="source lines to show")
    options = parser.parse_args(arguments)
    if options.command == "profile":
        tensors = Tensors(getattr(torch, options.type), options.channels_last)
        switches = {"deterministic": options.deterministic, "allow_tf32": options.allow_tf32}
        profile(options.op, tensors, switches, options.lines)
        return 0
    if options.command == "selftest":
        builds = ["asan"] if simulation.has_sanitizer() else ["plain", "race"]
        print(selftest.table(builds, range(options.seeds), options.preemption))
        return 0
    words = options.words[1:] if options.words[:1] == ["--"] else options.words
    if not words:
        parser.error("a command is needed after --")
    return os.execvpe(words[0], words, {**os.environ, **environment(options.build)})


if __name__ == "__main__":
    sys.exit(main())
