"""What `deformops segment` does: reads, labels tile by tile, draws."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from deformops.cli.evaluation import segmenter, terms
from deformops.cli.output import save_picture
from deformops.cli.progress import ProgressLine
from deformops.pictures import LabelMap, class_colors, read_photo, size_of
from deformops.training import Processes, crf, in_tiles, most_probable


def segment(arguments: argparse.Namespace) -> int:
    """Labels a photo and writes the pictures.

    Args:
        arguments: of the command.

    Returns:
        0.

    Raises:
        ValueError: a file or an option cannot be used.
        OSError: likewise.
    """
    processes = Processes.join(arguments.device)
    colors = read_photo(arguments.photo)
    network, predictor = segmenter(arguments, processes)
    refine = crf(terms(arguments), arguments.iterations) if arguments.crf else most_probable

    def labels_of(tile: Tensor) -> Tensor:
        return refine(predictor.scores(tile), tile)

    start = time.perf_counter()
    photo = torch.from_numpy(colors.copy()).permute(2, 0, 1)
    line = ProgressLine()
    line.show("tile 1")
    with line.counting("tile") as on_tile:
        labels = in_tiles(labels_of, photo, arguments.tile, arguments.overlap, on_tile=on_tile)
    seconds = time.perf_counter() - start
    print(f"{arguments.photo}: {size_of(colors.shape)} pixels, {seconds:.1f} s")

    found = LabelMap(labels.numpy().astype(np.int64), class_colors(network.class_names))
    shares = np.bincount(found.labels.ravel(), minlength=len(network.class_names))
    for number in np.argsort(-shares, kind="stable"):
        if shares[number]:
            share = shares[number] / found.labels.size
            print(f"  {network.class_names[number]:<22}{share:>8.1%}")
    save_picture(with_legend(found.over(colors), found, network.class_names), arguments.output)
    if arguments.labels is not None:
        save_picture(found.picture(), arguments.labels)
    return 0


def with_legend(picture: Image.Image, found: LabelMap, names: Sequence[str]) -> Image.Image:
    """A picture with the colours and names of the labels that occur below it."""
    height = max(12, min(40, picture.width // 40))
    font = ImageFont.load_default(height)
    pad = height // 2
    places: list[tuple[int, int, int]] = []
    x, y = pad, pad
    for label in np.unique(found.labels).tolist():
        width = 2 * height + pad + int(font.getlength(names[label]))
        if x > pad and x + width > picture.width:
            x, y = pad, y + height + pad
        places.append((x, y, label))
        x += width + pad
    size = (max(picture.width, x if y == pad else 0), picture.height + y + height + pad)
    sheet = Image.new("RGB", size, "white")
    sheet.paste(picture)
    draw = ImageDraw.Draw(sheet)
    for x, y, label in places:
        top = picture.height + y
        color = tuple(found.colors[label].tolist())
        draw.rectangle((x, top, x + 2 * height - pad, top + height), fill=color, outline="black")
        draw.text((x + 2 * height, top + height // 2), names[label], "black", font, anchor="lm")
    return sheet
