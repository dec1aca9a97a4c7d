"""LocalResponseNorm in the forms of the networks that have it."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

FORMS = ("mean", "sum", "within")


class LocalResponseNorm(nn.Module):
    """Divides every value by what its neighbourhood holds.

        output = input / (k + alpha * s) ** beta

    and s depends on the form:

    - "mean": the mean of the squares over `size` neighbouring channels at the same pixel. Caffe and
      `torch.nn.LocalResponseNorm`; channels that do not exist count as zeros;
    - "sum": their sum. The paper, with k = 2;
    - "within": the mean of the squares over `size` x `size` pixels of the same channel, pixels
      outside counting as zeros. Caffe's WITHIN_CHANNEL, in the network of Zeiler and Fergus.

    The neighbourhood of channel c goes from c - size // 2 on.

    Args:
        size: n, how many neighbours, the value itself included; odd for "within".
        alpha: weight of the neighbourhood.
        beta: exponent.
        k: what is added.
        form: see above.

    Shapes: input and output [N, C, H, W].

    Raises:
        ValueError: an argument does not fit.

    Source: Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural
    Networks (2012), section 3.3; Caffe's LRN layer.
    """

    def __init__(
        self,
        size: int = 5,
        alpha: float = 1e-4,
        beta: float = 0.75,
        k: float = 1.0,
        form: Literal["mean", "sum", "within"] = "mean",
    ) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"LocalResponseNorm: size: expected at least 1, got {size}")
        if form not in FORMS:
            raise ValueError(f"LocalResponseNorm: form: expected one of {FORMS}, got {form!r}")
        if form == "within" and size % 2 == 0:
            raise ValueError(f"LocalResponseNorm: size: expected an odd number, got {size}")
        self.size = size
        self.alpha = alpha
        self.beta = beta
        self.k = k
        self.form = form

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H, W]."""
        squares = input.square()
        if self.form == "within":
            neighbourhood = F.avg_pool2d(squares, self.size, 1, self.size // 2)
        else:
            before = self.size // 2
            channels = F.pad(squares, (0, 0, 0, 0, before, self.size - 1 - before))
            shifts = (channels.narrow(1, i, input.shape[1]) for i in range(self.size))
            neighbourhood = sum(shifts, start=squares.new_zeros(()))
            if self.form == "mean":
                neighbourhood = neighbourhood / self.size
        return input / (self.k + self.alpha * neighbourhood) ** self.beta

    def extra_repr(self) -> str:
        """What the constructor was told."""
        numbers = f"{self.size}, alpha={self.alpha}, beta={self.beta}, k={self.k}"
        return f"{numbers}, form={self.form!r}"
