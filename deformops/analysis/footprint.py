"""What each place of a map of a network depends on."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from deformops.analysis.spans import Spans


@dataclass(frozen=True)
class Footprint:
    """What each place of a map can depend on of the input.

    Attributes:
        rows: of each row of the map.
        columns: of each column.
        dims: which dimensions of the tensor these are; None: gone, every value sees all.
    """

    rows: Spans
    columns: Spans
    dims: tuple[int | None, int | None]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the map."""
        return len(self.rows), len(self.columns)

    def box(self, position: tuple[int, int]) -> tuple[int, int, int, int] | None:
        """The first and last pixel that a place of the map can depend on.

        It is what the row depends on by what the column does: no less than the place itself, and
        more only where maps of different origin are joined side by side.

        Args:
            position: row and column.

        Returns:
            (top, left, bottom, right), inside the input, both ends included; None: on nothing.

        Raises:
            ValueError: the map has no such place.
        """
        for axis, (at, count) in enumerate(zip(position, self.size, strict=True)):
            if not 0 <= at < count:
                raise ValueError(
                    f"position: expected a row and a column of {self.size}, got {position[axis]} "
                    f"on axis {axis}"
                )
        y, x = position
        top, bottom = int(self.rows.first[y]), int(self.rows.last[y])
        left, right = int(self.columns.first[x]), int(self.columns.last[x])
        return (top, left, bottom, right) if top <= bottom and left <= right else None

    def places(self, positions: Tensor) -> Tensor:
        """Where places of the map, [..., 2 (y, x)], lie in the input; likewise, float64."""
        y, x = positions.unbind(-1)
        return torch.stack([self.rows.place_at(y), self.columns.place_at(x)], dim=-1)

    def positions(self, places: Tensor) -> Tensor:
        """Which places of the map lie at pixels of the input: undoes `places`."""
        y, x = places.unbind(-1)
        return torch.stack([self.rows.row_at(y), self.columns.row_at(x)], dim=-1)

    @classmethod
    def of_input(cls, height: int, width: int, dims: tuple[int, int]) -> Footprint:
        """Each pixel of the input depends on itself."""
        return cls(Spans.of_input(height), Spans.of_input(width), dims)

    @classmethod
    def spaced(cls, size: tuple[int, int], pixels: tuple[int, int]) -> Footprint:
        """Cells that share an input of `pixels` evenly, and of which nothing else is known."""
        sides = []
        for count, among in zip(size, pixels, strict=True):
            nothing = Spans.of_nothing(count)
            place = (torch.arange(count).double() + 0.5) * among / count - 0.5
            sides.append(Spans(nothing.first, nothing.last, place))
        return cls(sides[0], sides[1], (None, None))

    def over(self, axis: int, spans: Spans, dim: int | None) -> Footprint:
        """With other spans on one axis, on dimension `dim`."""
        if axis == 0:
            return Footprint(spans, self.columns, (dim, self.dims[1]))
        return Footprint(self.rows, spans, (self.dims[0], dim))

    def axis(self, axis: int) -> Spans:
        """The rows or the columns."""
        return self.columns if axis else self.rows


@dataclass(frozen=True)
class Mark:
    """What is known of a tensor.

    Attributes:
        footprint: None if it could not be followed.
        lost: why not.
        passed: numbers of the deformable layers that it went through.
    """

    footprint: Footprint | None
    lost: str = ""
    passed: frozenset[int] = frozenset()
