"""Local response normalisation, one value after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]


def local_response_norm(
    x: Array, size: int, alpha: float, beta: float, k: float, form: str
) -> Array:
    """x [C, H, W] divided by its neighbourhood: see the paper's formula, and Caffe's."""
    channels, height, width = x.shape
    output = np.zeros_like(x)
    half = size // 2
    for c, i, j in np.ndindex(x.shape):
        total = 0.0
        if form == "within":
            for y in range(max(0, i - half), min(height, i + half + 1)):
                for z in range(max(0, j - half), min(width, j + half + 1)):
                    total += x[c, y, z] ** 2
            total /= size * size
        else:
            for other in range(max(0, c - half), min(channels, c - half + size)):
                total += x[other, i, j] ** 2
            if form == "mean":
                total /= size
        output[c, i, j] = x[c, i, j] / (k + alpha * total) ** beta
    return output


def caffe_pool(x: Array, kernel: int, stride: int, padding: int, reduce: str) -> Array:
    """x [H, W] pooled over Caffe's windows, in the words of its layer."""
    sizes = []
    for size in x.shape:
        count = int(np.ceil((size + 2 * padding - kernel) / stride)) + 1
        if padding and (count - 1) * stride >= size + padding:
            count -= 1
        sizes.append(count)
    output = np.zeros(sizes)
    for i, j in np.ndindex(*sizes):
        top, left = i * stride - padding, j * stride - padding
        bottom = min(top + kernel, x.shape[0] + padding)
        right = min(left + kernel, x.shape[1] + padding)
        divisor = (bottom - top) * (right - left)
        window = x[max(top, 0) : min(bottom, x.shape[0]), max(left, 0) : min(right, x.shape[1])]
        output[i, j] = window.max() if reduce == "max" else window.sum() / divisor
    return output
