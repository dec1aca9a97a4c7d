"""What torch's global switches ask of the kernels, as keyword arguments of the raw ops."""

from __future__ import annotations

import torch
from torch import Tensor


def deterministic() -> dict[str, bool]:
    """The same bits every time, where that costs something (sums by atomics on a GPU)."""
    return {"deterministic": True} if torch.are_deterministic_algorithms_enabled() else {}


def tf32(tensor: Tensor) -> dict[str, bool]:
    """Whether tensor cores may round float32 to 19 bits: as torch's own convolutions on a GPU."""
    if getattr(tensor, "is_cuda", False) and _convolution_precision() == "tf32":
        return {"allow_tf32": True}
    return {}


def _convolution_precision() -> str:
    precision: str = torch.backends.cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    return precision
