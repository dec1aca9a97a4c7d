"""`deformops train-det`: trains a detector on photos with boxes."""

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
DATA is a folder laid out as Pascal VOC's (Annotations/*.xml, JPEGImages/, ImageSets/Main/*.txt),
or a file of COCO's, or a folder with such files. Objects that are difficult, or a crowd, are not
learned. Wrong boxes are clipped or dropped, and told of.

{OUTPUT}
Both stages of a detector are learned at once ("approximate joint training"), or in four steps with
--schedule alternate:

  step  learns                      begins with             iterations  writes
  1     proposals, convolutions     the initial weights     N           FILE.step1, FILE.proposals1
  2     classes, convolutions       the initial weights     N / 2       FILE.step2
  3     proposals                   step 2                  N           FILE.step3, FILE.proposals3
  4     classes                     step 3                  N / 2       FILE.step4, FILE

Steps 3 and 4 leave the convolutions as they are, bit by bit. Proposals are made once, for all that
learns from them. With an ending, FILE.pt, names are FILE.step1.pt and so on. --resume goes on in
the step that was interrupted.

{PROCESSES}
examples:
  a slim Faster R-CNN on photos of blood cells at half their size, from scratch, on a laptop:
    deformops train-det bccd -o cells.pt --net faster-rcnn-resnet50 --width 0.25 --norm batch \\
      --preprocessing torchvision --sizes 240 --longest 320 --anchor-scales 1 2 4 8 \\
      --min-size 4 --rois 64 --proposals 300 --lr 0.01 --warm-up 50 --iterations 2000 \\
      --val val
  then what it finds, and all scores:
    deformops detect photo.jpg --weights cells.pt -o boxes.png
    deformops eval-det bccd --weights cells.pt --coco
  a slim R-FCN with deformable layers and deformable pooling:
    deformops train-det bccd -o cells.pt --net rfcn-resnet50 --width 0.25 --norm batch \\
      --deformable-layers 3 --deformable-rois --preprocessing torchvision --sizes 240 \\
      --longest 320 --anchor-scales 1 2 4 8 --min-size 4 --rois 64 --hard-rois 0 \\
      --lr 0.01 --warm-up 50 --iterations 2000
  R-FCN as published, from a classifier's weights:
    deformops train-det voc -o rfcn.pt --net rfcn-resnet101 --weights resnet101.caffemodel \\
      --iterations 110000 --drops 0.69
  Faster R-CNN as published:
    deformops train-det voc -o vgg16.pt --net faster-rcnn-vgg16 --weights vgg16.caffemodel \\
      --iterations 70000 --drops 0.714 --parts 2
  and in four steps, each photo a step:
    deformops train-det voc -o zf.pt --net faster-rcnn-zf --weights zf.caffemodel \\
      --schedule alternate --box-code measured --iterations 80000 --batch 1
