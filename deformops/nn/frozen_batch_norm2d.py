"""FrozenBatchNorm2d: batch normalisation that no longer learns."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class FrozenBatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation with the running statistics, in training too.

    Scale and shift stay parameters, so that counts and state_dicts are those of
    `torch.nn.BatchNorm2d`, but do not learn.

    Args:
        num_features: C.
        eps: added to the variance.
        **kwargs: as for `torch.nn.BatchNorm2d`.

    Shapes: input and output [N, C, H, W].
    """

    def __init__(self, num_features: int, eps: float = 1e-5, **kwargs: object) -> None:
        super().__init__(num_features, eps, **kwargs)  # type: ignore[arg-type]
        self.requires_grad_(False)

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, C, H, W]."""
        return F.batch_norm(
            input, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
        )
