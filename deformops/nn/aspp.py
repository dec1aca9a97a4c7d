"""ASPP: atrous spatial pyramid pooling."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from torch import Tensor, nn

from deformops.nn import _initial as initial
from deformops.nn.atrous_conv2d import AtrousConv2d


class ASPP(nn.Module):
    """The sum of branches that look at different distances.

    Branch i has parameters of its own and is

        hidden None    3x3 convolution with holes, rate rates[i], to `out_channels`
        hidden F       fc6: the same to F, ReLU, dropout; fc7: 1x1 to F, ReLU, dropout;
                       fc8: 1x1 to `out_channels`

    The first is the head of DeepLab with ResNet, the second, with F = 1024, of DeepLab with VGG.
    Kernels start normally distributed with deviation 0.01 for `out_channels`, and He's for the
    hidden layers; biases at 0.

    Args:
        in_channels: C.
        out_channels: O, the classes.
        rates: the dilations, one for each branch.
        hidden: F, or None.
        dropout: the probability that a hidden value is left out.

    Shapes: input [N, C, H, W], output [N, O, H, W].

    Raises:
        ValueError: there is no rate.

    Source: Chen et al., DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
    Convolution, and Fully Connected CRFs (2017), section 3.2.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        rates: Sequence[int],
        *,
        hidden: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if len(rates) == 0:
            raise ValueError("ASPP: rates: expected at least one, got none")
        self.rates = tuple(rates)
        self.hidden = hidden
        self.branches = nn.ModuleList(
            atrous_classifier(in_channels, out_channels, rate, hidden=hidden, dropout=dropout)
            if hidden is not None
            else atrous_scores(in_channels, out_channels, rate)
            for rate in rates
        )

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, O, H, W]."""
        first, *others = self.branches
        output: Tensor = first(input)
        for branch in others:
            output = output + branch(input)
        return output


def atrous_scores(in_channels: int, out_channels: int, rate: int) -> nn.Module:
    """A 3x3 convolution with holes that scores classes."""
    conv = AtrousConv2d(in_channels, out_channels, 3, padding=rate, dilation=rate)
    initial.normal(conv, std=0.01)
    return conv


def atrous_classifier(
    in_channels: int, out_channels: int, rate: int, *, hidden: int, dropout: float = 0.5
) -> nn.Sequential:
    """Fully connected layers as convolutions with a field of view set by the rate of the first."""
    fc6 = AtrousConv2d(in_channels, hidden, 3, padding=rate, dilation=rate)
    fc7 = nn.Conv2d(hidden, hidden, 1)
    fc8 = nn.Conv2d(hidden, out_channels, 1)
    initial.he(fc6)
    initial.he(fc7)
    initial.normal(fc8, std=0.01)
    return nn.Sequential(
        OrderedDict(
            fc6=fc6,
            relu6=nn.ReLU(inplace=True),
            drop6=nn.Dropout(dropout),
            fc7=fc7,
            relu7=nn.ReLU(inplace=True),
            drop7=nn.Dropout(dropout),
            fc8=fc8,
        )
    )
