"""What `deformops eval-det` does, and how scores of detectors are shown."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from torch import Tensor

from deformops.cli.detection import detector
from deformops.cli.output import columns
from deformops.cli.progress import ProgressLine
from deformops.training import Processes
from deformops.training.detection import AnnotatedPhotos, DetectionScores, evaluate_detector

#: Lines about wrong boxes that are printed.
MOST_PROBLEMS = 5


def evaluate(arguments: argparse.Namespace) -> int:
    """Scores a detector and prints the table.

    Args:
        arguments: of the command.

    Returns:
        0.

    Raises:
        ValueError: a file or an option cannot be used.
        OSError: likewise.
    """
    with Processes.join(arguments.device) as processes:
        network, predictor = detector(arguments, processes)
        photos = AnnotatedPhotos.of(arguments.data, arguments.split, network.class_names)
        with ProgressLine(quiet=not processes.first).counting("photo") as on_photo:
            scores = evaluate_detector(predictor, photos, processes=processes, on_photo=on_photo)
    if processes.first:
        split = "" if arguments.data.is_file() else f", {arguments.split}"
        print(f"{network.name}, {len(photos)} photos of {arguments.data}{split}")
        for problem in problems(photos):
            print(problem)
        print(table(scores, coco=arguments.coco))
    return 0


def problems(photos: AnnotatedPhotos) -> Iterator[str]:
    """Lines that tell of boxes that were wrong: the first, and how many more there are."""
    for text in photos.problems[:MOST_PROBLEMS]:
        yield f"  {text}"
    more = len(photos.problems) - MOST_PROBLEMS
    if more > 0:
        yield f"  and {more} boxes more"


def table(scores: DetectionScores, *, coco: bool = False) -> str:
    """Average precision of each class and its mean, in columns for the ways of counting.

    Args:
        scores: what was found.
        coco: with COCO's.
    """
    found: dict[str, Tensor] = {
        "area": scores.voc(),
        "11 points": scores.voc(eleven_points=True),
    }
    summary: list[str] = []
    if coco:
        program = scores.coco()
        found["COCO"] = program.classes
        summary = [_row(name, "", [None, None, value]) for name, value in program.summary.items()]
    names = scores.photos.class_names
    objects = scores.counts().tolist()
    rows = [
        _row(name, str(count), values)
        for name, count, *values in zip(
            names, objects, *(column.tolist() for column in found.values()), strict=True
        )
    ]
    means = [float(column.nanmean()) for column in found.values()]
    head = f"{'AP':<24}{'objects':>9}{columns(found)}"
    return "\n".join([head, *rows, _row("mean", str(sum(objects)), means), *summary])


def _row(name: str, objects: str, values: Sequence[float | None]) -> str:
    return f"  {name:<22}{objects:>9}{columns(values)}"
