"""Columns: ours, torch's unfold and fold, and where taps move its grid_sample.

These ops move bytes: the floor is a copy of as many as they read once and write once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..case import OURS, Case, Part, Suite, Work
from ..torch_ops import Function, Tensors, entry

UNFOLD, FOLD, GRID_SAMPLE = "unfold", "fold", "grid_sample"
GATHER, SCATTER = "gather_columns", "scatter_columns"
SIDE = 3  # of a window
TAPS = SIDE * SIDE


@dataclass(frozen=True)
class Problem:
    """A window of stride 1 whose output is as large as its input."""

    op: str
    channels: int
    height: int
    width: int
    dilation: int = 1
    offset_groups: int = 0  # 0: taps do not move

    def __str__(self) -> str:
        text = f"{self.op} {self.channels} {SIDE}x{SIDE} {self.height}x{self.width}"
        text += f" d{self.dilation}" if self.dilation > 1 else ""
        return text + (f" moved g{self.offset_groups}" if self.offset_groups else "")

    @property
    def size(self) -> tuple[int, int]:
        """Of the map, before and after."""
        return self.height, self.width

    @property
    def padding(self) -> int:
        """Keeps the output as large as the input."""
        return self.dilation * (SIDE // 2)

    def tensors(self) -> dict[str, Tensor]:
        """Returns a map or columns, and offsets: a few pixels, some of them over the border."""
        random = torch.Generator().manual_seed(0)
        taps = (TAPS,) if self.op == SCATTER else ()
        tensors = {"input": torch.randn(1, self.channels, *taps, *self.size, generator=random)}
        if self.offset_groups:
            shape = (1, 2 * TAPS * self.offset_groups, *self.size)
            tensors["offset"] = 2 * torch.randn(shape, generator=random)
        return tensors

    def work(self) -> Work:
        """Bytes of the map, the columns and the offsets."""
        numbers = self.channels * (1 + TAPS) + 2 * TAPS * self.offset_groups
        return Work.bytes(4 * numbers * math.prod(self.size))

    def ours(self) -> Function:
        """Our op."""
        from deformops import ops

        if self.op == GATHER:
            return lambda of: ops.gather_columns(
                of["input"],
                SIDE,
                padding=self.padding,
                dilation=self.dilation,
                offset=of.get("offset"),
            )
        return lambda of: ops.scatter_columns(
            of["input"],
            self.size,
            SIDE,
            padding=self.padding,
            dilation=self.dilation,
            offset=of.get("offset"),
        )

    def unfold(self) -> Function:
        """torch's im2col, which moves no tap."""
        shape = (1, self.channels, TAPS, *self.size)
        unfold = torch.nn.Unfold(SIDE, self.dilation, self.padding)
        return lambda of: unfold(of["input"]).view(shape)

    def fold(self) -> Function:
        """torch's col2im, which moves no tap."""
        fold = torch.nn.Fold(self.size, SIDE, self.dilation, self.padding)
        return lambda of: fold(of["input"].reshape(1, self.channels * TAPS, -1))

    def grid_sample(self) -> Function:
        """torch's bilinear samples, and for columns that are added to a map their backward."""
        groups, (height, width) = self.offset_groups, self.size
        axis = torch.arange(SIDE) * self.dilation - self.padding
        tap = torch.stack(torch.meshgrid(axis, axis, indexing="ij")).flatten(1)
        pixel = torch.stack(torch.meshgrid(*map(torch.arange, self.size), indexing="ij"))
        still = (tap.T[..., None, None] + pixel)[None]  # [1, tap, (y, x), H, W]
        last = torch.tensor([height - 1, width - 1])[:, None, None]

        def grid(offset: Tensor) -> Tensor:
            places = still.to(offset) + offset.reshape(groups, TAPS, 2, *self.size)
            places = places * (2 / last.to(offset)) - 1
            return places.flip(2).permute(0, 1, 3, 4, 2).reshape(groups, -1, width, 2)

        def gather(of: Tensors) -> Tensor:
            maps = of["input"].reshape(groups, -1, *self.size)
            samples = F.grid_sample(maps, grid(of["offset"]), align_corners=True)
            return samples.reshape(1, self.channels, TAPS, *self.size)

        def scatter(of: Tensors) -> Tensor:
            columns = of["input"].reshape(groups, -1, TAPS * height, width)
            unread = columns.new_empty(groups, columns.shape[1], *self.size)
            into_map, _ = torch.ops.aten.grid_sampler_2d_backward(
                columns, unread, grid(of["offset"]), 0, 0, True, (True, False)
            )
            return into_map.reshape(1, self.channels, *self.size)

        return gather if self.op == GATHER else scatter

    def case(self, *, quick: bool = False) -> Case:
        """Inference, everybody who has the op."""
        peer: dict[str, Callable[[], Function]] = {GRID_SAMPLE: self.grid_sample}
        if not self.offset_groups:
            peer = {UNFOLD: self.unfold} if self.op == GATHER else {FOLD: self.fold}
        competitors = {OURS: self.ours, **peer}
        entries = {name: entry(self.tensors, function) for name, function in competitors.items()}
        parts = (Part("forward", ("forward",), self.work()),)
        return Case(f"{self} forward", parts, entries, quick=quick)


SUITE = Suite(
    name="columns",
    title="columns",
    cases=[
        Problem(op, 256, 64, 64, offset_groups=groups).case(quick=True)
        for groups in (0, 1)
        for op in (GATHER, SCATTER)
    ],
    warm_up=[
        Problem(op, 4, 6, 5, dilation, groups).case()
        for op in (GATHER, SCATTER)
        for dilation, groups in ((1, 0), (2, 0), (1, 1), (2, 2))
    ],
    notes=(
        "256 3x3 64x64: channels, taps, map; padding keeps the map as large as it is; float32",
        "moved gN: by offsets of N groups; those that stand still are beside unfold and fold",
        "grid_sample: torch's bilinear samples at points made of the offsets in the call; for "
        "scatter_columns the gradient of its input",
    ),
)
