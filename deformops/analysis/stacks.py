"""The sampling points of deformable layers inside a network."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from deformops.analysis.sampling import sampling_points
from deformops.analysis.tracing import DeformableCall


def stack_points(
    stack: Sequence[DeformableCall],
    position: tuple[float, float],
    *,
    offset_group: int = 0,
    moved: bool = True,
) -> list[Tensor]:
    """Computes the places of the image that a stack of deformable layers of a network reads.

    It is `sampling_points` for layers that have others between them: from the map that a layer
    reads to the one that the layer below wrote, and from the lowest map to the image, each point
    goes where its cell lies (the middle of its window, see `Footprint.places`).

    Args:
        stack: as `TracedFields.stack_below` has it, from the input to the output.
        position: (y, x) on the map that the last layer wrote; fractions are allowed.
        offset_group: the group whose offsets are followed, in every layer; in layers with fewer
            groups the last one.
        moved: False for the points that the layers would read without offsets.

    Returns:
        A level for each layer and one for the unit: the unit's place [1, 2 (y, x)], then of the
        last layer [K_L, 2], and down to [K_1 * ... * K_L, 2] of the first; in pixels of the image,
        float64. Points of one point of the level above come one after the other.

    Raises:
        ValueError: there is no layer, or the group is below 0.
    """
    if not stack:
        raise ValueError("stack: expected at least one deformable layer, got none")
    if offset_group < 0:
        raise ValueError(f"offset_group: expected 0 or more, got {offset_group}")
    _, written = stack[-1].grids
    levels = [written.places(torch.tensor([position], dtype=torch.float64))]
    for layer in reversed(stack):
        read, written = layer.grids
        group = min(offset_group, layer.groups - 1)
        units = written.positions(levels[-1])
        offset = layer.offset if moved else None
        points = sampling_points([layer.window], [offset], units, offset_group=group)
        levels.append(read.places(points.flatten(0, 1)))
    return levels
