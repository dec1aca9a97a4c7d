"""The convolutions of Zeiler and Fergus' network."""

from __future__ import annotations

from collections import OrderedDict

from torch import nn

from deformops.nets._width import scaled
from deformops.nn import CaffeMaxPool2d, LocalResponseNorm
from deformops.nn import _initial as initial


class ZFFeatures(nn.Sequential):
    """The five convolutions of Zeiler and Fergus' network.

        layer   kernel, stride, padding   channels   after it
        conv1   7, 2, 3                   96         LRN, max pool 3/2 with padding 1
        conv2   5, 2, 2                   256        LRN, max pool 3/2 with padding 1
        conv3   3, 1, 1                   384
        conv4   3, 1, 1                   384
        conv5   3, 1, 1                   256

    A ReLU follows every convolution; the normalisation is over 3 x 3 pixels of a channel. With a
    3x3 after it a cell sees 171 pixels. Weights start normally distributed with deviation 0.01,
    biases at 0.

    Args:
        width: fraction of all channels.

    Shapes: images [N, 3, H, W], map [N, 256 * width, H / 16, W / 16], rounded up.

    Source: Zeiler and Fergus, Visualizing and Understanding Convolutional Networks (2014); its
    form in py-faster-rcnn.
    """

    def __init__(self, width: float = 1.0) -> None:
        c96, c256, c384 = (scaled(channels, width) for channels in (96, 256, 384))
        layers: OrderedDict[str, nn.Module] = OrderedDict(
            conv1=nn.Conv2d(3, c96, 7, 2, 3),
            relu1=nn.ReLU(inplace=True),
            norm1=LocalResponseNorm(3, alpha=5e-5, beta=0.75, form="within"),
            pool1=CaffeMaxPool2d(3, 2, 1),
            conv2=nn.Conv2d(c96, c256, 5, 2, 2),
            relu2=nn.ReLU(inplace=True),
            norm2=LocalResponseNorm(3, alpha=5e-5, beta=0.75, form="within"),
            pool2=CaffeMaxPool2d(3, 2, 1),
            conv3=nn.Conv2d(c256, c384, 3, padding=1),
            relu3=nn.ReLU(inplace=True),
            conv4=nn.Conv2d(c384, c384, 3, padding=1),
            relu4=nn.ReLU(inplace=True),
            conv5=nn.Conv2d(c384, c256, 3, padding=1),
            relu5=nn.ReLU(inplace=True),
        )
        super().__init__(layers)
        self.channels = c256
        for layer in self:
            if isinstance(layer, nn.Conv2d):
                initial.normal(layer, std=0.01)
