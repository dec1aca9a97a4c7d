"""roi_pool: the largest pixel of each bin of a box."""

from __future__ import annotations

import torch
from torch import Tensor

from deformops.ops._boxes import Boxes, as_rows, check_images
from deformops.ops._checks import Checks
from deformops.ops._roi_maximum import PixelBins, roi_pool_shape
from deformops.ops._sampling import pair


def roi_pool(
    input: Tensor,
    boxes: Boxes,
    output_size: int | tuple[int, int],
    spatial_scale: float = 1.0,
    *,
    semantics: str = "caffe",
) -> Tensor:
    """Divides boxes into bins and takes the largest pixel of each (RoI pooling).

    On each axis a box from `low` to `high`, in pixels of the image, is on the map

        start = round(low * spatial_scale)        halves are rounded away from zero
        extent = max(round(high * spatial_scale) - start + 1, 1)

    and its bin i of P has the pixels from start + floor(i * extent / P) to before
    start + ceil((i + 1) * extent / P), as far as they are in the map. Both end pixels belong to the
    box, and neighbouring bins may share pixels. This is Fast R-CNN's layer and
    `torchvision.ops.roi_pool`. semantics="mmcv" rounds no corner: the box goes from low *
    spatial_scale to (high + 1) * spatial_scale, and bin borders are rounded after the start has
    been added; a box that is empty so has no pixels.

    A bin without pixels is 0. A NaN pixel makes its bin NaN, and -inf is a number like any other
    (torchvision skips the one and returns -3.4e38 for the other). Where a bin has several largest
    pixels, the first in reading order gets the gradient. A box with an infinite corner has no
    pixels, one with a NaN is NaN, and no gradient comes from it.

    Args:
        input: [N, C, H, W].
        boxes: [K, 5] of (image, x1, y1, x2, y2), or a list of N tensors [L, 4] of (x1, y1, x2, y2),
            one for each image. Boxes get no gradient. Give them in float32 (float64 with a float64
            input); any other type is converted, but half types have rounded the corners already:
            float16 counts in steps of 2 above 2048, bfloat16 above 256.
        output_size: bins of each box, one number or (y, x).
        spatial_scale: pixels of the map for each of the image.
        semantics: "caffe" or "mmcv".

    Returns:
        [K, C, pooled_y, pooled_x], channels_last if the input is.

    Raises:
        ValueError: a shape, size or option does not fit, or there is no such image; the message
            names the argument. (On a GPU a wrong number of an image is found by the kernel, and is
            an error of the next synchronisation.)
        TypeError: an argument has the wrong type.

    Example:
        >>> image = torch.arange(16.0).reshape(1, 1, 4, 4)
        >>> deformops.roi_pool(image, torch.tensor([[0.0, 0, 0, 3, 3]]), 2)[0, 0]
        tensor([[ 5.,  7.],
                [13., 15.]])

    Source: Girshick, Fast R-CNN (2015), section 2.1.
    """
    checks = Checks("roi_pool")
    bins = PixelBins(pair("output_size", output_size), spatial_scale, semantics)
    rows = as_rows(checks, boxes, input)
    try:
        return torch.ops.deformops.roi_pool(input, rows, *bins, want_index=False)[0]
    except RuntimeError:
        roi_pool_shape(checks, input, rows, bins)
        check_images(checks, rows, input.shape[0])
        raise
