"""`deformops look`: shows on a photo where a network's deformable layers look."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from deformops.cli.command import Command
from deformops.training.network import PREPROCESSINGS

EPILOG = """\
MODEL is a checkpoint of train-seg or train-det, or a network of yours: package.module:name or
file.py:name, where the name is a torch.nn.Module or a function that returns one, weights loaded.
Deformable layers are found while the network runs on the photo: those of this package, of
torchvision, and layers of others that are made like mmcv's.

The picture shows, for the unit of a layer that lies at each point: the points that the deformable
layers below it read, one layer after the other; the pixels that it can depend on while no tap moves
(its theoretical receptive field) and how much each weighs (its effective one); and how far the
layer spreads its taps, over the whole photo (its effective dilation).

examples:
  deformops look deform.pt photo.jpg --at 220,140 -o look.png
  deformops look deform.pt photo.jpg --at 220,140 60,200 --layer backbone.layer4.1.conv2
  deformops look my_networks.py:detector photo.jpg --list
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EPILOG
    parser.add_argument("model", metavar="MODEL", help="a checkpoint, or FILE.py:NAME; see below")
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="any picture that Pillow reads")
    parser.add_argument(
        "--at",
        type=point,
        nargs="+",
        action="extend",
        metavar="X,Y",
        help="pixels of the photo (default: its middle)",
    )
    parser.add_argument(
        "-o",
        "--output",
        type=Path,
        default=Path("look.png"),
        metavar="OUT",
        help="the picture (default: look.png)",
    )
    parser.add_argument(
        "--list", action="store_true", help="print the deformable layers, and draw nothing"
    )
    parser.add_argument(
        "--layer", metavar="NAME", help="the deformable layer to look from (default: the last one)"
    )
    parser.add_argument(
        "--depth",
        type=int,
        default=3,
        metavar="N",
        help="follow so many deformable layers down, at most; each has 9 times as many points as "
        "the one above (default: 3)",
    )
    parser.add_argument(
        "--group",
        type=int,
        default=0,
        metavar="N",
        help="of channels with offsets of their own, from 0 on (default: 0)",
    )
    parser.add_argument(
        "--size",
        type=int,
        metavar="PIXELS",
        help="make the longer side of the photo so large (default: as in training; 800 at most for "
        "a network of yours)",
    )
    parser.add_argument(
        "--preprocessing",
        choices=(*PREPROCESSINGS, "unit"),
        help='of the photo, for a network of yours; "unit" is colours from 0 to 1 (default: its '
        "attribute `preprocessing`, else torchvision)",
    )
    parser.add_argument(
        "--device", metavar="NAME", help="cpu or cuda (default: cuda if there is some)"
    )


def point(text: str) -> tuple[float, float]:
    """Reads "X,Y".

    Raises:
        argparse.ArgumentTypeError: it is something else.
    """
    try:
        x, y = map(float, text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected X,Y as in 220,140, got {text!r}") from None
    return x, y


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with the options, before anything is read."""
    for name, least in (("depth", 1), ("group", 0), ("size", 1)):
        value = getattr(arguments, name)
        if value is not None and value < least:
            raise ValueError(f"--{name}: expected at least {least}, got {value}")
    if arguments.depth > DEEPEST:
        raise ValueError(f"--depth: expected at most {DEEPEST}, got {arguments.depth}")
    if arguments.list:
        return
    if importlib.util.find_spec("matplotlib") is None:
        raise ValueError("its pictures need matplotlib: pip install 'deformops-vision[viz]'")
    if not arguments.output.parent.is_dir():
        raise ValueError(f"{arguments.output.parent} is no folder to write to")


DEEPEST = 5  # 59,049 points of 3x3 layers
run = Command("look", check, "deformops.cli.looking", "look")
