"""ONNX export: what the exporter of torch has to know of the ops.

    table = deformops.onnx.translations()
    torch.onnx.export(
        model, inputs, dynamo=True, opset_version=19, custom_translation_table=table
    )

Needs onnxscript, as torch's exporter does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


def translations() -> dict[Callable[..., Any], Callable[..., Any]]:
    """The table for `torch.onnx.export(custom_translation_table=...)`, for opset 19 and later.

    `deform_conv2d` becomes ONNX's `DeformConv`, which has the border "v2" and sees the offsets in
    the same order; any other border, or a derivative, has no counterpart and raises ValueError.

    Raises:
        ImportError: onnxscript is not installed.
    """
    from onnxscript import opset19

    def deform_conv2d(
        input: Any,
        offset: Any,
        weight: Any,
        bias: Any = None,
        mask: Any = None,
        stride: Sequence[int] = (1, 1),
        padding: Sequence[int] = (0, 0),
        dilation: Sequence[int] = (1, 1),
        order: Sequence[int] = (0, 0),
        border: str = "v2",
        kink: str = "inner",
        allow_tf32: bool = False,
    ) -> Any:
        if border != "v2" or any(order):
            raise ValueError(
                "deform_conv2d: ONNX's DeformConv has border 'v2' and order (0, 0), "
                f"got {border!r} and {tuple(order)}"
            )
        if offset is None:
            raise ValueError("deform_conv2d: ONNX's DeformConv needs an offset, got None")
        height, width = weight.shape[2:]
        return opset19.DeformConv(
            input,
            weight,
            offset,
            bias,
            mask,
            strides=list(stride),
            pads=[*padding, *padding],
            dilations=list(dilation),
            kernel_shape=[height, width],
            group=input.shape[1] // weight.shape[1],
            offset_group=offset.shape[1] // (2 * height * width),
        )

    return {torch.ops.deformops.deform_conv2d.default: deform_conv2d}
