"""Dropout in its two published forms."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Module):
    """Leaves values out while training, in both published forms.

    - `scale_train=True`, of today's libraries: those that stay are divided by 1 - p in training,
      and evaluation changes nothing;
    - `scale_train=False`, of 2012: those that stay keep their value in training, and evaluation
      multiplies all by 1 - p.

    Args:
        p: the probability that a value is left out.
        scale_train: see above.

    Raises:
        ValueError: `p` is not from 0 to below 1.

    Source: Krizhevsky, Sutskever and Hinton (2012), section 4.2.
    """

    def __init__(self, p: float = 0.5, *, scale_train: bool = True) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"Dropout: p: expected a number from 0 to below 1, got {p}")
        self.p = p
        self.scale_train = scale_train

    def forward(self, input: Tensor) -> Tensor:
        """Any shape to the same."""
        if self.scale_train:
            return F.dropout(input, self.p, self.training)
        if not self.training:
            return input * (1 - self.p)
        return input * input.new_empty(input.shape).bernoulli_(1 - self.p)

    def extra_repr(self) -> str:
        """What the constructor was told."""
        return f"p={self.p}" if self.scale_train else f"p={self.p}, scale_train=False"
