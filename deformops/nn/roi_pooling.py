"""The layers of RoI pooling: options without parameters, and one that predicts its offsets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from deformops.nn._zero import ZeroLinear
from deformops.ops import (
    deform_ps_roi_pool,
    deform_roi_pool,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_pool,
)
from deformops.ops._boxes import Boxes
from deformops.ops._sampling import Pair, pair

Size = int | tuple[int, int]


class _RoIPooling(nn.Module):
    """A function of a map and boxes, with its options as attributes."""

    def __init__(self, output_size: Size, spatial_scale: float, **options: Any) -> None:
        super().__init__()
        self.output_size = pair("output_size", output_size)
        self.spatial_scale = spatial_scale
        self._names = ("output_size", "spatial_scale", *options)
        for name, value in options.items():
            setattr(self, name, value)

    @property
    def options(self) -> dict[str, Any]:
        """The keyword arguments of the function."""
        return {name: getattr(self, name) for name in self._names}

    def extra_repr(self) -> str:
        """What the constructor was told."""
        given = {name: value for name, value in self.options.items() if value is not None}
        return ", ".join(f"{name}={value!r}" for name, value in given.items())


class RoIPool(_RoIPooling):
    """The largest pixel of each bin of a box; `torchvision.ops.RoIPool`.

    Args:
        output_size: bins of each box, one number or (y, x).
        spatial_scale: pixels of the map for each of the image.
        semantics: see `deformops.roi_pool`.
    """

    def __init__(
        self, output_size: Size, spatial_scale: float = 1.0, *, semantics: str = "caffe"
    ) -> None:
        super().__init__(output_size, spatial_scale, semantics=semantics)

    def forward(self, input: Tensor, boxes: Boxes) -> Tensor:
        """Pools boxes, [K, 5] or a list of [L, 4], of [N, C, H, W]: [K, C, pooled_y, pooled_x]."""
        return roi_pool(input, boxes, **self.options)


class RoIAlign(_RoIPooling):
    """The mean of samples of each bin of a box; `torchvision.ops.RoIAlign`.

    Args:
        output_size: bins of each box, one number or (y, x).
        spatial_scale: pixels of the map for each of the image.
        sampling_ratio: samples of a bin on each axis; see `deformops.roi_align`.
        aligned: see `deformops.roi_align`.
    """

    def __init__(
        self,
        output_size: Size,
        spatial_scale: float = 1.0,
        sampling_ratio: int = -1,
        aligned: bool = False,
    ) -> None:
        super().__init__(output_size, spatial_scale, sampling_ratio=sampling_ratio, aligned=aligned)

    def forward(self, input: Tensor, boxes: Boxes) -> Tensor:
        """Pools boxes, [K, 5] or a list of [L, 4], of [N, C, H, W]: [K, C, pooled_y, pooled_x]."""
        return roi_align(input, boxes, **self.options)


class PSRoIPool(_RoIPooling):
    """The mean of the pixels of each bin, in channels of its own; `torchvision.ops.PSRoIPool`.

    Args:
        output_size: bins of each box, one number or (y, x).
        spatial_scale: pixels of the map for each of the image.
        group_size: one number or (y, x); `output_size` if None.
        semantics: "rfcn", or "torchvision" for torchvision's numbers; see `deformops.ps_roi_pool`.
    """

    def __init__(
        self,
        output_size: Size,
        spatial_scale: float = 1.0,
        *,
        group_size: Size | None = None,
        semantics: str = "rfcn",
    ) -> None:
        super().__init__(output_size, spatial_scale, group_size=group_size, semantics=semantics)

    def forward(self, input: Tensor, boxes: Boxes) -> Tensor:
        """Pools boxes of [N, C * groups, H, W]: [K, C, pooled_y, pooled_x]."""
        return ps_roi_pool(input, boxes, **self.options)


class PSRoIAlign(_RoIPooling):
    """The mean of samples of each bin, in channels of its own; `torchvision.ops.PSRoIAlign`.

    Args:
        output_size: bins of each box, one number or (y, x).
        spatial_scale: pixels of the map for each of the image.
        sampling_ratio: samples of a bin on each axis; see `deformops.ps_roi_align`.
    """

    def __init__(
        self, output_size: Size, spatial_scale: float = 1.0, sampling_ratio: int = -1
    ) -> None:
        super().__init__(output_size, spatial_scale, sampling_ratio=sampling_ratio)

    def forward(self, input: Tensor, boxes: Boxes) -> Tensor:
        """Pools boxes of [N, C * pooled_y * pooled_x, H, W]: [K, C, pooled_y, pooled_x]."""
        return ps_roi_align(input, boxes, **self.options)


class DeformPSRoIPool(_RoIPooling):
    """The mean of samples of each bin, moved by an offset, in channels of its own.

    R-FCN calls it twice: without offsets on the maps that predict them, then with what came out.

    Args:
        output_size: bins of each box, one number or (y, x).
        spatial_scale: pixels of the map for each of the image.
        group_size: one number or (y, x); `output_size` if None.
        part_size: parts of a box with offsets of their own; `output_size` if None.
        samples_per_bin: on each axis.
        offset_scale: how far an offset of 1 moves, in extents of the box.

    Source: Dai et al., Deformable Convolutional Networks (2017), section 2.2.
    """

    def __init__(
        self,
        output_size: Size,
        spatial_scale: float = 1.0,
        *,
        group_size: Size | None = None,
        part_size: Size | None = None,
        samples_per_bin: int = 4,
        offset_scale: float = 0.1,
    ) -> None:
        super().__init__(
            output_size,
            spatial_scale,
            group_size=group_size,
            part_size=part_size,
            samples_per_bin=samples_per_bin,
            offset_scale=offset_scale,
        )

    def forward(self, input: Tensor, boxes: Boxes, offset: Tensor | None = None) -> Tensor:
        """Pools boxes whose bins move.

        Args:
            input: [N, C * groups, H, W].
            boxes: [K, 5] of (image, x1, y1, x2, y2), or a list of [L, 4].
            offset: [K, 2 * classes, part_y, part_x], (x, y) for each class; or None.

        Returns:
            [K, C, pooled_y, pooled_x].
        """
        return deform_ps_roi_pool(input, boxes, offset, **self.options)


class DeformRoIPool(_RoIPooling):
    """The mean of samples of each bin, moved by an offset.

    Args:
        output_size: bins of each box, one number or (y, x).
        spatial_scale: pixels of the map for each of the image.
        samples_per_bin: on each axis.
        offset_scale: how far an offset of 1 moves, in extents of the box.
        part_size: parts of a box with offsets of their own; `output_size` if None.
        semantics: "dcn" or "mmcv"; see `deformops.deform_roi_pool`.

    Source: Dai et al., Deformable Convolutional Networks (2017), section 2.2.
    """

    def __init__(
        self,
        output_size: Size,
        spatial_scale: float = 1.0,
        *,
        samples_per_bin: int = 4,
        offset_scale: float = 0.1,
        part_size: Size | None = None,
        semantics: str = "dcn",
    ) -> None:
        super().__init__(
            output_size,
            spatial_scale,
            samples_per_bin=samples_per_bin,
            offset_scale=offset_scale,
            part_size=part_size,
            semantics=semantics,
        )

    def forward(self, input: Tensor, boxes: Boxes, offset: Tensor | None = None) -> Tensor:
        """Pools boxes whose bins move.

        Args:
            input: [N, C, H, W].
            boxes: [K, 5] of (image, x1, y1, x2, y2), or a list of [L, 4].
            offset: [K, 2 * classes, part_y, part_x], (x, y) for each class; or None.

        Returns:
            [K, C, pooled_y, pooled_x].
        """
        return deform_roi_pool(input, boxes, offset, **self.options)


class DeformRoIPoolPack(DeformRoIPool):
    """Deformable RoI pooling that predicts its offsets, in two passes.

    The first pass pools each box with its bins in place; fully connected layers, `offset_fc`, make
    an offset of every part from all that was pooled; the second pass pools the bins so moved.
    Offsets are in parts of the box, hence boxes of all sizes share the layers. The last of these
    starts at zero, so that the layer starts as plain pooling, and gets a gradient from the first
    step on.

    The paper has one fully connected layer and trains it with a hundredth of the learning rate: see
    `parameter_groups`. With hidden_channels=(1024, 1024) and semantics="mmcv", checkpoints of
    mmcv's layer of this name load by name.

    Args:
        output_size: bins of each box, one number or (y, x).
        channels: C, of the input and the output.
        spatial_scale: pixels of the map for each of the image.
        hidden_channels: of layers between the pooled boxes and the offsets, with ReLU in between.
        lr_factor: see `parameter_groups`.
        samples_per_bin: on each axis.
        offset_scale: how far an offset of 1 moves, in extents of the box.
        part_size: parts of a box with offsets of their own; `output_size` if None.
        semantics: "dcn" or "mmcv"; see `deformops.deform_roi_pool`.
        device: where the parameters are made.
        dtype: their type.

    Source: Dai et al., Deformable Convolutional Networks (2017), section 2.2.
    """

    def __init__(
        self,
        output_size: Size,
        channels: int,
        spatial_scale: float = 1.0,
        *,
        hidden_channels: Sequence[int] = (),
        lr_factor: float = 0.01,
        samples_per_bin: int = 4,
        offset_scale: float = 0.1,
        part_size: Size | None = None,
        semantics: str = "dcn",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            output_size,
            spatial_scale,
            samples_per_bin=samples_per_bin,
            offset_scale=offset_scale,
            part_size=part_size,
            semantics=semantics,
        )
        self.channels = channels
        self.lr_factor = lr_factor
        self.parts: Pair = self.output_size if part_size is None else pair("part_size", part_size)
        bins = self.output_size[0] * self.output_size[1]
        sizes = [channels * bins, *hidden_channels, 2 * self.parts[0] * self.parts[1]]
        self.offset_fc = nn.Sequential(*_fully_connected(sizes, device=device, dtype=dtype))

    def reset_parameters(self) -> None:
        """Initialises the layers as `torch.nn.Linear` does, the last one with zeros."""
        for layer in self.offset_fc:
            if isinstance(layer, nn.Linear):
                layer.reset_parameters()

    def parameter_groups(self, lr: float) -> list[dict[str, Any]]:
        """What an optimizer is to be given for this layer, its learning rate times `lr_factor`.

        Example:
            torch.optim.SGD([*pooling.parameter_groups(lr), {"params": head.parameters()}], lr)
        """
        return [{"params": list(self.offset_fc.parameters()), "lr": lr * self.lr_factor}]

    def offsets(self, input: Tensor, boxes: Boxes) -> Tensor:
        """The predicted offsets, [K, 2, part_y, part_x], (x, y), in 1 / offset_scale extents."""
        pooled = deform_roi_pool(input, boxes, None, **self.options)
        return self.offset_fc(pooled.flatten(1)).unflatten(1, (2, *self.parts))

    def forward(self, input: Tensor, boxes: Boxes) -> Tensor:  # type: ignore[override]
        """Pools boxes, [K, 5] or a list of [L, 4], of [N, C, H, W]: [K, C, pooled_y, pooled_x]."""
        return super().forward(input, boxes, self.offsets(input, boxes))

    def extra_repr(self) -> str:
        """What the constructor was told."""
        return f"channels={self.channels}, {super().extra_repr()}, lr_factor={self.lr_factor}"


def _fully_connected(sizes: Sequence[int], **factory: Any) -> Iterator[nn.Module]:
    """Layers from one size to the next, with ReLU between them; the last one starts at zero."""
    *hidden, outputs = sizes
    for before, after in pairwise(hidden):
        yield nn.Linear(before, after, **factory)
        yield nn.ReLU(inplace=True)
    yield ZeroLinear(hidden[-1], outputs, **factory)
