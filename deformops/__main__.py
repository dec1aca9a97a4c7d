"""The command `deformops`, also `python -m deformops`."""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

# Command: the module that implements it, and what it does in a line.
COMMANDS = {
    "info": ("deformops.cli.info", "show versions, devices and what is missing"),
    "check": ("deformops.cli.check", "check every op on this machine"),
    "crf": ("deformops.cli.crf", "refine labels along what a photo shows"),
    "train-seg": ("deformops.cli.train_seg", "train a segmentation network on a folder of photos"),
    "eval-seg": ("deformops.cli.eval_seg", "score a trained network on photos with labels"),
    "segment": ("deformops.cli.segment", "label what a photo shows with a trained network"),
    "train-det": ("deformops.cli.train_det", "train a detector on photos with boxes"),
    "eval-det": ("deformops.cli.eval_det", "score a trained detector on photos with boxes"),
    "detect": ("deformops.cli.detect", "find what a photo shows with a trained detector"),
    "look": ("deformops.cli.look", "show on a photo where a network's deformable layers look"),
    "demo": ("deformops.demo", "show on a photo what the ops do"),
}

EPILOG = """\
`deformops COMMAND --help` has the options of a command and examples. Commands end with status 0, or
1 after a message that says what was wrong, 2 for words that they do not know, 130 after Ctrl-C.

where to begin:
  deformops info     what was built, and what it finds on this machine
  deformops demo     what the ops do to a photo, in a few pictures
  deformops check    whether they are right on this machine
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command.

    Args:
        argv: the words after the program's name; those of the process if None.

    Returns:
        The exit status: the command's, 2 for words that are not understood, 130 after Ctrl-C.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="deformops",
        description="Deformable layers, RoI pooling, NMS, dense CRFs, and networks of them.",
        epilog=f"commands:\n{_summaries()}\n\n{EPILOG}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parsers = parser.add_subparsers(
        dest="command", required=True, metavar="COMMAND", help="one of those below"
    )
    for name, (module, summary) in COMMANDS.items():
        command = parsers.add_parser(
            name,
            description=f"{summary[0].upper()}{summary[1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        # Only the command that is asked for is imported: torch alone takes a second.
        if name in words[:1]:
            implementation = importlib.import_module(module)
            implementation.add_arguments(command)
            command.set_defaults(run=implementation.run)
    arguments = parser.parse_args(words)
    try:
        return int(arguments.run(arguments))
    except KeyboardInterrupt:
        print("\ninterrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone (`deformops info | head`); nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _summaries() -> str:
    """A line for each command."""
    width = max(map(len, COMMANDS))
    return "\n".join(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items())


if __name__ == "__main__":
    sys.exit(main())
