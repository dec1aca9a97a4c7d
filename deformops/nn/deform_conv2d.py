"""The layers of deform_conv2d: with offsets from outside, and predicting their own."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from deformops.nn._zero import ZeroConv2d
from deformops.ops import deform_conv2d
from deformops.ops._checks import Checks
from deformops.ops._sampling import pair


class DeformConv2d(nn.Module):
    """A deformable convolution whose offsets are an input.

    Constructor, initialisation, state_dict and call are those of `torchvision.ops.DeformConv2d`.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: taps, one number or (y, x).
        stride: pixels from one window to the next.
        padding: zeros around the input.
        dilation: pixels from one tap to the next.
        groups: output channels in group g see the input channels in group g.
        bias: whether to add a learned bias.
        border: see `deformops.deform_conv2d`.
        kink: see `deformops.deform_conv2d`.
        device: where the parameters are made.
        dtype: their type.

    Raises:
        ValueError: `groups` does not divide both numbers of channels, or a number is too small.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        bias: bool = True,
        *,
        border: str = "v2",
        kink: str = "inner",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        for name, channels in (("in_channels", in_channels), ("out_channels", out_channels)):
            if groups < 1 or channels % groups != 0:
                raise ValueError(
                    f"{type(self).__name__}: {name}: expected a multiple of groups, {groups}, "
                    f"got {channels}"
                )
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.kernel_size = pair("kernel_size", kernel_size)
        self.stride = pair("stride", stride)
        self.padding = pair("padding", padding)
        self.dilation = pair("dilation", dilation)
        checks = Checks(type(self).__name__)
        for name, least in (("kernel_size", 1), ("stride", 1), ("padding", 0), ("dilation", 1)):
            checks.pair(name, getattr(self, name), least)
        self.groups = groups
        self.border = border
        self.kink = kink
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, *self.kernel_size, **factory)
        )
        self.bias = nn.Parameter(torch.empty(out_channels, **factory)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Initialises the parameters as `torch.nn.Conv2d` does."""
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in = self.weight[0].numel()
            bound = 1 / math.sqrt(fan_in) if fan_in > 0 else 0.0
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, input: Tensor, offset: Tensor, mask: Tensor | None = None) -> Tensor:
        """Convolves with moved taps.

        Args:
            input: [N, C, H, W].
            offset: [N, 2 * G * kH * kW, oH, oW], (y, x) for each tap; G offset groups.
            mask: [N, G * kH * kW, oH, oW], or None for 1 everywhere.

        Returns:
            [N, O, oH, oW].
        """
        return deform_conv2d(
            input,
            offset,
            self.weight,
            self.bias,
            self.stride,
            self.padding,
            self.dilation,
            mask,
            border=self.border,
            kink=self.kink,
        )

    def extra_repr(self) -> str:
        """What the constructor was told, where it is not the default."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}"
        text += f", stride={self.stride}"
        for name, default in (
            ("padding", (0, 0)),
            ("dilation", (1, 1)),
            ("groups", 1),
            ("border", "v2"),
            ("kink", "inner"),
        ):
            value = getattr(self, name)
            text += f", {name}={value!r}" if value != default else ""
        return text if self.bias is not None else f"{text}, bias=False"


class _PredictingDeformConv2d(DeformConv2d):
    """A deformable convolution whose own convolution `conv_offset` predicts what moves its taps.

    `conv_offset` sees the same windows and starts at zero, so that the layer starts as a plain
    convolution. The paper trains it with a smaller learning rate: give `conv_offset.parameters()` a
    parameter group of its own.
    """

    per_tap: int
    """Numbers that are predicted for each tap."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | tuple[int, int],
        stride: int | tuple[int, int] = 1,
        padding: int | tuple[int, int] = 0,
        dilation: int | tuple[int, int] = 1,
        groups: int = 1,
        offset_groups: int = 1,
        bias: bool = True,
        *,
        border: str = "v2",
        kink: str = "inner",
        offset_dilation: int | tuple[int, int] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            groups,
            bias,
            border=border,
            kink=kink,
            device=device,
            dtype=dtype,
        )
        if offset_groups < 1 or in_channels % offset_groups != 0:
            raise ValueError(
                f"{type(self).__name__}: offset_groups: expected a divisor of in_channels, "
                f"{in_channels}, got {offset_groups}"
            )
        self.offset_groups = offset_groups
        self.offset_dilation = (
            self.dilation if offset_dilation is None else pair("offset_dilation", offset_dilation)
        )
        self.conv_offset = ZeroConv2d(
            in_channels,
            self.per_tap * offset_groups * self.kernel_size[0] * self.kernel_size[1],
            self.kernel_size,
            self.stride,
            self._offset_padding(),
            self.offset_dilation,
            device=device,
            dtype=dtype,
        )

    def _offset_padding(self) -> tuple[int, int]:
        """The padding that keeps the centre taps of both kernels on the same pixel."""
        paddings = []
        for axis, taps in enumerate(self.kernel_size):
            wider = (self.dilation[axis] - self.offset_dilation[axis]) * (taps - 1)
            padding = self.padding[axis] - wider // 2
            if wider % 2 != 0 or padding < 0:
                raise ValueError(
                    f"{type(self).__name__}: offset_dilation: expected one that centres the "
                    f"window of conv_offset on that of dilation {self.dilation}, "
                    f"got {self.offset_dilation}"
                )
            paddings.append(padding)
        return paddings[0], paddings[1]

    def predict(self, input: Tensor) -> Tensor:
        """What `conv_offset` says of [N, C, H, W]: [N, per_tap * offset_groups * kH * kW, oH, oW].

        Raises:
            TypeError: the input is no tensor.
            ValueError: it is of another shape.
        """
        # torch's convolution takes an image without a batch, too, and names no argument.
        name, expected = f"{type(self).__name__}: input", f"[N, {self.in_channels}, H, W]"
        if not isinstance(input, Tensor):
            raise TypeError(f"{name}: expected a tensor {expected}, got {type(input).__name__}")
        if input.dim() != 4 or input.shape[1] != self.in_channels:
            raise ValueError(f"{name}: expected shape {expected}, got {list(input.shape)}")
        prediction: Tensor = self.conv_offset(input)
        return prediction

    def reset_parameters(self) -> None:
        """Initialises the kernel as `torch.nn.Conv2d` does, the predicting one with zeros."""
        super().reset_parameters()
        if hasattr(self, "conv_offset"):
            self.conv_offset.reset_parameters()

    def extra_repr(self) -> str:
        """What the constructor was told, where it is not the default."""
        text = super().extra_repr()
        for name, default in (("offset_groups", 1), ("offset_dilation", self.dilation)):
            value = getattr(self, name)
            text += f", {name}={value!r}" if value != default else ""
        return text


class DeformConv2dPack(_PredictingDeformConv2d):
    """Deformable convolution (v1) that predicts its offsets.

    `conv_offset` sees the same windows and starts at zero, so that the layer starts as a plain
    convolution; its offsets get a gradient from the first step on. The paper trains it with a
    smaller learning rate: give `conv_offset.parameters()` a parameter group of its own. Checkpoints
    of mmcv load by name.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: taps, one number or (y, x).
        stride: pixels from one window to the next.
        padding: zeros around the input.
        dilation: pixels from one tap to the next.
        groups: output channels in group g see the input channels in group g.
        offset_groups: groups of input channels with offsets of their own (mmcv: deform_groups).
        bias: whether to add a learned bias.
        border: see `deformops.deform_conv2d`.
        kink: see `deformops.deform_conv2d`.
        offset_dilation: of `conv_offset`, whose windows stay centred on those of the layer; None:
            `dilation`, as the paper has it. Its published networks for segmentation have 1.
        device: where the parameters are made.
        dtype: their type.

    Source: Dai et al., Deformable Convolutional Networks (2017), section 2.1.
    """

    per_tap = 2

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """[N, C, H, W] to [N, O, oH, oW]."""
        return super().forward(input, self.predict(input))


class ModulatedDeformConv2dPack(_PredictingDeformConv2d):
    """Deformable convolution (v2) that predicts its offsets and its mask.

    The first two thirds of the channels of `conv_offset` are the offsets, the last third goes
    through a sigmoid and is the mask; it starts at zero, so that the layer starts as half a plain
    convolution. Checkpoints of mmcv load by name.

    Args:
        in_channels: C.
        out_channels: O.
        kernel_size: taps, one number or (y, x).
        stride: pixels from one window to the next.
        padding: zeros around the input.
        dilation: pixels from one tap to the next.
        groups: output channels in group g see the input channels in group g.
        offset_groups: groups of input channels with offsets of their own (mmcv: deform_groups).
        bias: whether to add a learned bias.
        border: see `deformops.deform_conv2d`.
        kink: see `deformops.deform_conv2d`.
        offset_dilation: of `conv_offset`; None: `dilation`.
        device: where the parameters are made.
        dtype: their type.

    Source: Zhu et al., Deformable ConvNets v2 (2019), section 3.2.
    """

    per_tap = 3

    def forward(self, input: Tensor) -> Tensor:  # type: ignore[override]
        """[N, C, H, W] to [N, O, oH, oW]."""
        taps = self.offset_groups * self.kernel_size[0] * self.kernel_size[1]
        offset, mask = self.predict(input).split([2 * taps, taps], dim=1)
        return super().forward(input, offset, mask.sigmoid())
