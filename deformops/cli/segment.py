"""`deformops segment`: labels what a photo shows with a trained network."""

from __future__ import annotations

import argparse
from pathlib import Path

from deformops.cli.command import Command
from deformops.cli.crf import add_terms

EPILOG = """\
A photo goes through the network in tiles that overlap; of each pixel, the label is kept from the
tile in which it lies farthest inside. Memory beyond the photo and its labels is that of one tile,
whatever the size of the photo. Without limits: --tile as large as the photo.

examples:
  deformops segment photo.jpg --weights fcn8s.pt -o overlay.png
  with edges along those of the photo, and the labels as a picture of numbers:
    deformops segment photo.jpg --weights fcn8s.pt -o overlay.png --labels labels.png --crf
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.epilog = EPILOG
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="any picture that Pillow reads")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="a checkpoint of train-seg"
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        required=True,
        metavar="OUT",
        help="the labels in colours over the photo, with a legend: .png, .jpg or another picture",
    )
    parser.add_argument(
        "--labels", type=Path, metavar="OUT.png", help="the numbers of the classes, with a palette"
    )
    parser.add_argument(
        "--tile", type=int, default=1024, metavar="PIXELS", help="its side (default: 1024)"
    )
    parser.add_argument(
        "--overlap",
        type=int,
        default=256,
        metavar="PIXELS",
        help="of neighbouring tiles, at least (default: 256)",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="cpu or cuda (default: cuda if there is some)"
    )
    crf = parser.add_argument_group("dense CRF")
    crf.add_argument("--crf", action="store_true", help="refine the labels of each tile with it")
    add_terms(crf)


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with the options, before anything is read."""
    from deformops.cli.output import check_picture  # it takes Pillow, which may be missing

    if arguments.tile < 1:
        raise ValueError(f"--tile: expected at least 1, got {arguments.tile}")
    if not 0 <= arguments.overlap < arguments.tile:
        raise ValueError(
            f"--overlap: expected 0 up to less than the tile's {arguments.tile}, got "
            f"{arguments.overlap}"
        )
    if arguments.iterations < 0:
        raise ValueError(f"--iterations: expected 0 or more, got {arguments.iterations}")
    if arguments.labels is not None and arguments.labels.suffix.lower() != ".png":
        raise ValueError(f"--labels: expected a name ending in .png, got {arguments.labels}")
    for file in (arguments.output, arguments.labels):
        if file is not None:
            check_picture(file)


run = Command("segment", check, "deformops.cli.segmentation", "segment")
