"""Memory layouts of results, as the kernels choose them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def laid_out_like(like: Tensor, shape: Sequence[int]) -> Tensor:
    """A new map, channels_last where another is; contiguous where that fits both formats."""
    channels_last = like.is_contiguous(memory_format=torch.channels_last)
    memory_format = (
        torch.channels_last
        if channels_last and not like.is_contiguous()
        else torch.contiguous_format
    )
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=memory_format)
