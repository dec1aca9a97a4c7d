"""`deformops demo`: what the package computes, shown on a photo and measured.

A scene is a module with a function `show(photo, output, say)`: it prints its figures with `say` and
writes its pictures to the folder `output`. Pictures depend on the photo alone; that of `refine`,
which needs a photo whose labels are known, and those of `reach` are always the same.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from pathlib import Path

# What the extra [viz] brings: module, distribution.
NEEDED = {
    "PIL": "Pillow",
    "imgviz": "imgviz",
    "matplotlib": "matplotlib",
    "skimage": "scikit-image",
}

EPILOG = """\
Writes eight pictures, and prints figures beside each:

  straighten.png            one deformable 3x3 layer undoes a known warp of the photo
  values-and-positions.png  the best filter with changing values at each pixel does not
  strides-and-holes.png     what a pool's stride, its loss, and holes do to what a unit sees
  depth.png                 what weighs in it grows as the square root of the depth
  holes.png                 a filter at half the resolution answers a quarter of the pixels, a
                            filter with holes all of them
  sampling-points.png       where a unit looks through three deformable layers that follow the warp
  roi-pooling.png           boxes of the warped photo, pooled in place and with moved bins
  refine.png                a dense CRF refines a mask of blocks

strides-and-holes, depth and refine are the same for every photo: refine needs a true mask.
It takes about half a minute. torchvision and pydensecrf are timed beside it where installed.

examples:
  deformops demo
  deformops demo --photo holiday.jpg --output pictures
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the demo to a parser."""
    parser.epilog = EPILOG
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("demo-output"),
        metavar="FOLDER",
        help="where the pictures go (default: demo-output)",
    )
    parser.add_argument(
        "--photo", type=Path, metavar="FILE", help="a photo of yours instead of scikit-image's cat"
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs all scenes.

    Args:
        arguments: parsed, with the options of `add_arguments`.

    Returns:
        The exit status: 0, or 1 after a message to the error output.
    """
    missing = _missing(arguments.photo)
    if missing:
        return _fail(f"the demo needs {' and '.join(missing)}: pip install 'deformops-vision[viz]'")
    from deformops.demo import boxes, dynamic, follow, holes, photo, reach, refine, straighten

    start = time.perf_counter()
    try:
        image = photo.load(arguments.photo)
    except photo.UNREADABLE as error:
        return _fail(f"{arguments.photo} cannot be read as an image: {error}")
    try:
        arguments.output.mkdir(parents=True, exist_ok=True)
        for scene in (straighten, dynamic, reach, holes, follow, boxes, refine):
            scene.show(image, arguments.output, _say)
    except OSError as error:
        return _fail(f"the pictures cannot be written: {error}")
    _say(f"done in {time.perf_counter() - start:.1f} s")
    return 0


def _missing(photo: Path | None) -> list[str]:
    """Returns the names of distributions that would be needed and are not installed."""
    needed = {
        module: name for module, name in NEEDED.items() if photo is None or module != "skimage"
    }
    return [name for module, name in needed.items() if importlib.util.find_spec(module) is None]


def _say(text: str) -> None:
    print(text, flush=True)


def _fail(text: str) -> int:
    print(f"deformops demo: {text}", file=sys.stderr)
    return 1
