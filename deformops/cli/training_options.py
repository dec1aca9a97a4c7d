"""The options that commands which train have in common."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from pathlib import Path

#: Options of networks, each handed on where it is given.
COMMON = ("width", "norm", "style", "deformable_layers")

#: What epilogs say of the output, and of processes that learn together.
OUTPUT = """\
The output is one file: the network, its weights, and what it takes to go on. It is written so that
a process that is killed leaves a whole one, and a training that goes on with --resume gives what
it would have given without the interruption, bit by bit (on the CPU, with as many threads).
Ctrl-C finishes the step, writes the file and ends with status 130.
"""
PROCESSES = """\
Several processes, here or on several machines, share each batch:

  torchrun --nproc-per-node 2 -m %(prog)s ...

P processes do what one process does with --parts P, up to rounding. Batch normalisation is frozen
(--norm frozen), or learns from the photos of a part, which on CUDA are those of all processes.
"""


def add_files(parser: argparse.ArgumentParser, data: str) -> None:
    """What is learned, and what is written; `data` says what DATA is."""
    parser.add_argument("data", type=Path, metavar="DATA", help=data)
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="FILE", help="the checkpoint to write"
    )


def add_network(
    parser: argparse.ArgumentParser, names: Iterable[str], deformable: str
) -> argparse._ArgumentGroup:
    """The network, one of these names; `deformable` says which of them has deformable layers."""
    net = parser.add_argument_group("network")
    net.add_argument(
        "--net",
        required=True,
        choices=sorted(names),
        metavar="NAME",
        help=f"one of {', '.join(names)}",
    )
    net.add_argument("--width", type=float, metavar="FRACTION", help="of the channels")
    net.add_argument("--norm", choices=("frozen", "batch"), help="batch normalisation (ResNets)")
    net.add_argument(
        "--style", choices=("caffe", "torchvision"), help="whose geometry and weights (ResNets)"
    )
    net.add_argument(
        "--deformable-layers",
        type=int,
        metavar="N",
        help=f"how many of the last 3x3s: 0, 1, 2, 3 or 6 ({deformable})",
    )
    net.add_argument(
        "--preprocessing",
        choices=("caffe", "torchvision"),
        help="BGR less its mean, or RGB less its mean and divided by its deviation, which suits "
        "training from scratch (default: the network's own)",
    )
    net.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="to begin with: of torchvision (.pth), of Caffe (.caffemodel), .npz, or a checkpoint",
    )
    return net


def add_learning(
    parser: argparse.ArgumentParser, *, iterations: int, batch: int, decays: str
) -> argparse._ArgumentGroup:
    """How it is learned: what is not said has these defaults; `decays` says what decays."""
    learning = parser.add_argument_group("learning")
    learning.add_argument(
        "--iterations",
        type=int,
        default=iterations,
        metavar="N",
        help=f"steps (default: {iterations})",
    )
    learning.add_argument(
        "--batch",
        type=int,
        default=batch,
        metavar="N",
        help=f"photos in each step (default: {batch})",
    )
    learning.add_argument(
        "--parts",
        type=int,
        metavar="N",
        help="a batch goes through in so many parts, which saves memory (default: one for each "
        "process)",
    )
    learning.add_argument(
        "--lr", type=float, default=1e-3, metavar="RATE", help="learning rate (default: 1e-3)"
    )
    learning.add_argument("--momentum", type=float, default=0.9, metavar="M", help="default: 0.9")
    learning.add_argument(
        "--weight-decay", type=float, default=5e-4, metavar="D", help=f"{decays} (default: 5e-4)"
    )
    learning.add_argument(
        "--clip",
        type=float,
        metavar="LENGTH",
        help="gradients that are longer, all taken together, are made so long (default: none is)",
    )
    learning.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    return learning


def add_running(parser: argparse.ArgumentParser) -> None:
    """Where it runs, and what is heard of it."""
    running = parser.add_argument_group("running")
    running.add_argument(
        "--resume",
        action="store_true",
        help="go on where the output was left, if it is there, with the same options and --weights",
    )
    running.add_argument(
        "--save-every", type=int, default=500, metavar="N", help="steps (default: 500)"
    )
    running.add_argument(
        "--report-every", type=int, default=50, metavar="N", help="steps (default: 50)"
    )
    running.add_argument(
        "--device", metavar="NAME", help="cpu or cuda (default: cuda if there is some)"
    )
    running.add_argument(
        "--workers", type=int, default=0, metavar="N", help="that read photos ahead (default: 0)"
    )


def check_running(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with these options."""
    if not arguments.output.parent.is_dir():
        raise ValueError(f"{arguments.output.parent} is no folder to write to")
    for name in ("save_every", "report_every"):
        if getattr(arguments, name) < 1:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: expected at least 1, got {getattr(arguments, name)}")
    if arguments.workers < 0:
        raise ValueError(f"--workers: expected 0 or more, got {arguments.workers}")
    if arguments.output.exists() and not arguments.resume:
        raise ValueError(
            f"{arguments.output} is there already: --resume to go on with it, or another name"
        )


def chosen(arguments: argparse.Namespace, names: Iterable[str]) -> dict[str, object]:
    """The options of these names that are given."""
    given = {name: getattr(arguments, name) for name in names}
    return {name: value for name, value in given.items() if value is not None}
