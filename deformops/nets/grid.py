"""Where the cells of a map lie in the image, and how two maps are laid over each other."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import NamedTuple

from torch import Tensor, nn

from deformops.nn import BilinearDeconv2d
from deformops.ops._sampling import pair


class Grid(NamedTuple):
    """Cell i of a map has its centre at `step * i + first`, in pixels of the image.

    Example:
        >>> image = Grid()
        >>> pooled = image.after([nn.Conv2d(3, 8, 3, padding=1), nn.MaxPool2d(2)])
        >>> pooled.after([BilinearDeconv2d(8, 4, 2)]).crop(onto=image)
        1
    """

    step: Fraction = Fraction(1)
    first: Fraction = Fraction(0)

    def after(self, layers: Iterable[nn.Module]) -> Grid:
        """The grid of what layers one after the other make of a map.

        Convolution and pooling put cell i at the centre of its window, transposed convolution puts
        a cell where its taps are centred; other layers leave cells where they are.
        """
        step, first = self
        for layer in layers:
            if isinstance(layer, BilinearDeconv2d):
                step = step / layer.stride
                first = first - step * Fraction(layer.kernel_size - 1, 2)
            elif hasattr(layer, "kernel_size"):
                taps, stride, padding, dilation = (
                    pair(name, getattr(layer, name, 1))[0]
                    for name in ("kernel_size", "stride", "padding", "dilation")
                )
                first = first + step * (Fraction((taps - 1) * dilation, 2) - padding)
                step = step * stride
        return Grid(step, first)

    def shift(self, onto: Grid) -> int:
        """Which cell of this grid lies on cell 0 of another; may be below 0.

        Raises:
            ValueError: the grids have different steps, or no cell lies there.
        """
        if self.step != onto.step:
            raise ValueError(f"crop: expected a step of {onto.step} pixels, got {self.step}")
        cells = (onto.first - self.first) / self.step
        if cells.denominator != 1:
            raise ValueError(f"crop: expected a whole number of cells, got {cells}")
        return int(cells)

    def crop(self, onto: Grid) -> int:
        """The cell from which on this grid is to be cut to lie on another.

        Raises:
            ValueError: as for `shift`, or the other grid begins before this one.
        """
        cells = self.shift(onto)
        if cells < 0:
            raise ValueError(f"crop: expected a number of cells from 0 on, got {cells}")
        return cells


def cut(cells: Tensor, offset: int, size: Sequence[int]) -> Tensor:
    """Cuts [..., *size] out of a map [..., H, W], from cell (offset, offset) on."""
    height, width = size
    return cells[..., offset : offset + height, offset : offset + width]


def add_where_both(cells: Tensor, other: Tensor, shift: int) -> Tensor:
    """Adds two maps where one of them lies inside the other.

    Args:
        cells: [N, C, H, W].
        other: [N, C, H', W'], whose cell (shift, shift) lies on cell (0, 0) of `cells`.
        shift: from 0 on, `other` is cut to the size of `cells`; below, `cells` to that of `other`.
    """
    if shift >= 0:
        return cells + cut(other, shift, cells.shape[-2:])
    return cut(cells, -shift, other.shape[-2:]) + other
