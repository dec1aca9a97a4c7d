"""AtrousConv2d: the layer of atrous_conv2d."""

from __future__ import annotations

from typing import Any, Literal, cast

import torch.nn.functional as F
from torch import Tensor, nn

from deformops.ops import atrous_conv2d
from deformops.ops._sampling import Pair


class AtrousConv2d(nn.Conv2d):
    """A convolution with holes: `torch.nn.Conv2d`, computed by `deformops.atrous_conv2d`.

    Constructor, parameters, initialisation and state_dict are those of `torch.nn.Conv2d`, padding
    "same" and "valid" and the padding modes included.

    Args:
        *args: as for `torch.nn.Conv2d`.
        algorithm: how it is computed; see `deformops.atrous_conv2d`.
        **kwargs: as for `torch.nn.Conv2d`.

    Shapes: input [N, C, H, W], output [N, O, oH, oW].
    """

    def __init__(
        self,
        *args: Any,
        algorithm: Literal["auto", "direct", "holes", "subsample", "winograd"] = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.algorithm: Literal["auto", "direct", "holes", "subsample", "winograd"] = algorithm

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        padding = self.padding
        # Pairs, which torch declares as tuples of any length.
        stride, dilation = cast("tuple[Pair, Pair]", (self.stride, self.dilation))
        if isinstance(padding, str) or self.padding_mode != "zeros":
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=mode)
            padding = (0, 0)
        return atrous_conv2d(
            input,
            weight,
            bias,
            stride,
            cast("Pair", padding),
            dilation,
            self.groups,
            algorithm=self.algorithm,
        )

    def extra_repr(self) -> str:
        """What the constructor was told."""
        text = super().extra_repr()
        return text if self.algorithm == "auto" else f"{text}, algorithm={self.algorithm!r}"
