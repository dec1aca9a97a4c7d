"""insert_holes: a dilated kernel written out as a dense one."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from deformops.ops._checks import Checks
from deformops.ops._sampling import pair


def insert_holes(weight: Tensor, dilation: int | tuple[int, int]) -> Tensor:
    """Puts dilation - 1 zeros between the taps of a kernel (the algorithme a trous).

    A convolution with the result equals the dilated convolution with the weight.

    Args:
        weight: [..., kH, kW].
        dilation: the new distance of neighbouring taps, one number or (y, x).

    Returns:
        [..., (kH - 1) * dilation + 1, (kW - 1) * dilation + 1].

    Raises:
        ValueError: a dilation below 1, or a weight without two dimensions.
        TypeError: an argument has the wrong type.

    Example:
        >>> deformops.insert_holes(torch.ones(2, 2), 2)
        tensor([[1., 0., 1.],
                [0., 0., 0.],
                [1., 0., 1.]])

    Source: Holschneider et al., A real-time algorithm for signal analysis (1989).
    """
    checks = Checks("insert_holes")
    if not isinstance(weight, Tensor):
        raise TypeError(f"insert_holes: weight: expected a tensor, got {type(weight).__name__}")
    checks.require(weight.dim() >= 2, "weight", "dimensions [..., kH, kW]", list(weight.shape))
    dilation_y, dilation_x = pair("dilation", dilation)
    checks.pair("dilation", (dilation_y, dilation_x), 1)
    *rest, height, width = weight.shape
    # Each tap becomes a block of dilation_y x dilation_x with the tap in its first corner.
    blocks = F.pad(weight.unsqueeze(-1).unsqueeze(-3), (0, dilation_x - 1, 0, 0, 0, dilation_y - 1))
    dense = blocks.reshape(*rest, height * dilation_y, width * dilation_x)
    return dense[..., : (height - 1) * dilation_y + 1, : (width - 1) * dilation_x + 1]
