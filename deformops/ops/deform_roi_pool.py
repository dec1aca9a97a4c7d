"""deform_roi_pool: the mean of samples of each bin of a box, where bins move."""

from __future__ import annotations

from torch import Tensor

from deformops.ops._boxes import Boxes
from deformops.ops._checks import Checks
from deformops.ops._roi_average import Bins, average, check_parts
from deformops.ops._sampling import pair

_RAW = {"dcn": "dcn", "mmcv": "aligned"}


def deform_roi_pool(
    input: Tensor,
    boxes: Boxes,
    offset: Tensor | None,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    *,
    samples_per_bin: int = 4,
    offset_scale: float = 0.1,
    part_size: int | tuple[int, int] | None = None,
    semantics: str = "dcn",
) -> Tensor:
    """Pools boxes whose bins are moved by offsets (deformable RoI pooling).

    It is `deformops.deform_ps_roi_pool` without groups: every bin reads all channels. Offsets are
    in parts of the box, so that the same one moves bins of a box twice as large twice as far:

        move_x = offset_x * offset_scale * extent_x        in pixels of the map

    The channels of `offset`, for M classes, x before y (deformable convolution has y before x; both
    as published):

        channel     0     1     2     3          2M-2  2M-1
                 +-----+-----+-----+-----+- ... -+-----+-----+
                 |  x  |  y  |  x  |  y  |       |  x  |  y  |      x: to the right, y: down
                 +-----+-----+-----+-----+- ... -+-----+-----+
        class    |     0     |     1     |       |    M-1    |

    Class m moves the output channels from m * C / M to (m + 1) * C / M - 1; with one class, all.
    Bin (i, j) of P_y x P_x moves as part (floor(i * part_y / P_y), floor(j * part_x / P_x)) does.

    Offsets are mostly predicted: pool once with offset None, and let a fully connected layer that
    starts at zero make 2 * part_y * part_x numbers of each pooled box; that is
    `deformops.nn.DeformRoIPoolPack`.

    semantics="dcn" is the MXNet operator of the paper, where a box from `low` to `high` is on the
    map

        start = round(low) * spatial_scale - 1/2
        extent = max((round(high) + 1) * spatial_scale - 1/2 - start, 0.1)

    and bin i of P is read at start + (i + s / S) * extent / P + move for s from 0 to S - 1; samples
    more than half a pixel outside the map are left out of the mean, which is 0 if none remains.
    semantics="mmcv" has the bins and samples of `deformops.roi_align` with aligned=True (their
    number follows from the box for samples_per_bin=0, which is mmcv's default), where samples
    outside count as 0; with offset None it is that function. Neither is `roi_pool` with offsets:
    that takes maxima.

    A box with an infinite corner is 0, one with a NaN is NaN, as are bins that NaN moves, and no
    pixel gets a gradient from them. A bin moved to infinity is 0. The derivative with respect to
    an offset of a sample exactly on a pixel is the slope to its right (MXNet: 0), and samples
    outside the first and last pixels have none (mmcv has one there, though what is read does not
    change).

    Args:
        input: [N, C, H, W].
        boxes: [K, 5] of (image, x1, y1, x2, y2), or a list of N tensors [L, 4] of (x1, y1, x2, y2),
            one for each image; no gradient; in float32 (see `deformops.roi_pool`).
        offset: [K, 2 * M, part_y, part_x], or None: bins stay in place.
        output_size: bins of each box, one number or (P_y, P_x).
        spatial_scale: pixels of the map for each of the image.
        samples_per_bin: S, on each axis.
        offset_scale: how far an offset of 1 moves, in extents of the box (MXNet's trans_std, mmcv's
            gamma).
        part_size: one number or (part_y, part_x); `output_size` if None.
        semantics: "dcn" or "mmcv".

    Returns:
        [K, C, P_y, P_x], channels_last if the input is.

    Raises:
        ValueError: a shape, size or option does not fit, or there is no such image; see
            `deformops.roi_pool`.
        TypeError: an argument has the wrong type.

    Example:
        >>> image = torch.arange(12.0).expand(1, 1, 12, 12)
        >>> boxes = torch.tensor([[0.0, 1, 1, 4, 4], [0, 1, 1, 8, 8]])
        >>> right = torch.tensor([2.5, 0.0]).reshape(1, 2, 1, 1).expand(2, 2, 1, 1)
        >>> still = deformops.deform_roi_pool(image, boxes, None, 1)
        >>> (deformops.deform_roi_pool(image, boxes, right, 1) - still).flatten()
        tensor([1., 2.])

    Source: Dai et al., Deformable Convolutional Networks (2017), section 2.2.
    """
    checks = Checks("deform_roi_pool")
    checks.choice("semantics", semantics, tuple(_RAW))
    size = pair("output_size", output_size)
    check_parts(checks, offset, size, part_size)
    bins = Bins(
        size,
        spatial_scale,
        _RAW[semantics],
        samples_per_bin=samples_per_bin,
        offset_scale=offset_scale,
    )
    return average(checks, input, boxes, offset, bins)
