"""`deformops detect`: finds what a photo shows with a trained detector."""

from __future__ import annotations

import argparse
from pathlib import Path

from deformops.cli.command import Command

EPILOG = """\
Boxes are printed as left, top, right and bottom, in pixels of the photo, by falling score, and are
drawn on it, with a colour for each class. Small photos are drawn larger, by a whole number.

examples:
  deformops detect photo.jpg --weights cells.pt
  only what is sure, and of that the best ten:
    deformops detect photo.jpg --weights cells.pt -o sure.png --min-score 0.9 --top 10
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.epilog = EPILOG
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="any picture that Pillow reads")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="a checkpoint of train-det"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        metavar="OUT",
        help="the photo with the boxes: .png, .jpg or another picture (default: the photo's name "
        "and -boxes.png, in the current folder)",
    )
    parser.add_argument(
        "--min-score",
        type=float,
        default=0.5,
        metavar="P",
        help="leave out what is less probable (default: 0.5)",
    )
    parser.add_argument(
        "--top", type=int, default=100, metavar="N", help="at most so many (default: 100)"
    )
    parser.add_argument(
        "--device", metavar="NAME", help="cpu or cuda (default: cuda if there is some)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with the options, before anything is read."""
    from deformops.cli.output import check_picture  # it takes Pillow, which may be missing

    if not 0 <= arguments.min_score < 1:
        raise ValueError(
            f"--min-score: expected a number from 0 to below 1, got {arguments.min_score}"
        )
    if arguments.top < 1:
        raise ValueError(f"--top: expected at least 1, got {arguments.top}")
    if arguments.output is None:
        arguments.output = Path(f"{arguments.photo.stem}-boxes.png")
    check_picture(arguments.output)


run = Command("detect", check, "deformops.cli.detection", "detect")
