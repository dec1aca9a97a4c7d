"""roi_align: the mean of samples of each bin of a box."""

from __future__ import annotations

from torch import Tensor

from deformops.ops._boxes import Boxes
from deformops.ops._checks import Checks
from deformops.ops._roi_average import Bins, average
from deformops.ops._sampling import pair


def roi_align(
    input: Tensor,
    boxes: Boxes,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
    aligned: bool = False,
) -> Tensor:
    """Divides boxes into bins and takes the mean of bilinear samples of each (RoI align).

    On each axis a box from `low` to `high`, in pixels of the image, is on the map

        start = low * spatial_scale - 1/2         with aligned, where pixel 0 is from -1/2 to 1/2
        extent = (high - low) * spatial_scale     and at least 1 if not aligned

    and bin i of P is read at start + (i + (s + 1/2) / S) * extent / P for s from 0 to S - 1, in all
    S_y * S_x combinations of the axes. A sample more than one pixel outside the map is 0, one less
    far outside is that of the nearest place inside. These are the numbers of
    `torchvision.ops.roi_align`, whose arguments it has too.

    An aligned box that is empty or inverted has no samples if their number follows from it: its
    bins are 0. A box with an infinite corner is 0, one with a NaN is NaN (torchvision: 0), and no
    pixel gets a gradient from it. A NaN pixel makes the bins NaN that have a sample beside it.

    Args:
        input: [N, C, H, W].
        boxes: [K, 5] of (image, x1, y1, x2, y2), or a list of N tensors [L, 4] of (x1, y1, x2, y2),
            one for each image. Boxes get no gradient. Give them in float32 (float64 with a float64
            input), also beside an input in a half type, which holds coordinates badly; see
            `deformops.roi_pool`.
        output_size: bins of each box, one number or (y, x).
        spatial_scale: pixels of the map for each of the image.
        sampling_ratio: S, the samples of a bin on each axis; if not positive, as many as the pixels
            of a bin, rounded up, for each box.
        aligned: whether the centre of the first pixel is at half a pixel, as it is for all that has
            been resized. False is the original, shifted by half a pixel.

    Returns:
        [K, C, pooled_y, pooled_x], channels_last if the input is. float16 and bfloat16 compute
        coordinates and sums in float32.

    Raises:
        ValueError: a shape, size or option does not fit, or there is no such image; see
            `deformops.roi_pool`.
        TypeError: an argument has the wrong type.

    Example:
        >>> image = torch.arange(25.0).reshape(1, 1, 5, 5)
        >>> deformops.roi_align(image, torch.tensor([[0.0, 1, 1, 3, 3]]), 2, aligned=True)[0, 0]
        tensor([[ 6.,  7.],
                [11., 12.]])

    Source: He et al., Mask R-CNN (2017), section 3.
    """
    checks = Checks("roi_align", samples_per_bin="sampling_ratio")
    checks.integer("samples_per_bin", sampling_ratio)
    bins = Bins(
        pair("output_size", output_size),
        spatial_scale,
        "aligned" if aligned else "unaligned",
        samples_per_bin=sampling_ratio,
    )
    return average(checks, input, boxes, None, bins)
