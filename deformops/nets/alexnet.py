"""AlexNet, and Caffe's variant of it."""

from __future__ import annotations

from collections import OrderedDict
from copy import deepcopy
from typing import Literal

import torch
from torch import Tensor, nn

from deformops.nets._width import scaled
from deformops.nn import CaffeMaxPool2d, Dropout, LocalResponseNorm
from deformops.nn import _initial as initial


class AlexNetFeatures(nn.Sequential):
    """The convolutions of AlexNet.

        layer   kernel, stride, padding, groups   channels   after it               at 227
        conv1   11, 4, 0, 1                        96        LRN, max pool 3/2      55 -> 27
        conv2   5, 1, 2, 2                         256       LRN, max pool 3/2      27 -> 13
        conv3   3, 1, 1, 1                         384                              13
        conv4   3, 1, 1, 2                         384                              13
        conv5   3, 1, 1, 2                         256       max pool 3/2           13 -> 6

    A ReLU follows every convolution. Weights start normally distributed with deviation 0.01, the
    biases of conv2, conv4 and conv5 at `bias`, the others at 0.

    Args:
        width: fraction of the channels.
        padding: of conv1.
        groups: of conv2, conv4 and conv5: 2 as on the paper's two GPUs, or 1.
        pool_first: pool before the normalisation, as CaffeNet does.
        bias: see above.
        lrn: "mean": Caffe's, k = 1 and alpha over the mean of the squares; "sum": the paper's,
            k = 2 and alpha over their sum.

    Shapes: input [N, 3, H, W], output [N, 256 * width, H / 32, W / 32].
    """

    def __init__(
        self,
        width: float = 1.0,
        *,
        padding: int = 0,
        groups: int = 2,
        pool_first: bool = False,
        bias: float = 0.1,
        lrn: Literal["mean", "sum"] = "mean",
    ) -> None:
        # Groups share channels evenly.
        c96, c256, c384 = (2 * scaled(channels // 2, width) for channels in (96, 256, 384))
        k = 2.0 if lrn == "sum" else 1.0
        layers: OrderedDict[str, nn.Module] = OrderedDict()

        def norm_and_pool(layer: int) -> None:
            norm = {f"norm{layer}": LocalResponseNorm(5, 1e-4, 0.75, k, lrn)}
            pool = {f"pool{layer}": CaffeMaxPool2d(3, 2)}
            layers.update({**pool, **norm} if pool_first else {**norm, **pool})

        layers["conv1"] = nn.Conv2d(3, c96, 11, 4, padding)
        layers["relu1"] = nn.ReLU(inplace=True)
        norm_and_pool(1)
        layers["conv2"] = nn.Conv2d(c96, c256, 5, padding=2, groups=groups)
        layers["relu2"] = nn.ReLU(inplace=True)
        norm_and_pool(2)
        layers["conv3"] = nn.Conv2d(c256, c384, 3, padding=1)
        layers["relu3"] = nn.ReLU(inplace=True)
        layers["conv4"] = nn.Conv2d(c384, c384, 3, padding=1, groups=groups)
        layers["relu4"] = nn.ReLU(inplace=True)
        layers["conv5"] = nn.Conv2d(c384, c256, 3, padding=1, groups=groups)
        layers["relu5"] = nn.ReLU(inplace=True)
        layers["pool5"] = CaffeMaxPool2d(3, 2)
        super().__init__(layers)
        self.channels = c256
        for name, layer in layers.items():
            if isinstance(layer, nn.Conv2d):
                initial.normal(layer, 0.01, 0.0 if name in ("conv1", "conv3") else bias)


class AlexNet(nn.Module):
    """AlexNet: five convolutions and three fully connected layers, 60,965,224 parameters.

        layer      output at 227
        features   256 x 6 x 6, see `AlexNetFeatures`
        fc6        4096, ReLU, dropout
        fc7        4096, ReLU, dropout
        fc8        classes

    Weights start normally distributed with deviation 0.01 (fc6 and fc7: 0.005); the biases of
    conv2, conv4, conv5, fc6 and fc7 at `bias`, the others at 0. The paper's bias is 1, with which
    the replication in Caffe did not start to learn. Without groups there are 62,378,344 parameters.
    torchvision's `alexnet` is a later network of other sizes.

    Args:
        classes: outputs.
        width: fraction of all channels.
        groups: of conv2, conv4 and conv5: 2 as on the paper's two GPUs, or 1.
        pool_first: pool before the normalisation, as CaffeNet does.
        bias: see above.
        lrn: see `AlexNetFeatures`.
        scale_train: the form of dropout; False is the paper's. See `deformops.nn.Dropout`.

    Shapes: input [N, 3, 227, 227], output [N, classes].

    Source: Krizhevsky, Sutskever and Hinton, ImageNet Classification with Deep Convolutional Neural
    Networks (2012); Caffe's replication bvlc_alexnet.
    """

    def __init__(
        self,
        classes: int = 1000,
        *,
        width: float = 1.0,
        groups: int = 2,
        pool_first: bool = False,
        bias: float = 0.1,
        lrn: Literal["mean", "sum"] = "mean",
        scale_train: bool = True,
    ) -> None:
        super().__init__()
        self.features = AlexNetFeatures(
            width, groups=groups, pool_first=pool_first, bias=bias, lrn=lrn
        )
        hidden = scaled(4096, width)
        self.fc6 = nn.Linear(self.features.channels * 6 * 6, hidden)
        self.fc7 = nn.Linear(hidden, hidden)
        self.fc8 = nn.Linear(hidden, classes)
        self.relu = nn.ReLU(inplace=True)
        self.drop = Dropout(0.5, scale_train=scale_train)
        initial.normal(self.fc6, 0.005, bias)
        initial.normal(self.fc7, 0.005, bias)
        initial.normal(self.fc8, 0.01)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, 227, 227] to [N, classes]."""
        pool5 = self.features(images).flatten(1)
        fc6 = self.drop(self.relu(self.fc6(pool5)))
        fc7 = self.drop(self.relu(self.fc7(fc6)))
        scores: Tensor = self.fc8(fc7)
        return scores

    def two_towers(self) -> AlexNet:
        """A copy whose grouped convolutions are pairs of half ones, one for each GPU."""
        net = deepcopy(self)
        for name, layer in list(net.features.named_children()):
            if isinstance(layer, nn.Conv2d) and layer.groups == 2:
                setattr(net.features, name, TwoTowerConv2d(layer))
        return net

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What Caffe's files call the convolutions."""
        return caffe_names("features.")


class CaffeNet(AlexNet):
    """CaffeNet: AlexNet with pooling before the normalisation and biases that start at 1.

    Args:
        classes: outputs.
        width: fraction of all channels.
        scale_train: the form of dropout; see `deformops.nn.Dropout`.

    Shapes: input [N, 3, 227, 227], output [N, classes].

    Source: Caffe's bvlc_reference_caffenet.
    """

    def __init__(
        self, classes: int = 1000, *, width: float = 1.0, scale_train: bool = True
    ) -> None:
        super().__init__(classes, width=width, pool_first=True, bias=1.0, scale_train=scale_train)


class TwoTowerConv2d(nn.Module):
    """A convolution with two groups as two convolutions, each of which sees half the channels.

    Args:
        conv: with `groups` 2; its weights are copied.

    Shapes: as those of `conv`.

    Source: Krizhevsky, Sutskever and Hinton (2012), section 3.2.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        if conv.groups != 2 or conv.bias is None:
            raise ValueError(f"conv: expected two groups and a bias, got {conv}")
        self.towers = nn.ModuleList()
        for weight, bias in zip(conv.weight.chunk(2), conv.bias.chunk(2), strict=True):
            tower = deepcopy(conv)
            tower.groups = 1
            tower.in_channels, tower.out_channels = conv.in_channels // 2, conv.out_channels // 2
            tower.weight = nn.Parameter(weight.detach().clone())
            tower.bias = nn.Parameter(bias.detach().clone())
            self.towers.append(tower)

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, O, oH, oW]."""
        halves = zip(self.towers, input.chunk(2, dim=1), strict=True)
        return torch.cat([tower(half) for tower, half in halves], dim=1)


def caffe_names(prefix: str) -> dict[str, tuple[str, ...]]:
    """What Caffe's files call the convolutions of `AlexNetFeatures`."""
    return {f"{prefix}conv{layer}": (f"conv{layer}",) for layer in range(1, 6)}
