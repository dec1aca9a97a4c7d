"""Where the taps of a window look, and what follows for the derivatives of what they read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

from torch import Tensor

from deformops.ops._forms import Form, Partials, Values

Pair = tuple[int, int]


class Sampling(NamedTuple):
    """The arguments that the raw ops of this family share, in the order of their schemas.

    On each axis a tap reads at `output * stride - padding + tap * dilation`, plus its offset.
    """

    stride: Pair
    padding: Pair
    dilation: Pair
    order: Pair = (0, 0)
    """For (y, x), 0: read with the hat function, 1: with its derivative."""
    border: str = "v2"
    kink: str = "inner"

    @classmethod
    def read(cls, arguments: Any) -> Sampling:
        """The sampling in the arguments of a raw op, by name."""
        return cls(*(arguments[name] for name in cls._fields))

    def output_size(self, input_size: Sequence[int], kernel_size: Sequence[int]) -> Any:
        """Height and width of the output."""
        return tuple(
            (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, padding, dilation in zip(
                input_size, kernel_size, self.stride, self.padding, self.dilation, strict=True
            )
        )

    def raised(self, axis: int) -> Sampling | None:
        """The sampling that differentiates once more on an axis (0: y, 1: x).

        None where that is zero: the hat function is piecewise linear.
        """
        order = raise_order(self.order, axis)
        return None if order is None else self._replace(order=order)


def raise_order(order: Pair, axis: int) -> Pair | None:
    """One order of the hat function more on an axis, or None where that makes zero."""
    if order[axis] == 1:
        return None
    return (1, order[1]) if axis == 0 else (order[0], 1)


@dataclass(frozen=True)
class SampledForm(Form):
    """A form that reads `input` at points that `offset` moves and that another slot weighs.

    It is linear in all but the offset. Its derivative with respect to an offset is the weight times
    the derivative with respect to the weight, one order of the hat function higher on that axis.
    """

    weight: ClassVar[str]
    """The slot with a weight for every point; absent, they are 1."""

    ops: Any
    sampling: Any
    """Where and how points are read; its method `raised(axis)` is as that of `Sampling`."""

    @abstractmethod
    def speed(self, direction: Tensor, axis: int, values: Values) -> Tensor:
        """How far each point moves on an axis (0: y, 1: x) as the offset does, as weights."""

    def along(
        self, slot: str, direction: Tensor, values: Values, wanted: Sequence[str]
    ) -> Iterator[Partials]:
        """The derivatives of <direction, dF/dslot>; a moving point has a term for each axis."""
        if slot != "offset":
            yield from super().along(slot, direction, values, wanted)
            return
        weight = values[self.weight]
        for axis in (0, 1):
            sampling = self.sampling.raised(axis)
            if sampling is None:
                continue
            speed = self.speed(direction, axis, values)
            moving = {**values, self.weight: speed if weight is None else weight * speed}
            term = replace(self, sampling=sampling).partials(moving, wanted)
            if self.weight in term:
                term[self.weight] = term[self.weight] * speed
            yield term


@dataclass(frozen=True)
class WindowForm(SampledForm):
    """A form whose points are the taps of a window, weighed by a mask."""

    weight = "mask"

    sampling: Sampling

    def speed(self, direction: Tensor, axis: int, values: Values) -> Tensor:
        """A tap moves as its offset does."""
        return direction[:, axis::2]


def pair(name: str, value: int | tuple[int, int] | list[int]) -> Pair:
    """The value of an argument for (y, x), given as such or as one integer for both."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        height, width = value
        if isinstance(height, int) and isinstance(width, int):
            return height, width
    raise TypeError(f"{name}: expected an integer or two, (y, x), got {value!r}")
