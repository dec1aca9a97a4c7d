"""VGG-16, as a classifier and as the trunk of dense networks."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from deformops.nets._width import scaled
from deformops.nets.grid import Grid
from deformops.nn import AtrousConv2d, CaffeMaxPool2d, Dropout
from deformops.nn import _initial as initial

#: Channels and number of the 3x3 convolutions before each pooling.
STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG16Features(nn.Sequential):
    """The convolutions of VGG-16 with the names of torchvision's, in three geometries.

        layers                   channels   torchvision's names
        conv1_1 conv1_2 pool1      64       0 2 4
        conv2_1 conv2_2 pool2     128       5 7 9
        conv3_1 ... 3_3 pool3     256       10 12 14 16
        conv4_1 ... 4_3 pool4     512       17 19 21 23
        conv5_1 ... 5_3 pool5     512       24 26 28 30

    All convolutions are 3x3 with padding 1 and followed by a ReLU. As published, pools are 2x2 with
    stride 2 (with Caffe's sizes: rounded up). FCN pads conv1_1 more. DeepLab's pools are 3x3 with
    padding 1, and its pool4 and pool5 have stride 1 in exchange for a dilation of 2 in conv5_x; no
    weight changes its place. He's initialisation, biases 0.

    Args:
        width: fraction of the channels.
        padding: of conv1_1.
        atrous: DeepLab's geometry.

    Shapes: input [N, 3, H, W], output [N, 512 * width, H / 32, W / 32], or / 8 if atrous.

    Source: Simonyan and Zisserman, Very Deep Convolutional Networks for Large-Scale Image
    Recognition (2015), table 1, D.
    """

    def __init__(self, width: float = 1.0, *, padding: int = 1, atrous: bool = False) -> None:
        layers: list[nn.Module] = []
        channels = 3
        for stage, (full, convs) in enumerate(STAGES, start=1):
            dilation = 2 if atrous and stage == 5 else 1
            for _ in range(convs):
                around = dilation if layers else padding
                conv = AtrousConv2d(
                    channels, scaled(full, width), 3, padding=around, dilation=dilation
                )
                initial.he(conv, "fan_out")
                layers += [conv, nn.ReLU(inplace=True)]
                channels = scaled(full, width)
            if atrous:
                layers.append(CaffeMaxPool2d(3, stride=1 if stage >= 4 else 2, padding=1))
            else:
                layers.append(CaffeMaxPool2d(2))
        super().__init__(*layers)
        self.channels = tuple(scaled(full, width) for full, _ in STAGES)

    def pools(self, images: Tensor) -> Iterator[Tensor]:
        """pool1 to pool5."""
        values = images
        for layer in self:
            values = layer(values)
            if isinstance(layer, CaffeMaxPool2d):
                yield values

    def grids(self) -> Iterator[Grid]:
        """Where the cells of pool1 to pool5 lie in the image."""
        grid = Grid()
        for layer in self:
            grid = grid.after([layer])
            if isinstance(layer, CaffeMaxPool2d):
                yield grid


class VGG16(nn.Module):
    """VGG-16: 13 convolutions and 3 fully connected layers, 138,357,544 parameters.

        layer      names         output at 224
        conv, pool features.*    512 x 7 x 7
        fc6        classifier.0  4096, ReLU, dropout
        fc7        classifier.3  4096, ReLU, dropout
        fc8        classifier.6  classes

    The state_dict is that of torchvision's `vgg16`, and so is the output where no pool meets an odd
    size. Fully connected layers start normally distributed with deviation 0.01, biases at 0.

    Args:
        classes: outputs.
        width: fraction of all channels.
        dropout: the probability that a value of fc6 and fc7 is left out.

    Shapes: input [N, 3, H, W], output [N, classes].

    Source: Simonyan and Zisserman (2015).
    """

    def __init__(self, classes: int = 1000, *, width: float = 1.0, dropout: float = 0.5) -> None:
        super().__init__()
        self.features = VGG16Features(width)
        self.avgpool = nn.AdaptiveAvgPool2d(7)
        hidden = scaled(4096, width)
        self.classifier = nn.Sequential(
            nn.Linear(self.features.channels[-1] * 7 * 7, hidden),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Linear(hidden, hidden),
            nn.ReLU(inplace=True),
            Dropout(dropout),
            nn.Linear(hidden, classes),
        )
        for layer in self.classifier:
            if isinstance(layer, nn.Linear):
                initial.normal(layer, std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, classes]."""
        scores: Tensor = self.classifier(self.avgpool(self.features(images)).flatten(1))
        return scores

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What Caffe's files call the layers."""
        fully_connected = {f"classifier.{place}": (f"fc{6 + place // 3}",) for place in (0, 3, 6)}
        return {**caffe_names("features."), **fully_connected}


def caffe_names(prefix: str) -> dict[str, tuple[str, ...]]:
    """What Caffe's files call the convolutions of `VGG16Features`."""
    names = [
        f"conv{stage}_{conv + 1}"
        for stage, (_, convs) in enumerate(STAGES, start=1)
        for conv in range(convs)
    ]
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    return {f"{prefix}{place}": (name,) for place, name in zip(places, names, strict=True)}
