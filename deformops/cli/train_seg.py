"""`deformops train-seg`: trains a segmentation network on a folder of photos."""

from __future__ import annotations

import argparse
from pathlib import Path

from deformops.cli.command import Command
from deformops.cli.training_options import (
    OUTPUT,
    PROCESSES,
    add_files,
    add_learning,
    add_network,
    add_running,
    check_running,
)

EPILOG = f"""\
DATA is a folder with images/ and labels/, whose files match by their names up to the ending, or
with folders that have these, such as train/, val/ and test/. A label picture holds the number of
the class of each pixel, as grey levels or with a palette. The names of the classes, one in each
line, may be in DATA/classes.txt.

{OUTPUT}
{PROCESSES}
examples:
  a slim FCN-8s on street photos at half their size, from scratch, on a laptop:
    deformops train-seg camvid -o fcn8s.pt --net fcn8s --width 0.25 --pad 1 --ignore 11 \\
      --reduce 2 --crop 160 224 --preprocessing torchvision --batch 4 --lr 0.01 --iterations 1000
  then its scores, and a picture:
    deformops eval-seg camvid --weights fcn8s.pt --split test --crf-ablation
    deformops segment photo.jpg --weights fcn8s.pt -o overlay.png --crf
  DeepLab as published, from a classifier's weights:
    deformops train-seg voc -o deeplab.pt --net deeplab-largefov --weights vgg16.caffemodel \\
      --iterations 20000 --scales 0.5 0.75 1 1.25 1.5 --parts 2
  FCN-8s as published, from FCN-16s:
    deformops train-seg voc -o fcn8s.pt --net fcn8s --weights fcn16s.pt --loss sum --crop 0 \\
      --batch 1 --momentum 0.99 --lr 1e-14 --power 0 --head-factor 1 --iterations 100000
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    from deformops.nets.segmentation import networks

    parser.epilog = EPILOG
    add_files(parser, "the photos and their labels")
    net = add_network(parser, networks(), "deeplab-deform-...")
    net.add_argument("--output-stride", type=int, metavar="PIXELS", help="8, 16 or 32 (ResNets)")
    net.add_argument("--pad", type=int, metavar="PIXELS", help="of the first layer (FCN)")
    net.add_argument(
        "--no-align-corners",
        action="store_false",
        default=None,
        dest="align_corners",
        help="scores are enlarged with borders on borders, as ports to torch do it, and photos are "
        "not filled up to 8 k + 1 pixels (DeepLab; not deform, not msc)",
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--split", default="train", metavar="NAME", help="the folder in DATA (default: train)"
    )
    data.add_argument(
        "--val",
        default="val",
        metavar="NAME",
        help="the folder in DATA to be scored on at the end, if it is there (default: val)",
    )
    data.add_argument(
        "--classes", type=int, metavar="N", help="how many (default: what names or labels have)"
    )
    data.add_argument(
        "--names", type=Path, metavar="FILE", help="of the classes (default: DATA/classes.txt)"
    )
    data.add_argument(
        "--ignore", type=int, default=255, metavar="LABEL", help="says nothing (default: 255)"
    )
    data.add_argument(
        "--reduce",
        type=float,
        default=1.0,
        metavar="FACTOR",
        help="photos are made so much smaller for the network, its scores larger (default: 1)",
    )
    data.add_argument(
        "--crop",
        type=int,
        nargs="+",
        default=[321],
        metavar="PIXELS",
        help="size of random crops, or height and width, after --reduce; 0: whole photos, and "
        "one in each part if their sizes differ (default: 321; sizes of 8 k + 1 suit DeepLab, and "
        "it must be 32 k + 1 where a network looks at several scales)",
    )
    data.add_argument(
        "--scales",
        type=float,
        nargs="+",
        default=[1.0],
        metavar="FACTOR",
        help="photos are made so much larger, one of these at random (default: 1)",
    )
    data.add_argument("--no-mirror", action="store_true", help="never mirror photos")
    data.add_argument(
        "--lighting",
        type=float,
        default=0.0,
        metavar="SIGMA",
        help="of random light along the principal components of colours; AlexNet's is 0.1 "
        "(default: 0)",
    )

    learning = add_learning(
        parser,
        iterations=20000,
        batch=10,
        decays="of weights, not of biases, whose rate is doubled",
    )
    learning.add_argument(
        "--power",
        type=float,
        default=0.9,
        metavar="P",
        help="the rate falls as (1 - step / steps)^P (default: 0.9; 0: constant)",
    )
    learning.add_argument(
        "--head-factor",
        type=float,
        default=10.0,
        metavar="F",
        help="by which new layers learn faster (default: 10)",
    )
    learning.add_argument(
        "--loss",
        choices=("mean", "sum"),
        default="mean",
        help="over the labelled pixels of a batch (default: mean, DeepLab's; sum is FCN's)",
    )
    add_running(parser)


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with the options, before anything is read."""
    if len(arguments.crop) > 2:
        raise ValueError(f"--crop: expected one or two numbers, got {arguments.crop}")
    check_running(arguments)


run = Command("train-seg", check, "deformops.cli.training", "train")
