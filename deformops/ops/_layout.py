"""Memory layouts of maps, as the kernels choose them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def is_channels_last(tensor: Tensor) -> bool:
    """Where both formats fit (one channel, one pixel) a map counts as contiguous."""
    if torch._C._are_functorch_transforms_active():
        return False  # tensors of torch.func do not tell
    channels_last = tensor.is_contiguous(memory_format=torch.channels_last)
    return channels_last and not tensor.is_contiguous()


def laid_out_like(like: Tensor, shape: Sequence[int]) -> Tensor:
    """A new map, channels_last where another is."""
    layout = torch.channels_last if is_channels_last(like) else torch.contiguous_format
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=layout)
