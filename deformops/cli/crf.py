"""`deformops crf`: refines labels along what a photo shows."""

from __future__ import annotations

import argparse
import importlib.util
import math
import sys
from pathlib import Path

PARTS = {
    "unary": "the given labels as they are",
    "gaussian": "near pixels alike",
    "bilateral": "near pixels of like colours alike",
    "both": "both terms",
}

EPILOG = """\
Labels that are about right, blocks or a network's, move to the edges of the photo: mean field in a
dense CRF, deformops.dense_crf, whose two terms the options describe. Of a picture, the labels that
occur in it take part.

examples:
  deformops crf photo.jpg labels.png -o refined.png --overlay overlay.png
  probabilities of a network, and other bandwidths:
    deformops crf photo.jpg scores.npy -o refined.png --gaussian 3 3 --bilateral 60 10 10
  what each term does, against the truth:
    deformops crf photo.jpg labels.png -o refined.png --truth truth.png --ablation
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the command to a parser."""
    parser.epilog = EPILOG
    parser.add_argument("photo", type=Path, metavar="PHOTO", help="any picture that Pillow reads")
    parser.add_argument(
        "labels",
        type=Path,
        metavar="LABELS",
        help="a picture of the photo's size, whose grey levels, palette entries or colours are "
        "labels; or .npy: labels [H, W] or probabilities [L, H, W]",
    )
    parser.add_argument(
        "-o", "--output", type=Path, required=True, metavar="OUT.png", help="the refined labels"
    )
    parser.add_argument("--overlay", type=Path, metavar="FILE", help="draw them over the photo")
    parser.add_argument(
        "--truth",
        type=Path,
        metavar="FILE",
        help="a label picture to compare with: prints the mean IoU before and after",
    )
    parser.add_argument(
        "--ablation",
        action="store_true",
        help="with --truth: print what each term alone and both together give",
    )
    only = parser.add_mutually_exclusive_group()
    for part in ("unary", "gaussian", "bilateral"):
        only.add_argument(
            f"--{part}-only", dest="part", action="store_const", const=part, help=PARTS[part]
        )
    parser.set_defaults(part="both")
    parser.add_argument(
        "--confidence",
        type=float,
        default=0.7,
        metavar="P",
        help="how probable given labels are right (default: 0.7)",
    )
    parser.add_argument(
        "--unsure",
        type=int,
        metavar="LABEL",
        help="a label that says nothing, as 255 in PASCAL VOC; the result has others there",
    )
    add_terms(parser)


def add_terms(parser: argparse._ActionsContainer) -> None:
    """Adds the options that say what the CRF is."""
    parser.add_argument(
        "--iterations", type=int, default=10, metavar="N", help="steps (default: 10)"
    )
    parser.add_argument(
        "--gaussian",
        type=float,
        nargs=2,
        default=(1.0, 3.0),
        metavar=("SIGMA", "WEIGHT"),
        help="pixels; default: 1 3, DeepLab's",
    )
    parser.add_argument(
        "--bilateral",
        type=float,
        nargs=3,
        default=(67.0, 3.0, 4.0),
        metavar=("SIGMA_XY", "SIGMA_RGB", "WEIGHT"),
        help="pixels, and levels of 0 to 255; default: 67 3 4, DeepLab's",
    )


def run(arguments: argparse.Namespace) -> int:
    """Refines the labels and writes the pictures.

    Args:
        arguments: parsed, with the options of `add_arguments`.

    Returns:
        The exit status: 0, or 1 after a message to the error output.
    """
    if importlib.util.find_spec("PIL") is None:
        return _fail("it needs Pillow: pip install 'deformops-vision[viz]'")
    from deformops.cli.refinement import refine

    try:
        _check(arguments)
        refine(arguments)
    except ValueError as error:
        return _fail(str(error))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raises ValueError for what can be wrong with the options, before anything is read."""
    from deformops.cli.output import check_picture  # it takes Pillow, which may be missing

    if not 0 < arguments.confidence < 1:
        raise ValueError(
            f"--confidence: expected a number between 0 and 1, got {arguments.confidence}"
        )
    if arguments.iterations < 0:
        raise ValueError(f"--iterations: expected 0 or more, got {arguments.iterations}")
    for option in ("gaussian", "bilateral"):
        *sigmas, weight = numbers = getattr(arguments, option)
        if not (all(0 < sigma < math.inf for sigma in sigmas) and math.isfinite(weight)):
            got = " ".join(map(str, numbers))
            raise ValueError(f"--{option}: expected sigmas above 0 and a finite weight, got {got}")
    if arguments.ablation and arguments.truth is None:
        raise ValueError("--ablation: expected --truth FILE with it")
    if arguments.ablation and arguments.part != "both":
        raise ValueError(f"--ablation: expected no --{arguments.part}-only with it")
    if arguments.output.suffix.lower() != ".png":
        raise ValueError(f"--output: expected a name ending in .png, got {arguments.output}")
    for file in (arguments.output, arguments.overlay):
        if file is not None:
            check_picture(file)


def _fail(text: str) -> int:
    print(f"deformops crf: {text}", file=sys.stderr)
    return 1
