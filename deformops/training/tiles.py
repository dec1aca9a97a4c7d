"""Pictures of any size in tiles that overlap, so that memory is bounded by the tile."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor


@dataclass(frozen=True)
class Span:
    """One tile along one axis: what is read, and which part of it is kept."""

    start: int
    stop: int
    keep_start: int
    keep_stop: int


def spans(size: int, tile: int, overlap: int) -> list[Span]:
    """Cuts an axis into tiles.

    All tiles have the same length; the last one is shifted inside. An axis shorter than a tile is
    one tile. Each pixel is kept from one tile: neighbours meet in the middle of what they share.

    Args:
        size: pixels of the axis.
        tile: the length of a tile.
        overlap: how many pixels neighbours share, or more.

    Returns:
        The tiles from the first pixel to the last.

    Raises:
        ValueError: a tile is not longer than the overlap.
    """
    if not 0 <= overlap < tile:
        raise ValueError(f"overlap: expected 0 to {tile - 1}, less than a tile, got {overlap}")
    if size <= tile:
        return [Span(0, size, 0, size)]
    starts = [*range(0, size - tile, tile - overlap), size - tile]
    middles = [(a + tile + b) // 2 for a, b in pairwise(starts)]
    return [
        Span(start, start + tile, first, last)
        for start, first, last in zip(starts, [0, *middles], [*middles, size], strict=True)
    ]


def tiles(size: tuple[int, int], tile: int, overlap: int) -> Iterator[tuple[Span, Span]]:
    """The rows and columns of each tile of a picture of this height and width."""
    columns = spans(size[1], tile, overlap)
    for rows in spans(size[0], tile, overlap):
        for column in columns:
            yield rows, column


def in_tiles(
    function: Callable[[Tensor], Tensor],
    picture: Tensor,
    tile: int,
    overlap: int,
    on_tile: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Applies a function to a picture tile by tile.

    Args:
        function: takes [..., h, w] and returns [..., h, w]: its results may have other leading
            dimensions and another type, and are the same for each tile.
        picture: [..., H, W].
        tile: height and width of a tile.
        overlap: how many pixels neighbours share at least.
        on_tile: called after each with its number, from 1 on, and how many there are.

    Returns:
        [..., H, W]: at each pixel the result of the tile in which it lies farthest inside.

    Raises:
        ValueError: a tile is not larger than the overlap, or a result has not the size of its tile.
    """
    height, width = picture.shape[-2:]
    result: Tensor | None = None
    places = list(tiles((height, width), tile, overlap))
    for number, (rows, columns) in enumerate(places, 1):
        part = function(picture[..., rows.start : rows.stop, columns.start : columns.stop])
        size = (rows.stop - rows.start, columns.stop - columns.start)
        if tuple(part.shape[-2:]) != size:
            raise ValueError(
                f"function: expected a result of the tile's size {list(size)}, got "
                f"{list(part.shape)}"
            )
        if result is None:
            result = part.new_empty(*part.shape[:-2], height, width)
        kept = part[
            ...,
            rows.keep_start - rows.start : rows.keep_stop - rows.start,
            columns.keep_start - columns.start : columns.keep_stop - columns.start,
        ]
        result[..., rows.keep_start : rows.keep_stop, columns.keep_start : columns.keep_stop] = kept
        if on_tile is not None:
            on_tile(number, len(places))
    assert result is not None  # Even an empty picture is one tile.
    return result
