"""What `deformops crf` does: read, refine, compare, write."""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from deformops.analysis import mean_iou
from deformops.cli.crf import PARTS
from deformops.cli.output import save_picture
from deformops.cli.progress import ProgressLine
from deformops.ops import Bilateral, Gaussian, dense_crf, unary_from_probabilities
from deformops.ops.pairwise import Pairwise
from deformops.pictures import (
    MOST_LABELS,
    LabelMap,
    Labels,
    PictureError,
    read_photo,
    size_of,
    voc_colors,
)


def refine(arguments: argparse.Namespace) -> None:
    """Refines labels along what a photo shows.

    Args:
        arguments: of the command.

    Raises:
        PictureError: a file cannot be used or written.
        ValueError: the lattice refuses the bandwidths.
    """
    photo = read_photo(arguments.photo)
    given, scores = _read(arguments.labels)
    _same_size(arguments.photo, photo.shape, arguments.labels, given.labels.shape)
    names, probabilities = _probabilities(arguments, given, scores)
    truth = None
    if arguments.truth is not None:
        truth = _truth(arguments.truth, given)
        _same_size(arguments.labels, given.labels.shape, arguments.truth, truth.shape)

    unary = unary_from_probabilities(probabilities)
    image = torch.from_numpy(photo.copy()).permute(2, 0, 1).unsqueeze(0)
    print(f"{arguments.labels}: {len(names)} labels, {size_of(photo.shape)} pixels")
    start = time.perf_counter()
    parts = list(PARTS) if arguments.ablation else [arguments.part]
    results = {part: names[_channels(unary, image, part, arguments)] for part in parts}
    seconds = time.perf_counter() - start
    refined = given.with_labels(results[arguments.part])
    changed = float((refined.labels != given.labels).mean())
    print(f"{changed:.1%} of the pixels changed, {seconds:.1f} s")
    if truth is not None:
        ignored = 255 if arguments.unsure is None and given.indexed else arguments.unsure
        _report(given.labels, results, truth, arguments, ignored)

    save_picture(refined.picture(), arguments.output)
    if arguments.overlay is not None:
        save_picture(refined.over(photo), arguments.overlay)


def _same_size(file: Path, shape: tuple[int, ...], other: Path, others: tuple[int, ...]) -> None:
    if shape[:2] != others[:2]:
        raise PictureError(
            f"{file} is {size_of(shape)} pixels, {other} is {size_of(others)}: they must be of one "
            "size"
        )


def _read(file: Path) -> tuple[LabelMap, NDArray[np.float32] | None]:
    """The given labels, and if they come as probabilities, these [L, H, W]."""
    if file.suffix.lower() != ".npy":
        return LabelMap.read(file), None
    try:
        array = np.load(file, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise PictureError(f"{file} cannot be read as an array: {error}") from error
    if array.ndim == 2 and array.dtype.kind in "iu":
        return LabelMap.of(file, array), None
    if array.ndim != 3 or array.dtype.kind != "f":
        raise PictureError(
            f"{file}: expected labels [H, W] of integers or probabilities [L, H, W], got "
            f"{array.dtype} {list(array.shape)}"
        )
    if not 2 <= len(array) <= MOST_LABELS:
        raise PictureError(f"{file} has {len(array)} labels; expected 2 to {MOST_LABELS}")
    if not np.isfinite(array).all() or (array < 0).any():
        raise PictureError(f"{file}: expected probabilities, got negative numbers, NaN or infinity")
    return LabelMap(array.argmax(0).astype(np.int64), voc_colors()), array.astype(np.float32)


def _probabilities(
    arguments: argparse.Namespace, given: LabelMap, scores: NDArray[np.float32] | None
) -> tuple[Labels, Tensor]:
    """The labels that take part, and their probabilities [1, L, H, W]."""
    if scores is not None:
        if arguments.unsure is not None:
            raise PictureError(
                f"{arguments.labels} has probabilities, which say themselves how sure they are: "
                "--unsure is for labels"
            )
        return np.arange(len(scores)), torch.from_numpy(scores).unsqueeze(0)
    names, kinds = np.unique(given.labels, return_inverse=True)
    sure = names != arguments.unsure
    count = int(sure.sum())
    if count < 2:
        only = f"only the label {names[sure][0]}" if count else "no label"
        raise PictureError(f"{arguments.labels} has {only}: there is nothing to refine")
    # For each label that occurs, the probability of each channel.
    rest = (1 - arguments.confidence) / (count - 1)
    table = np.full((len(names), count), 1 / count, dtype=np.float32)
    table[sure] = rest + (arguments.confidence - rest) * np.eye(count)
    chosen = torch.from_numpy(table)[torch.from_numpy(kinds.reshape(given.labels.shape))]
    return names[sure], chosen.permute(2, 0, 1).unsqueeze(0)


def _truth(file: Path, given: LabelMap) -> Labels:
    """The labels of a picture; colours are the labels that the given ones call so."""
    truth = LabelMap.read(file)
    if truth.indexed != given.indexed:
        kinds = ("colours", "numbers")
        raise PictureError(
            f"{file} has {kinds[truth.indexed]} for labels, the given ones have "
            f"{kinds[given.indexed]}"
        )
    if given.indexed:
        return truth.labels
    numbers = {tuple(color): number for number, color in enumerate(given.colors.tolist())}
    unknown = len(numbers)
    renamed = [
        numbers.get(tuple(color), unknown + i) for i, color in enumerate(truth.colors.tolist())
    ]
    return np.array(renamed, dtype=np.int64)[truth.labels]


def _channels(unary: Tensor, image: Tensor, part: str, arguments: argparse.Namespace) -> Labels:
    """The best channel of each pixel, [H, W]."""
    terms: list[Pairwise] = []
    if part in ("gaussian", "both"):
        terms.append(Gaussian(*arguments.gaussian))
    if part in ("bilateral", "both"):
        terms.append(Bilateral(*arguments.bilateral))
    steps = arguments.iterations if terms else 0
    progress = _Progress(part, steps)
    with torch.no_grad():
        q = dense_crf(unary, image, pairwise=terms, iterations=steps, on_step=progress.step)
    progress.clear()
    labels: Labels = q[0].argmax(0).numpy()
    return labels


def _report(
    given: Labels,
    results: dict[str, Labels],
    truth: Labels,
    arguments: argparse.Namespace,
    ignored: int | None,
) -> None:
    """Prints mean IoUs."""

    def score(labels: Labels) -> str:
        value = mean_iou(torch.from_numpy(labels), torch.from_numpy(truth), ignore_index=ignored)
        return "nothing to compare" if math.isnan(value) else f"{value:.2%}"

    if arguments.ablation:
        print("mean IoU")
        for part, labels in results.items():
            print(f"  {part:<10}{score(labels)}  ({PARTS[part]})")
    else:
        after = results[arguments.part]
        print(f"mean IoU {score(given)} before, {score(after)} after")


class _Progress(ProgressLine):
    """The steps of one part."""

    def __init__(self, part: str, steps: int) -> None:
        super().__init__()
        self.part = part
        self.steps = steps
        if steps:
            self.show(f"{part}: building the lattices")

    def step(self, number: int, _: Tensor) -> None:
        """A step is done."""
        self.show(f"{self.part}: step {number} of {self.steps}", number, self.steps)
