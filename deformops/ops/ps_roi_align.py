"""ps_roi_align: as roi_align, where each bin has channels of its own."""

from __future__ import annotations

from torch import Tensor

from deformops.ops._boxes import Boxes
from deformops.ops._checks import Checks
from deformops.ops._roi_average import Bins, average
from deformops.ops._sampling import pair


def ps_roi_align(
    input: Tensor,
    boxes: Boxes,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    sampling_ratio: int = -1,
) -> Tensor:
    """RoI align where each bin reads a channel of its own (position-sensitive).

    Bins and samples are those of `deformops.roi_align` with aligned=True. Output channel c of bin
    (i, j) of P_y x P_x reads input channel (c * P_y + i) * P_x + j. These are the numbers of
    `torchvision.ops.ps_roi_align`, but for boxes without samples: their bins are 0 (torchvision:
    NaN).

    Args:
        input: [N, C * P_y * P_x, H, W].
        boxes: [K, 5] of (image, x1, y1, x2, y2), or a list of N tensors [L, 4] of (x1, y1, x2, y2),
            one for each image; no gradient; in float32 (see `deformops.roi_pool`).
        output_size: bins of each box, one number or (P_y, P_x).
        spatial_scale: pixels of the map for each of the image.
        sampling_ratio: the samples of a bin on each axis; if not positive, as many as the pixels of
            a bin, rounded up, for each box.

    Returns:
        [K, C, P_y, P_x], channels_last if the input is.

    Raises:
        ValueError: a shape, size or option does not fit, or there is no such image; see
            `deformops.roi_pool`.
        TypeError: an argument has the wrong type.

    Example:
        >>> image = torch.arange(4.0).reshape(1, 4, 1, 1).expand(1, 4, 6, 6)
        >>> deformops.ps_roi_align(image, torch.tensor([[0.0, 1, 1, 5, 5]]), 2)[0, 0]
        tensor([[0., 1.],
                [2., 3.]])

    Source: Li et al., Light-Head R-CNN (2017).
    """
    checks = Checks("ps_roi_align", samples_per_bin="sampling_ratio")
    checks.integer("samples_per_bin", sampling_ratio)
    size = pair("output_size", output_size)
    bins = Bins(size, spatial_scale, "aligned", size, sampling_ratio)
    return average(checks, input, boxes, None, bins)
