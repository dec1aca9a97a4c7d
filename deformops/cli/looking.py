"""What `deformops look` does: runs the network, follows its layers, prints and draws."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial

import torch

from deformops.analysis import DeformableCall, Look, TracedFields, look_at, trace_receptive_fields
from deformops.cli.subject import Subject, calling, subject
from deformops.pictures import size_of
from deformops.training import Processes
from deformops.training.data import read_tensor

HEADINGS = (
    *("layer", "taps", "dilation", "groups", "map", "pixels per cell", "deformable below"),
    "effective dilation",
)


def look(arguments: argparse.Namespace) -> int:
    """Prints and draws where deformable layers look.

    Args:
        arguments: of the command.

    Returns:
        0.

    Raises:
        ValueError: a file or an option cannot be used, or the network has no deformable layer.
        OSError: a file cannot be read or written.
    """
    device = Processes.join(arguments.device).device
    photo = read_tensor(arguments.photo)
    height, width = photo.shape[1:]
    points = arguments.at or [(width // 2, height // 2)]
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(
                f"--at: expected points of the photo, {width} x {height} pixels, got {x:g},{y:g}"
            )
    seen = subject(arguments, photo, device)
    traced = _traced(seen)
    print(f"{seen.name} sees {arguments.photo} as {size_of(seen.photo.shape[1:])} pixels")
    if arguments.list:
        print(table(traced))
        return 0
    name = traced.deformable[-1].name if arguments.layer is None else arguments.layer
    stack = traced.stack_below(name, arguments.depth)
    if arguments.group >= stack[-1].groups:
        raise ValueError(
            f"--group: expected one from 0 to {stack[-1].groups - 1} for {name}, got "
            f"{arguments.group}"
        )
    looks = []
    for x, y in points:
        # The first pixels of the photo and of what is seen begin together.
        place = ((y + 0.5) * seen.scale - 0.5, (x + 0.5) * seen.scale - 0.5)
        group = arguments.group
        found = calling(
            f"{seen.name}, its gradient",
            partial(look_at, seen.net, seen.images, stack, place, offset_group=group),
        )
        print(f"at {x:g},{y:g}:\n{describe(found, stack)}")
        looks.append(found)
    from deformops.figures.looks import draw

    draw(seen.name, seen.photo, stack, looks, arguments.group, arguments.output)
    print(f"wrote {arguments.output}")
    return 0


def _traced(seen: Subject) -> TracedFields:
    """Runs the network.

    Raises:
        ValueError: that fails, or there is no deformable layer in it.
    """
    size = list(seen.images.shape)
    run = partial(trace_receptive_fields, seen.net, seen.images)
    traced = calling(f"{seen.name}, called with {size},", run)
    if not traced.deformable:
        raise ValueError(
            f"{seen.name} ran no deformable layer: expected some of this package, of torchvision, "
            "or some that are made like mmcv's"
        )
    return traced


def table(traced: TracedFields) -> str:
    """The deformable layers of a network, with what they did on the photo."""
    rows = [HEADINGS, *map(_row, traced.deformable)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    padded = ([text.ljust(width) for text, width in zip(row, widths, strict=True)] for row in rows)
    return "\n".join(f"  {'  '.join(row)}".rstrip() for row in padded)


def _row(run: DeformableCall) -> tuple[str, ...]:
    (_, written), spread = run.grids, run.effective_dilation
    taps, _, _, dilation = zip(run.window.axis(0), run.window.axis(1), strict=True)
    steps = written.places(torch.tensor([[0, 0], [1, 1]])).diff(dim=0)[0]
    return (
        run.name,
        f"{taps[0]} x {taps[1]}",
        str(dilation[0]),
        str(run.groups),
        size_of(written.size),
        f"{float(steps.mean()):g}",
        str(len(run.input.passed)),
        f"{float(spread.mean()):.2f} +- {float(spread.std()):.2f}",
    )


def describe(look: Look, stack: Sequence[DeformableCall]) -> str:
    """What a unit looks at, in some lines."""
    layer, (row, column) = stack[-1], look.cell
    (y, x), (dy, dx) = look.place, look.field.std
    moved, regular = (size_of(spread) for spread in look.extents)
    if look.box is None:
        sees = f"unknown: {look.lost}"
    else:
        top, left, bottom, right = look.box
        sees = (
            f"{right - left + 1} x {bottom - top + 1} pixels of the photo, from {left},{top} to "
            f"{right},{bottom}, with regular taps"
        )
    spread = float(layer.effective_dilation[:, row, column].mean())
    lines = {
        "unit": f"row {row}, column {column} of layer {layer.name}, at {x:g},{y:g}",
        "reads": f"{len(look.regular)} points on {moved} pixels through the last {len(stack)} "
        f"deformable layers; regular layers: {regular}",
        "depends on": sees,
        "weighs": f"deviations {dx:.1f} x {dy:.1f} pixels around "
        f"{look.field.center[1]:.0f},{look.field.center[0]:.0f}; half of it within "
        f"{look.field.radius(0.5):.1f}",
        "dilation": f"effective {spread:.2f}, regular {layer.window.axis(0)[3]}",
    }
    return "\n".join(f"  {name:<12}{text}" for name, text in lines.items())
