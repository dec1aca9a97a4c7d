"""How much each pixel of one axis weighs in the read at a point, as a dense vector."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def axis_weights(
    points: Array, pixels: int, order: int = 0, border: str = "v2", kink: str = "inner"
) -> Array:
    """Weights ``[..., pixels]`` of linear interpolation at ``points [...]``, or their slopes.

    Order 0 is the hat function ``max(0, 1 - |p - i|)`` of pixel ``i``; order 1 is its right
    derivative, ``+1`` for ``-1 <= p - i < 0`` and ``-1`` for ``0 <= p - i < 1``.

    ``border="v2"`` uses them as they are: pixels off the map do not exist, so a read fades to zero
    over one pixel outside (Dai et al. 2018). A sample exactly on -1 has the slope of the inside
    with ``kink="inner"`` and none with ``kink="zero"``. ``border="v1"`` reads zero unless ``0 <= p
    < pixels`` and holds the last pixel's value beyond it (Dai et al. 2017).

    A NaN point has NaN weights.
    """
    p = points[..., None]
    index = np.arange(pixels, dtype=np.float64)
    reached = np.minimum(p, pixels - 1.0) if border == "v1" else p
    with np.errstate(invalid="ignore"):
        distance = reached - index
        if order == 0:
            weights = np.maximum(0.0, 1.0 - np.abs(distance))
        else:
            rising = (distance >= -1.0) & (distance < 0.0)
            falling = (distance >= 0.0) & (distance < 1.0)
            weights = 1.0 * rising - 1.0 * falling
        if border == "v1":
            weights = np.where((p >= 0.0) & (p < pixels), weights, 0.0)
            if order == 1:
                weights = np.where(p < pixels - 1.0, weights, 0.0)
        elif order == 1 and kink == "zero":
            weights = np.where(p == -1.0, 0.0, weights)
    result: Array = np.where(np.isnan(p), np.nan, weights)
    return result
