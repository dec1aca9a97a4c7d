"""`deformops eval-seg`: scores a trained network on photos with labels."""

from __future__ import annotations

import argparse
from pathlib import Path

from deformops.cli.command import Command
from deformops.cli.crf import add_terms

EPILOG = """\
Scores are those of all photos together, at the size of their labels: IoU of each class (a dash
where a class neither occurs nor is found), their mean, mean and pixel accuracy, and IoU weighted
with how frequent classes are. Under torchrun, processes share the photos.

examples:
  deformops eval-seg camvid --weights fcn8s.pt --split test
  what each term of the CRF does, four mean IoUs from one command:
    deformops eval-seg camvid --weights fcn8s.pt --split val --crf-ablation
  how it does near boundaries:
    deformops eval-seg camvid --weights fcn8s.pt --split val --trimap 1 3 10 30
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.epilog = EPILOG
    parser.add_argument("data", type=Path, metavar="DATA", help="a folder as train-seg takes it")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="a checkpoint of train-seg"
    )
    parser.add_argument(
        "--split", default="val", metavar="NAME", help="the folder in DATA (default: val)"
    )
    parser.add_argument(
        "--trimap",
        type=int,
        nargs="+",
        default=[],
        metavar="PIXELS",
        help="also count in bands so wide around the boundaries of labels",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="cpu or cuda (default: cuda if there is some)"
    )
    crf = parser.add_argument_group("dense CRF")
    ways = crf.add_mutually_exclusive_group()
    ways.add_argument("--crf", action="store_true", help="score with a CRF on top as well")
    ways.add_argument(
        "--crf-ablation", action="store_true", help="score each of its terms alone, and both"
    )
    add_terms(crf)


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with the options, before anything is read."""
    if arguments.trimap and min(arguments.trimap) < 1:
        raise ValueError(f"--trimap: expected widths of at least 1, got {arguments.trimap}")
    if arguments.iterations < 0:
        raise ValueError(f"--iterations: expected 0 or more, got {arguments.iterations}")


run = Command("eval-seg", check, "deformops.cli.evaluation", "evaluate")