"""

#: Options that are numbers of `DetectorSettings`, and those whose first number is of training.
SETTINGS = ("min_size", "rois", "hard_rois", "anchors", "positive_anchors")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    from deformops.nets.detection import networks

    parser.epilog = EPILOG
    add_files(parser, "photos and the boxes in them")
    net = add_network(parser, networks(), "ResNets")
    net.add_argument(
        "--deformable-rois", action="store_true", default=None, help="RoI pooling is deformable"
    )
    net.add_argument(
        "--anchor-scales",
        type=float,
        nargs="+",
        metavar="S",
        help="sides of the anchors, in 16 pixels (default: 8 16 32)",
    )
    net.add_argument(
        "--anchor-ratios",
        type=float,
        nargs="+",
        metavar="R",
        help="height / width (default: 0.5 1 2)",
    )
    net.add_argument(
        "--min-size",
        type=float,
        metavar="PIXELS",
        help="proposals with a shorter side, in the photo, are dropped (default: 16)",
    )

    data = parser.add_argument_group("data")
    data.add_argument(
        "--split", default="train", metavar="NAME", help="the photos in DATA (default: train)"
    )
    data.add_argument(
        "--val", metavar="NAME", help="photos in DATA to be scored on at the end (default: none)"
    )
    data.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[600],
        metavar="PIXELS",
        help="photos are made so large that the shorter side is one of these, at random "
        "(default: 600); the first one is that of test",
    )
    data.add_argument(
        "--longest",
        type=int,
        default=1000,
        metavar="PIXELS",
        help="unless the longer side would be more than this (default: 1000)",
    )
    data.add_argument(
        "--names",
        type=Path,
        metavar="FILE",
        help="of the classes, one in each line (default: those of the photos, by the alphabet, or "
        "COCO's)",
    )
    data.add_argument("--no-mirror", action="store_true", help="never mirror photos")

    learning = add_learning(
        parser, iterations=70000, batch=2, decays="of weights, and of biases, whose rate is doubled"
    )
    learning.add_argument(
        "--schedule",
        choices=("joint", "alternate"),
        default="joint",
        help="both stages at once, or in four steps: see above (default: joint)",
    )
    learning.add_argument(
        "--step4",
        choices=("py-faster-rcnn", "matlab"),
        default="py-faster-rcnn",
        help="its head is that of step 2 with new last layers, or with those of step 2 "
        "(default: py-faster-rcnn)",
    )
    learning.add_argument(
        "--box-code",
        choices=("fixed", "measured"),
        default="fixed",
        help="what boxes of heads are divided by in the four steps: 0.1 0.1 0.2 0.2, or, less "
        "their mean, the deviation of each class over the proposals, as py-faster-rcnn's four "
        "steps do it (default: fixed)",
    )
    learning.add_argument(
        "--drops",
        type=float,
        nargs="*",
        default=[0.75],
        metavar="FRACTION",
        help="the rate falls to a tenth after this part of the steps (default: 0.75)",
    )
    learning.add_argument(
        "--warm-up",
        type=int,
        default=0,
        metavar="N",
        help="the first steps have a tenth of the rate (default: 0)",
    )
    learning.add_argument(
        "--first-layers",
        choices=("keep", "learn"),
        help="whether conv1_x and conv2_x (VGG-16), conv1 and res2 (ResNets) stay as they are "
        "(default: keep what --weights brings, learn without)",
    )
    learning.add_argument(
        "--anchors", type=int, metavar="N", help="to learn from in each photo (default: 256)"
    )
    learning.add_argument(
        "--positive-anchors", type=int, metavar="N", help="of these, at most (default: half)"
    )
    learning.add_argument(
        "--proposals",
        type=int,
        metavar="N",
        help="of each photo in training (default: 2000; R-FCN: 300)",
    )
    learning.add_argument(
        "--rois",
        type=int,
        metavar="N",
        help="of these, drawn to learn from, a quarter of them objects (default: 128; R-FCN: all)",
    )
    learning.add_argument(
        "--hard-rois",
        type=int,
        metavar="N",
        help="of these, the ones that are learned worst; 0: all (OHEM; default: all; R-FCN: 128)",
    )
    add_running(parser)


def beside(output: Path, what: str) -> Path:
    """The file of a step: FILE.step1.pt of FILE.pt."""
    return output.with_name(f"{output.stem}.{what}{output.suffix}")


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with the options, before anything is read."""
    for name in (*SETTINGS, "proposals"):
        value = getattr(arguments, name)
        if value is not None and value < 0:
            option = f"--{name.replace('_', '-')}"
            raise ValueError(f"{option}: expected 0 or more, got {value}")
    first = beside(arguments.output, "step1")
    if arguments.schedule == "alternate" and first.exists() and not arguments.resume:
        raise ValueError(f"{first} is there already: --resume to go on with it, or another name")
    if arguments.box_code == "measured" and arguments.schedule != "alternate":
        raise ValueError("--box-code measured: expected --schedule alternate, got joint")
    check_running(arguments)


run = Command("train-det", check, "deformops.cli.detection_training", "train")
