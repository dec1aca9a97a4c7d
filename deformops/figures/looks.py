"""The sheet of `deformops look`: a photo, and where a network's deformable layers look on it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from deformops.analysis import DeformableCall, Look
from deformops.figures.fields import ellipse, frame, heat, numbers, together, unit
from deformops.figures.points import clouds, tree, view_around
from deformops.figures.sheet import ACCENTS, Panel, as_backdrop, as_image, compose
from deformops.pictures import size_of


def draw(
    name: str,
    photo: Tensor,
    stack: Sequence[DeformableCall],
    looks: Sequence[Look],
    group: int,
    file: Path,
) -> None:
    """Writes the sheet.

    Args:
        name: of the network.
        photo: [3, H, W] uint8, as the network sees it.
        stack: the deformable layers that are followed, from the input to the units' layer.
        looks: of the units.
        group: of channels whose offsets are followed.
        file: to write.

    Raises:
        ValueError: the file's name is of no kind of picture.
        OSError: it cannot be written.
    """
    layer = stack[-1]
    backdrop = as_backdrop(as_image(photo.numpy() / 255))
    panels = [_points(backdrop, stack, looks, group), _dilation(backdrop, layer, looks)]
    for number, look in enumerate(looks):
        panels += _closer(backdrop, look, ACCENTS[number % len(ACCENTS)])
    followed = "" if len(stack) == 1 else f", through the last {len(stack)} deformable layers"
    compose(
        f"Where layer {layer.name} looks",
        f"A layer of {name} on a photo of {size_of(photo.shape[1:])} pixels{followed}.",
        panels,
        file,
    )


def _points(
    backdrop: NDArray[np.float64],
    stack: Sequence[DeformableCall],
    looks: Sequence[Look],
    group: int,
) -> Panel:
    count, layer = len(looks[0].regular), stack[-1]
    through = f"layer{'s' if len(stack) > 1 else ''} {', '.join(run.name for run in stack)}"
    of_group = f" Offsets of group {group} of {layer.groups}." if layer.groups > 1 else ""
    between = " Layers between them are followed by the middle of their windows."
    places = [np.array(look.place) for look in looks]
    return Panel(
        backdrop,
        f"What is read: {count} points",
        f"Coloured: the points that {_units(looks)} through {through}. White: those of the same "
        f"layers without offsets.{between if len(stack) > 1 else ''}{of_group}",
        together(
            clouds([look.regular.numpy() for look in looks], places, color="white"),
            clouds([look.levels[-1].numpy() for look in looks], places),
        ),
    )


def _units(looks: Sequence[Look]) -> str:
    return "the unit at the ring reads" if len(looks) == 1 else "each unit reads"


def _dilation(backdrop: NDArray[np.float64], layer: DeformableCall, looks: Sequence[Look]) -> Panel:
    _, written = layer.grids
    spread = layer.effective_dilation.mean(0)
    edges = []
    for count, spans in zip(written.size, (written.rows, written.columns), strict=True):
        first, last = (float(spans.place[at]) for at in (0, -1))
        half = (last - first) / max(1, count - 1) / 2 if count > 1 else backdrop.shape[0] / 2
        edges.append((first - half, last + half))
    (top, bottom), (left, right) = edges
    regular = layer.window.axis(0)[3]
    marks = [unit(look.place, ACCENTS[number % len(ACCENTS)]) for number, look in enumerate(looks)]
    return Panel(
        backdrop,
        "How far taps are spread",
        f"The effective dilation of layer {layer.name}: the mean distance of neighbouring taps, in "
        f"cells of the map it reads. Regular taps have {regular}; here the mean is "
        f"{float(spread.mean()):.2f}, the deviation {float(spread.std()):.2f}.",
        together(
            numbers(spread.double().numpy(), (top, left, bottom, right), "effective dilation"),
            *marks,
        ),
    )


def _closer(backdrop: NDArray[np.float64], look: Look, color: str) -> Iterator[Panel]:
    levels = [level.numpy() for level in look.levels]
    height, width = backdrop.shape[:2]
    places = " to ".join(str(len(level)) for level in levels)
    y, x = look.place
    yield Panel(
        backdrop,
        f"At {x:.0f},{y:.0f}: layer by layer",
        f"From the unit down to the photo: {places} places.",
        tree(levels, color),
        view_around(np.concatenate(levels), height, width),
    )
    dy, dx = look.field.std
    drawings = [ellipse(look.field, color), unit(look.place, color)]
    if look.box is None:
        sees = f"What it can depend on is not known: {look.lost}."
    else:
        top, left, bottom, right = look.box
        drawings.insert(0, frame(look.box, color, (0, (4, 2))))
        size = size_of((bottom - top + 1, right - left + 1))
        whole = size == size_of((height, width))
        sees = (
            f"Dashed: all that it sees with regular taps, {'the whole photo' if whole else size} "
            f"({look.field.share(look.box):.0%} of the weight)."
        )
    yield Panel(
        heat(backdrop, look.field.mass.numpy(), color),
        f"At {x:.0f},{y:.0f}: what weighs",
        f"Ink: how much each pixel weighs for the unit, the size of its gradient. Ellipse: two "
        f"deviations, {2 * dx:.0f} and {2 * dy:.0f} pixels along the axes. {sees}",
        together(*drawings),
    )
