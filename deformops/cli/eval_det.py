"""`deformops eval-det`: scores a trained detector on photos with boxes."""

from __future__ import annotations

import argparse
import importlib.util
from pathlib import Path

from deformops.cli.command import Command

EPILOG = """\
DATA is a folder of Pascal VOC's, with Annotations/*.xml, JPEGImages and ImageSets/Main/*.txt; or a
file of COCO's, whose photos lie beside it or in a folder beside it; or a folder with such files as
annotations/NAME.json or annotations/instances_NAME.json. Boxes beyond their photo are clipped to
it, what is no box is dropped, and both are told of.

Scores are average precisions (AP) of each class in per cent, a dash where there is no object of a
class, and their means. VOC's count a detection as right if it overlaps an object by more than half
(IoU > .5): "area" under the curve, as from 2010 on, and the mean at 11 recalls, as before. What is
marked as difficult or as a crowd need not be found. COCO's (--coco) are the mean over the IoUs .5,
.55, ... .95, computed by its own program. Under torchrun, processes share the photos.

examples:
  deformops eval-det bccd --weights cells.pt
  deformops eval-det coco/annotations/instances_val2017.json --weights net.pt --coco
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.epilog = EPILOG
    parser.add_argument("data", type=Path, metavar="DATA", help="photos with boxes, see below")
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="a checkpoint of train-det"
    )
    parser.add_argument(
        "--split", default="test", metavar="NAME", help="which photos of DATA (default: test)"
    )
    parser.add_argument(
        "--coco", action="store_true", help="also COCO's scores; they take pycocotools"
    )
    parser.add_argument(
        "--device", metavar="NAME", help="cpu or cuda (default: cuda if there is some)"
    )


def check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with the options, before anything is read."""
    if arguments.coco and importlib.util.find_spec("pycocotools") is None:
        raise ValueError("--coco needs pycocotools: pip install 'deformops-vision[nets]'")


run = Command("eval-det", check, "deformops.cli.detection_scores", "evaluate")
