"""All that one unit of a deformable layer looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from deformops.analysis.effective import EffectiveField, effective_receptive_field
from deformops.analysis.stacks import stack_points
from deformops.analysis.tracing import DeformableCall


@dataclass(frozen=True)
class Look:
    """What a unit of a deformable layer in a network looks at; places are (y, x), in pixels.

    Attributes:
        cell: row and column of the unit on the map that the layer returns.
        levels: the unit's place [1, 2], and the sampling points of each layer down, [P, 2].
        regular: the lowest of these if nothing moved them, [P, 2].
        box: the pixels that the unit can depend on, (top, left, bottom, right); None if that could
            not be followed.
        lost: why not.
        field: how much each pixel weighs.
    """

    cell: tuple[int, int]
    levels: list[Tensor]
    regular: Tensor
    box: tuple[int, int, int, int] | None
    lost: str
    field: EffectiveField

    @property
    def place(self) -> tuple[float, float]:
        """Where the unit lies."""
        y, x = self.levels[0][0].tolist()
        return y, x

    @property
    def extents(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """Height and width of the points, and of those that regular layers would read."""
        moved, regular = (
            (points.amax(0) - points.amin(0)).round().long().add(1).tolist()
            for points in (self.levels[-1], self.regular)
        )
        return (moved[0], moved[1]), (regular[0], regular[1])


def look_at(
    model: nn.Module,
    images: Tensor,
    stack: Sequence[DeformableCall],
    place: tuple[float, float],
    *,
    offset_group: int = 0,
) -> Look:
    """Finds what the unit nearest to a pixel looks at.

    Args:
        model: the network.
        images: [1, C, H, W], what `trace_receptive_fields` has run it on.
        stack: of `TracedFields.stack_below`, from the input to the layer of the unit.
        place: (y, x) in pixels of the image.
        offset_group: see `stack_points`.

    Raises:
        ValueError: the stack is empty, or the unit does not depend on the image.

    Example:
        >>> net = torch.nn.Sequential(deformops.nn.DeformConv2dPack(3, 4, 3, padding=1))
        >>> image = torch.rand(1, 3, 9, 9)
        >>> stack = trace_receptive_fields(net, image).stack_below("0", 3)
        >>> look_at(net, image, stack, (4, 5)).box
        (3, 4, 5, 6)
    """
    if not stack:
        raise ValueError("stack: expected at least one deformable layer, got none")
    layer = stack[-1]
    _, written = layer.grids
    last = torch.tensor(written.size) - 1
    nearest = written.positions(torch.tensor([place], dtype=torch.float64))[0].round().long()
    row, column = torch.minimum(nearest.clamp(min=0), last).tolist()
    levels = stack_points(stack, (row, column), offset_group=offset_group)
    regular = stack_points(stack, (row, column), moved=False)[-1]
    mark = layer.output
    name, run = layer.module
    return Look(
        cell=(row, column),
        levels=levels,
        regular=regular,
        box=None if mark.footprint is None else mark.footprint.box((row, column)),
        lost=mark.lost,
        field=effective_receptive_field(model, images, (row, column), layer=name, run=run),
    )
