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

    - `deform_conv2d` becomes ONNX's `DeformConv`, which has the border "v2" and sees the offsets in
      the same order.
    - `roi_align` becomes `RoiAlign`, `roi_pool` with semantics "caffe" `MaxRoiPool`. There the
      boxes have the type of the input. An engine's answer to boxes and pixels that are no numbers
      is its own.

    - `nms`, `batched_nms` and `nms_padded` become `NonMaxSuppression` in float32, whose decisions
      about an overlap of just the threshold, and about boxes the wrong way round, are the engine's.

    Any other border or semantics, offsets or groups of boxes, `plus_one`, a batch of `nms_padded`
    under vmap, or a derivative, has no counterpart and raises ValueError.

    Raises:
        ImportError: onnxscript is not installed.
    """
    from onnxscript import opset19

    onnx: Any = opset19

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
        allow_winograd: bool = False,
    ) -> Any:
        if border != "v2" or any(order):
            raise ValueError(
                "deform_conv2d: ONNX's DeformConv has border 'v2' and order (0, 0), "
                f"got {border!r} and {tuple(order)}"
            )
        if offset is None:
            raise ValueError("deform_conv2d: ONNX's DeformConv needs an offset, got None")
        height, width = weight.shape[2:]
        return onnx.DeformConv(
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

    def roi_average(
        input: Any,
        boxes: Any,
        offset: Any,
        output_size: Sequence[int],
        spatial_scale: float,
        semantics: str,
        group_size: Sequence[int],
        samples_per_bin: int,
        offset_scale: float,
        order: Sequence[int],
    ) -> Any:
        modes = {"aligned": "half_pixel", "unaligned": "output_half_pixel"}
        if (
            semantics not in modes
            or tuple(group_size) != (1, 1)
            or offset is not None
            or any(order)
        ):
            moved = "without" if offset is None else "with"
            raise ValueError(
                "roi_average: ONNX's RoiAlign is that of roi_align alone, without groups and "
                f"offsets; got semantics {semantics!r}, groups {tuple(group_size)}, {moved} offsets"
            )
        number = onnx.Gather(boxes, onnx.Constant(value_int=0), axis=1)
        corners = onnx.Slice(boxes, [1], [5], [1])
        return onnx.RoiAlign(
            input,
            onnx.CastLike(corners, input),
            onnx.Cast(number, to=7),  # int64
            coordinate_transformation_mode=modes[semantics],
            output_height=output_size[0],
            output_width=output_size[1],
            sampling_ratio=max(0, samples_per_bin),
            spatial_scale=spatial_scale,
        )

    def roi_pool(
        input: Any,
        boxes: Any,
        output_size: Sequence[int],
        spatial_scale: float,
        semantics: str,
        want_index: bool = True,
    ) -> Any:
        if semantics != "caffe" or want_index:
            raise ValueError(
                f"roi_pool: ONNX's MaxRoiPool has semantics 'caffe' and no index, got {semantics!r}"
                + (" and an index that is wanted" if want_index else "")
            )
        output = onnx.MaxRoiPool(
            input,
            onnx.CastLike(boxes, input),
            pooled_shape=list(output_size),
            spatial_scale=spatial_scale,
        )
        return output, output

    def selected(
        boxes: Any, scores: Any, idxs: Any, iou_threshold: float, most: Any, plus_one: bool
    ) -> Any:
        """Indices of [N, 4] boxes by falling score, at most so many of each group."""
        if plus_one:
            raise ValueError("nms: ONNX's NonMaxSuppression has no plus_one, got True")
        first, last = onnx.Constant(value_ints=[0]), onnx.Constant(value_ints=[-1])
        wide = onnx.Cast(scores, to=1)  # float32
        given = (onnx.Unsqueeze(onnx.Cast(boxes, to=1), first),)
        threshold = onnx.Constant(value_float=iou_threshold)
        box_column = onnx.Constant(value_int=2)
        if idxs is None:
            table = onnx.Unsqueeze(wide, onnx.Constant(value_ints=[0, 1]))
            pairs = onnx.NonMaxSuppression(*given, table, most, threshold)
            return onnx.Gather(pairs, box_column, axis=1)
        # A row of scores for each group, the lowest number where a box is of another.
        _, _, group, counts = onnx.Unique(idxs, sorted=1)
        start, step = onnx.Constant(value_int=0), onnx.Constant(value_int=1)
        groups = onnx.Range(start, onnx.Squeeze(onnx.Shape(counts), first), step)
        own = onnx.Equal(onnx.Unsqueeze(group, first), onnx.Unsqueeze(groups, last))
        lowest = onnx.Constant(value_float=torch.finfo(torch.float32).min)
        table = onnx.Unsqueeze(onnx.Where(own, wide, lowest), first)
        pairs = onnx.NonMaxSuppression(*given, table, most, threshold, lowest)
        # By index, then by score: of equal numbers the first is the first.
        of_groups = onnx.Gather(pairs, box_column, axis=1)
        count = onnx.Shape(of_groups)
        indices, _ = onnx.TopK(of_groups, count, largest=0)
        _, order = onnx.TopK(onnx.Gather(wide, indices), count)
        return onnx.Gather(indices, order)

    def nms(
        boxes: Any, scores: Any, idxs: Any, iou_threshold: float, plus_one: bool = False
    ) -> Any:
        return selected(boxes, scores, idxs, iou_threshold, onnx.Shape(scores), plus_one)

    def nms_padded(
        boxes: Any,
        scores: Any,
        idxs: Any,
        iou_threshold: float,
        max_output: int,
        plus_one: bool = False,
    ) -> Any:
        if boxes.shape[0] != 1:
            raise ValueError(
                f"nms_padded: expected one image for ONNX's NonMaxSuppression, got {boxes.shape[0]}"
            )
        first = onnx.Constant(value_ints=[0])
        most = (
            onnx.Constant(value_ints=[max_output])
            if isinstance(max_output, int)
            else onnx.Reshape(max_output, onnx.Constant(value_ints=[1]))
        )
        boxes, scores = onnx.Squeeze(boxes, first), onnx.Squeeze(scores, first)
        idxs = None if idxs is None else onnx.Squeeze(idxs, first)
        indices = selected(boxes, scores, idxs, iou_threshold, most, plus_one)
        padding = onnx.Expand(onnx.Constant(value_ints=[-1]), most)
        padded = onnx.Slice(onnx.Concat(indices, padding, axis=0), first, most, first)
        return onnx.Unsqueeze(padded, first), onnx.Min(onnx.Shape(indices), most)

    ops = torch.ops.deformops
    return {
        ops.deform_conv2d.default: deform_conv2d,
        ops.roi_average.default: roi_average,
        ops.roi_pool.default: roi_pool,
        ops.nms.default: nms,
        ops.nms_padded.default: nms_padded,
    }
