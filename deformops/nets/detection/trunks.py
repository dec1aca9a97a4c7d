"""Trunks of detectors: from an image to a map with a cell for every 16 pixels."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from torch import Tensor, nn

from deformops.nets import resnet, vgg
from deformops.nets._stages import Norm, StagedNetwork
from deformops.nets.deeplab import MXNET_BGR
from deformops.nets.detection.aligned_inception_resnet import AlignedInceptionResNetTrunk
from deformops.nets.detection.zf import ZFFeatures
from deformops.nets.preprocessing import TORCHVISION_RGB, Preprocessing
from deformops.nets.resnet import RESNET101, ResNetTrunk
from deformops.nets.vgg import VGG16Features

#: What py-faster-rcnn subtracts.
RCNN_BGR = Preprocessing((102.9801, 115.9465, 122.7717), order="BGR")


class Trunk(nn.Module):
    """What a detector knows of its trunk.

    `forward` makes the map that proposals come from, and `deeper` makes of it the one that boxes
    are pooled from: the same, or for residual networks the last stage.

    Args:
        backbone: the layers.
        channels: of the first map.
        deeper_channels: of the second map.
        preprocessing: what was done to the images.
    """

    stride = 16
    """Pixels of the image from cell to cell, of both maps."""

    def __init__(
        self,
        backbone: nn.Module,
        channels: int,
        deeper_channels: int,
        preprocessing: Preprocessing,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.channels = channels
        self.deeper_channels = deeper_channels
        self.preprocessing = preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, channels, h, w]."""
        shared: Tensor = self.backbone(images)
        return shared

    def deeper(self, shared: Tensor) -> Tensor:
        """[N, channels, h, w] to [N, deeper_channels, h, w]."""
        return shared

    def deeper_layers(self) -> Iterator[nn.Module]:
        """The layers of `deeper`, which proposals do not come from."""
        yield from ()

    def first_layers(self) -> Iterator[nn.Module]:
        """The layers that published training leaves as they were trained before."""
        yield from ()

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and those of a classifier."""
        return {}


class ZFTrunk(Trunk):
    """The convolutions of Zeiler and Fergus' network: `ZFFeatures`.

    Args:
        width: fraction of all channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        backbone = ZFFeatures(width)
        super().__init__(backbone, backbone.channels, backbone.channels, RCNN_BGR)

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names."""
        return {f"backbone.conv{layer}": (f"conv{layer}",) for layer in range(1, 6)}


class VGG16Trunk(Trunk):
    """The convolutions of VGG-16, `VGG16Features`, without the last pooling.

    With a 3x3 after it a cell sees 228 pixels.

    Args:
        width: fraction of all channels.
    """

    def __init__(self, width: float = 1.0) -> None:
        backbone = VGG16Features(width)
        del backbone[-1]
        channels = backbone.channels[-1]
        super().__init__(backbone, channels, channels, RCNN_BGR)

    def first_layers(self) -> Iterator[nn.Module]:
        """conv1_1 to pool2."""
        assert isinstance(self.backbone, nn.Sequential)
        yield from islice(self.backbone, 10)

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and torchvision's."""
        return {
            ours: (*theirs, ours.replace("backbone", "features"))
            for ours, theirs in vgg.caffe_names("backbone.").items()
        }


class StagedTrunk(Trunk):
    """A trunk of four stages: proposals from the third (res4), boxes from the fourth (res5).

    Args:
        backbone: with output stride 16.
        preprocessing: what was done to the images.
    """

    backbone: StagedNetwork

    def __init__(self, backbone: StagedNetwork, preprocessing: Preprocessing) -> None:
        channels = backbone.channels
        super().__init__(backbone, channels // 2, channels, preprocessing)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to res4, [N, channels, h, w]."""
        *_, res4 = islice(self.backbone.maps(images), 3)
        return res4

    def deeper(self, shared: Tensor) -> Tensor:
        """res4 to res5, [N, deeper_channels, h, w]."""
        (last,) = self.deeper_layers()
        res5: Tensor = last(shared)
        return res5

    def deeper_layers(self) -> Iterator[nn.Module]:
        """res5."""
        *_, last = self.backbone.stages()
        yield last

    def first_layers(self) -> Iterator[nn.Module]:
        """conv1 and res2."""
        yield self.backbone.conv1
        yield self.backbone.bn1
        yield next(self.backbone.stages())


class ResNetDetectionTrunk(StagedTrunk):
    """A ResNet for detection.

        layer       what                                             stride of the output
        conv1       7x7, 64, stride 2                                2
        pool1       3x3, stride 2, padding 0, rounded up             4
        res2-res4   1024 channels                                    16
        res5        stride 1, dilation 2 in the 3x3s, 2048 channels  16

    Deformable layers have four groups of offsets, from 3x3s with their own dilation.

    Args:
        blocks: `RESNET50` or `RESNET101`.
        deformable_layers: 0, 1, 2, 3 or 6 as in the paper: res5c; res5b, c; res5a, b, c; and the
            last three of res4.
        style: "caffe" as published, or "torchvision" for its weights.
        norm: "frozen" as published, for trained weights; "batch" to train from scratch.
        width: fraction of all channels.
        border: of the deformable layers; "v1" for weights of 2017. See `deformops.deform_conv2d`.

    Raises:
        ValueError: an argument does not fit.

    Source: Dai et al., R-FCN (2016), section 3; Deformable Convolutional Networks (2017), section
    3.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int] = RESNET101,
        *,
        deformable_layers: int = 0,
        style: resnet.Style = "caffe",
        norm: Norm = "frozen",
        width: float = 1.0,
        border: str = "v2",
    ) -> None:
        if deformable_layers not in (0, 1, 2, 3, 6):
            raise ValueError(
                f"deformable_layers: expected 0, 1, 2, 3 or 6, got {deformable_layers}"
            )
        backbone = ResNetTrunk(
            blocks,
            style=style,
            norm=norm,
            width=width,
            output_stride=16,
            deformable_layers=deformable_layers,
            border=border,
            offset_groups=4,
            offset_dilation=None,
        )
        super().__init__(backbone, MXNET_BGR if style == "caffe" else TORCHVISION_RGB)

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and torchvision's."""
        assert isinstance(self.backbone, ResNetTrunk)
        names = resnet.caffe_names(self.backbone.blocks, "backbone.")
        return {ours: (*theirs, ours.removeprefix("backbone.")) for ours, theirs in names.items()}


class AlignedInceptionResNetDetectionTrunk(StagedTrunk):
    """`AlignedInceptionResNetTrunk` for detection: stage 5 with dilation 2 and no stride.

    Args:
        norm: batch normalisation that learns ("batch") or not ("frozen").
        width: fraction of all channels.
    """

    def __init__(self, *, norm: Norm = "frozen", width: float = 1.0) -> None:
        backbone = AlignedInceptionResNetTrunk(norm=norm, width=width, output_stride=16)
        super().__init__(backbone, MXNET_BGR)
