"""ps_roi_pool: the mean of the pixels of each bin of a box, where each bin has its own channels."""

from __future__ import annotations

from torch import Tensor

from deformops.ops._boxes import Boxes
from deformops.ops._checks import Checks
from deformops.ops._roi_average import Bins, average
from deformops.ops._sampling import pair


def ps_roi_pool(
    input: Tensor,
    boxes: Boxes,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    *,
    group_size: int | tuple[int, int] | None = None,
    semantics: str = "rfcn",
) -> Tensor:
    """Takes the mean of the pixels of bins, each in a channel of its own (position-sensitive).

    On each axis a box from `low` to `high`, in pixels of the image, is on the map

        "rfcn"           start = round(low) * spatial_scale
                         extent = max((round(high) + 1) * spatial_scale - start, 0.1)
        "torchvision"    start = round(low * spatial_scale)
                         extent = max(round(high * spatial_scale) - start, 1)

    halves being rounded away from zero; bin i of P has the pixels from floor(start + i * extent /
    P) to before ceil(start + (i + 1) * extent / P), as far as they are in the map, and is 0 if
    there are none. With groups G_y x G_x, output channel c of bin (i, j) reads input channel
    (c * G_y + floor(i * G_y / P_y)) * G_x + floor(j * G_x / P_x).

    "rfcn" is the layer of R-FCN, in Caffe and MXNet: corners are rounded before they are scaled,
    and the last pixel belongs to the box. "torchvision" is `torchvision.ops.ps_roi_pool` but for
    boxes that reach the last row or column of the map: torchvision never reads these, and gives
    them a gradient nevertheless; here they are read.

    A box with an infinite corner is 0, one with a NaN is NaN, and no pixel gets a gradient from it.

    Args:
        input: [N, C * G_y * G_x, H, W].
        boxes: [K, 5] of (image, x1, y1, x2, y2), or a list of N tensors [L, 4] of (x1, y1, x2, y2),
            one for each image; no gradient; in float32 (see `deformops.roi_pool`).
        output_size: bins of each box, one number or (P_y, P_x).
        spatial_scale: pixels of the map for each of the image.
        group_size: one number or (G_y, G_x); `output_size` if None.
        semantics: "rfcn" or "torchvision".

    Returns:
        [K, C, P_y, P_x], channels_last if the input is.

    Raises:
        ValueError: a shape, size or option does not fit, or there is no such image; see
            `deformops.roi_pool`.
        TypeError: an argument has the wrong type.

    Example:
        >>> image = torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 6, 6)
        >>> deformops.ps_roi_pool(image, torch.tensor([[0.0, 1, 1, 4, 4]]), 2)[0, 0]
        tensor([[0., 1.],
                [2., 3.]])

    Source: Dai et al., R-FCN (2016), section 2.
    """
    checks = Checks("ps_roi_pool")
    checks.choice("semantics", semantics, ("rfcn", "torchvision"))
    size = pair("output_size", output_size)
    groups = size if group_size is None else pair("group_size", group_size)
    return average(checks, input, boxes, None, Bins(size, spatial_scale, semantics, groups))
