"""deform_ps_roi_pool: as deform_roi_pool, where each bin has channels of its own."""

from __future__ import annotations

from torch import Tensor

from deformops.ops._boxes import Boxes
from deformops.ops._checks import Checks
from deformops.ops._roi_average import Bins, average, check_parts
from deformops.ops._sampling import pair


def deform_ps_roi_pool(
    input: Tensor,
    boxes: Boxes,
    offset: Tensor | None,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    *,
    group_size: int | tuple[int, int] | None = None,
    part_size: int | tuple[int, int] | None = None,
    samples_per_bin: int = 4,
    offset_scale: float = 0.1,
) -> Tensor:
    """Pools boxes whose bins move, each in channels of its own (deformable, position-sensitive).

    Bins, samples and offsets are those of `deformops.deform_roi_pool` (semantics "dcn"), where the
    order of the channels of `offset` is drawn. With groups G_y x G_x, output channel c of bin
    (i, j) of P_y x P_x reads input channel

        (c * G_y + floor(i * G_y / P_y)) * G_x + floor(j * G_x / P_x)

    This is DeformablePSROIPooling of MXNet, and offset None its no_trans.

    R-FCN predicts the offsets with a convolution of 2 * M * G_y * G_x channels, which are pooled by
    the same function:

        offset = deform_ps_roi_pool(offset_maps, boxes, None, 7, scale)     [K, 2 * M, 7, 7]
        output = deform_ps_roi_pool(score_maps, boxes, offset, 7, scale)    [K, C, 7, 7]

    Args:
        input: [N, C * G_y * G_x, H, W].
        boxes: [K, 5] of (image, x1, y1, x2, y2), or a list of N tensors [L, 4] of (x1, y1, x2, y2),
            one for each image; no gradient; in float32 (see `deformops.roi_pool`).
        offset: [K, 2 * M, part_y, part_x], (x, y) for each of M classes of C / M channels; or None:
            bins stay in place.
        output_size: bins of each box, one number or (P_y, P_x).
        spatial_scale: pixels of the map for each of the image.
        group_size: one number or (G_y, G_x); `output_size` if None.
        part_size: one number or (part_y, part_x); `output_size` if None.
        samples_per_bin: on each axis.
        offset_scale: how far an offset of 1 moves, in extents of the box (MXNet's trans_std).

    Returns:
        [K, C, P_y, P_x], channels_last if the input is.

    Raises:
        ValueError: a shape, size or option does not fit, or there is no such image; see
            `deformops.roi_pool`.
        TypeError: an argument has the wrong type.

    Example:
        >>> image = torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 6, 6)
        >>> boxes = torch.tensor([[0.0, 1, 1, 4, 4]])
        >>> deformops.deform_ps_roi_pool(image, boxes, torch.full((1, 2, 2, 2), 2.5), 2)[0, 0]
        tensor([[0., 1.],
                [2., 3.]])

    Source: Dai et al., Deformable Convolutional Networks (2017), section 2.2.
    """
    checks = Checks("deform_ps_roi_pool")
    size = pair("output_size", output_size)
    groups = size if group_size is None else pair("group_size", group_size)
    check_parts(checks, offset, size, part_size)
    bins = Bins(size, spatial_scale, "dcn", groups, samples_per_bin, offset_scale)
    return average(checks, input, boxes, offset, bins)
