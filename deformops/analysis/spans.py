"""What each row, or each column, of a map depends on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Above every pixel: the first one of nothing.
NEVER = torch.iinfo(torch.int64).max


@dataclass(frozen=True)
class Spans:
    """For each row (or column) p of a map: the pixels of the input that it can depend on.

    Attributes:
        first: [n] int64, the first of them; `NEVER` where there are none.
        last: [n] int64, the last of them; -1 where there are none.
        place: [n] float64, where the row lies: the middle of its window, followed down to the input
            and, where branches meet, the mean of theirs.
    """

    first: Tensor
    last: Tensor
    place: Tensor

    @classmethod
    def of_input(cls, count: int) -> Spans:
        """Each pixel depends on itself."""
        pixels = torch.arange(count)
        return cls(pixels, pixels, pixels.double())

    @classmethod
    def of_nothing(cls, count: int) -> Spans:
        """Rows that do not depend on the input."""
        nothing = torch.full((count,), NEVER)
        return cls(nothing, torch.full((count,), -1), torch.full((count,), torch.nan).double())

    def __len__(self) -> int:
        return len(self.first)

    def read(self, index: Tensor, at: Tensor) -> Spans:
        """What rows depend on that read these.

        Args:
            index: [m, k] int64, the rows that each reads; those outside the map are nothing.
            at: [m], the middle of what each reads, in rows of this map.
        """
        inside = (index >= 0) & (index < len(self))
        known = index.clamp(0, len(self) - 1)
        first = torch.where(inside, self.first[known], NEVER).amin(1)
        last = torch.where(inside, self.last[known], -1).amax(1)
        return Spans(first, last, self.place_at(at))

    def take(self, index: Tensor) -> Spans:
        """What rows depend on of which each, [m], is one of these."""
        return self.read(index[:, None], index)

    def whole(self) -> Spans:
        """What something depends on that reads all rows."""
        return self.read(torch.arange(len(self))[None], torch.tensor([(len(self) - 1) / 2]))

    def widened(self, count: int) -> Spans:
        """The same for `count` rows, if this is one."""
        return self.take(torch.zeros(count, dtype=torch.int64)) if len(self) == 1 else self

    def place_at(self, rows: Tensor) -> Tensor:
        """Where rows lie in the input; between and beyond rows along straight lines, float64."""
        if len(self) == 1:
            return self.place.expand(rows.shape)
        rows = rows.double()
        low = rows.nan_to_num().floor().long().clamp(0, len(self) - 2)
        start, end = self.place[low], self.place[low + 1]
        return start + (rows - low) * (end - start)

    def row_at(self, places: Tensor) -> Tensor:
        """Which rows, with fractions, lie at places of the input: undoes `place_at`, float64."""
        if len(self) == 1:
            return torch.zeros(places.shape, dtype=torch.float64)
        places = places.double()
        low = torch.searchsorted(self.place, places.contiguous(), right=True) - 1
        low = low.clamp(0, len(self) - 2)
        start, end = self.place[low], self.place[low + 1]
        return low + (places - start) / (end - start)


def join(spans: Sequence[Spans]) -> Spans:
    """What rows depend on that are made of rows of several maps, one by one."""
    count = max(map(len, spans))
    wide = [one.widened(count) for one in spans]
    return Spans(
        torch.stack([one.first for one in wide]).amin(0),
        torch.stack([one.last for one in wide]).amax(0),
        torch.stack([one.place for one in wide]).nanmean(0),
    )


def chain(spans: Sequence[Spans]) -> Spans:
    """Rows of several maps one after the other."""
    return Spans(
        torch.cat([one.first for one in spans]),
        torch.cat([one.last for one in spans]),
        torch.cat([one.place for one in spans]),
    )


def windowed(
    spans: Spans, count: int, kernel: int, stride: int, padding: int, dilation: int
) -> Spans:
    """What `count` windows of convolution or pooling see."""
    start = torch.arange(count) * stride - padding
    reach = (kernel - 1) * dilation
    return spans.read(start[:, None] + torch.arange(kernel) * dilation, start + reach / 2)


def spread(
    spans: Spans, count: int, kernel: int, stride: int, padding: int, dilation: int
) -> Spans:
    """What `count` outputs of a transposed convolution see.

    Input i reaches the outputs i * stride - padding + t * dilation of its taps t.
    """
    from_tap = torch.arange(count)[:, None] + padding - torch.arange(kernel) * dilation
    index = torch.where(from_tap % stride == 0, from_tap // stride, -1)
    middle = torch.arange(count) + padding - (kernel - 1) * dilation / 2
    return spans.read(index, middle / stride)


def resized(spans: Spans, count: int, step: float, *, corners: bool, taps: str) -> Spans:
    """What `count` outputs of an interpolation see.

    Args:
        spans: of the map that is resized.
        count: outputs.
        step: rows of the map from one output to the next.
        corners: whether the first and last outputs lie on the first and last rows.
        taps: "nearest", "linear", "cubic", or "antialias": linear, over `step` rows to both sides.
    """
    rows = len(spans)
    number = torch.arange(count).double()
    if corners:
        at = number * ((rows - 1) / (count - 1) if count > 1 else 0.0)
    else:
        at = (number + 0.5) * step - 0.5
    if taps == "nearest":
        return spans.read((number * step).floor().long().clamp(max=rows - 1)[:, None], at)
    reads = at.clamp(0, rows - 1) if taps == "linear" else at
    half = {"linear": 1.0, "cubic": 2.0, "antialias": max(1.0, step)}[taps]
    near = torch.arange(-int(half) - 1, int(half) + 3)
    index = reads.floor().long()[:, None] + near
    # Rounding of sizes aside, a row exactly `half` away has no weight.
    weighs = (index - reads[:, None]).abs() < half - 1e-9
    if taps == "cubic":
        index = index.clamp(0, rows - 1)
    return spans.read(torch.where(weighs, index, -1), at)


def pooled(spans: Spans, count: int) -> Spans:
    """What `count` bins of adaptive pooling see: from floor(i n / m) to ceil((i + 1) n / m) - 1."""
    rows, number = len(spans), torch.arange(count)
    start, end = number * rows // count, -((number + 1) * rows // -count)
    taps = start[:, None] + torch.arange(int((end - start).max()))
    index = torch.where(taps < end[:, None], taps, -1)
    return spans.read(index, (start + end - 1) / 2)
