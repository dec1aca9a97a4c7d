"""DeepLab: atrous convolution, atrous spatial pyramid pooling, multi-scale inputs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deformops.nets import resnet, vgg
from deformops.nets._stages import Norm
from deformops.nets._width import scaled
from deformops.nets.grid import cut
from deformops.nets.preprocessing import TORCHVISION_RGB, Preprocessing
from deformops.nets.resnet import RESNET101, ResNetTrunk
from deformops.nets.segmenter import Segmenter
from deformops.nets.transplant import decimated
from deformops.nets.vgg import VGG16Features
from deformops.nn import (
    ASPP,
    BilinearDeconv2d,
    CaffeAvgPool2d,
    DeformConv2dPack,
    Interp,
    interp,
)
from deformops.nn import _initial as initial

#: The rates of the pyramid: small and large.
ASPP_S = (2, 4, 8, 12)
ASPP_L = (6, 12, 18, 24)
#: What DeepLab's Caffe subtracts, and what the deformable networks in MXNet do.
DEEPLAB_BGR = Preprocessing((104.008, 116.669, 122.675), order="BGR")
MXNET_BGR = Preprocessing((103.06, 115.90, 123.15), order="BGR")


class DeepLabVGG(Segmenter):
    """DeepLab on VGG-16: LargeFOV, and ASPP with several rates.

        layer              what                                             at 321
        conv1_1 ... pool3  3x3 pools with padding 1, stride 2               161, 81, 41
        conv4_x, pool4     3x3 pool, stride 1                               41
        conv5_x, pool5     dilation 2; 3x3 pool, stride 1                   41
        fc6                3x3, dilation r, 1024, ReLU, dropout             41
        fc7                1x1, 1024, ReLU, dropout                         41
        fc8                1x1, classes                                     41
        Interp             zoom 8, corners on corners                       321

    fc6, fc7 and fc8 exist once for each rate, and the scores are summed. LargeFOV has the rate 12,
    ASPP-S 2, 4, 8 and 12, ASPP-L 6, 12, 18 and 24. Parameters at 21 classes: 20,505,429 with one
    rate and 37,877,652 with four. Cell i lies at pixel 8 i. Images whose sizes are not 8 k + 1 are
    filled up to such with zeros, the mean, behind the last row and column.

    Args:
        classes: C.
        rates: r, one for each branch.
        width: fraction of all channels but the classes.
        average_pool: the 3x3 mean after pool5 of the first version's LargeFOV (pool5a).
        dropout: the probability that a value of fc6 and fc7 is left out.
        align_corners: whether scores are enlarged with corners on corners, as published; if not,
            with borders on borders, of images that are not filled up, as ports to torch do it.
        preprocessing: what was done to the images.

    Shapes: images [N, 3, H, W], scores [N, C, H, W].

    Source: Chen et al., DeepLab (2017), sections 3.1, 3.2 and 4.1.
    """

    def __init__(
        self,
        classes: int = 21,
        *,
        rates: Sequence[int] = (12,),
        width: float = 1.0,
        average_pool: bool = False,
        dropout: float = 0.5,
        align_corners: bool = True,
        preprocessing: Preprocessing = DEEPLAB_BGR,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.preprocessing = preprocessing
        self.features = VGG16Features(width, atrous=True)
        self.pool5a = CaffeAvgPool2d(3, 1, 1) if average_pool else nn.Identity()
        self.aspp = ASPP(
            self.features.channels[-1],
            classes,
            rates,
            hidden=scaled(1024, width),
            dropout=dropout,
        )
        self.interp = Interp(zoom=8)
        self.align_corners = align_corners

    def coarse(self, images: Tensor) -> Tensor:
        """[N, 3, 8 h - 7, 8 w - 7] to scores [N, C, h, w]."""
        scores: Tensor = self.aspp(self.pool5a(self.features(images)))
        return scores

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H, W]."""
        return _dense(self, images)

    def head(self) -> Iterator[nn.Module]:
        """fc8 of all branches: the layers that no classifier has."""
        for branch in self.aspp.branches:
            yield branch.get_submodule("fc8")

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What Caffe's files call the layers."""
        names = vgg.caffe_names("features.")
        for i in range(len(self.aspp.branches)):
            suffix = "" if len(self.aspp.branches) == 1 else f"_{i + 1}"
            for ours, theirs in (("fc6", "fc6"), ("fc7", "fc7"), ("fc8", "fc8_voc12")):
                names[f"aspp.branches.{i}.{ours}"] = (f"{theirs}{suffix}",)
        return names

    def adapted(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """VGG-16's fc6 and fc7 decimated, by a choice of its own for each branch."""
        channels, hidden = self.features.channels[-1], self.aspp.hidden or 0
        for layers in (("fc6", "fc7"), ("classifier.0", "classifier.3")):
            large = weights.get(f"{layers[0]}.weight")
            if large is None or large[0].numel() != channels * 49 or len(large) < hidden:
                continue
            fc6, fc7 = ((weights[f"{name}.weight"], weights[f"{name}.bias"]) for name in layers)
            kept = {n: value for n, value in weights.items() if n.rpartition(".")[0] not in layers}
            for i in range(len(self.aspp.branches)):
                small = decimated(fc6, fc7, channels=channels, kept=hidden)
                for name, (weight, bias) in zip(("fc6", "fc7"), small, strict=True):
                    (published,) = self.published_names()[f"aspp.branches.{i}.{name}"]
                    kept[f"{published}.weight"], kept[f"{published}.bias"] = weight, bias
            return kept
        return weights


class DeepLabResNet(Segmenter):
    """DeepLab on a ResNet, with ASPP-L.

        layer        what                                                  at 321
        conv1        7x7, stride 2                                         161
        pool1        3x3, stride 2, padding 1, rounded up                  81
        res2, res3   strides 1 and 2, on the first 1x1                     81, 41
        res4, res5   stride 1, dilations 2 and 4 in the 3x3s               41
        ASPP         3x3, classes, dilations 6, 12, 18, 24, summed         41
        Interp       zoom 8, corners on corners                            321

    44,048,532 parameters with ResNet-101 and 21 classes. Cell i lies at pixel 8 i; images are
    filled up as for `DeepLabVGG`.

    Args:
        classes: C.
        blocks: `RESNET50` or `RESNET101`.
        style: "caffe" as published, or "torchvision" for its weights.
        norm: "frozen" as published, for trained weights; "batch" to train from scratch.
        width: fraction of all channels but the classes.
        output_stride: pixels from cell to cell; published is 8.
        rates: of the pyramid, at output stride 8; halved at 16.
        align_corners: whether scores are enlarged with corners on corners, as published; if not,
            with borders on borders, of images that are not filled up, as ports to torch do it.
        preprocessing: what was done to the images; None: what the style's weights were trained
            with.

    Shapes: images [N, 3, H, W], scores [N, C, H, W].

    Raises:
        ValueError: an argument does not fit.

    Source: Chen et al., DeepLab (2017), section 4.1.2.
    """

    def __init__(
        self,
        classes: int = 21,
        *,
        blocks: tuple[int, int, int, int] = RESNET101,
        style: resnet.Style = "caffe",
        norm: Norm = "frozen",
        width: float = 1.0,
        output_stride: int = 8,
        rates: Sequence[int] = ASPP_L,
        align_corners: bool = True,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.preprocessing = preprocessing or _of_style(style, DEEPLAB_BGR)
        self.backbone = ResNetTrunk(
            blocks,
            style=style,
            norm=norm,
            width=width,
            output_stride=output_stride,
            pool_padding=1,
        )
        finer = output_stride // 8
        self.aspp = ASPP(self.backbone.channels, classes, [max(1, r // finer) for r in rates])
        self.interp = Interp(zoom=output_stride)
        self.align_corners = align_corners

    def coarse(self, images: Tensor) -> Tensor:
        """[N, 3, 8 h - 7, 8 w - 7] to scores [N, C, h, w] (at output stride 8)."""
        scores: Tensor = self.aspp(self.backbone(images))
        return scores

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H, W]."""
        return _dense(self, images)

    def head(self) -> Iterator[nn.Module]:
        """The pyramid: the layers that no classifier has."""
        yield self.aspp

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and torchvision's."""
        names = _backbone_names(self.backbone)
        for i in range(len(self.aspp.branches)):
            names[f"aspp.branches.{i}"] = (f"fc1_voc12_c{i}",)
        return names


class MultiScale(Segmenter):
    """One network on the image at several scales; at every cell the largest score wins.

        scale 1       coarse scores                   41 at 321
        scale 0.75    image shrunk 4, zoomed 3: 241   31, resized to 41
        scale 0.5     image shrunk 2: 161             21, resized to 41
        fused         elementwise maximum             41, zoom 8: 321

    All three share the network. Training has four losses: of each scale before it is resized, and
    of the fused scores. Images are filled up with zeros to 32 k + 1 pixels, at which the scales'
    cells lie on each other.

    Args:
        net: a `DeepLabResNet` with output stride 8 that aligns corners.

    Shapes: images [N, 3, H, W], scores [N, C, H, W].

    Raises:
        ValueError: the network has another output stride, or does not align corners.

    Source: Chen et al., DeepLab (2017), section 3.2 (the first approach).
    """

    def __init__(self, net: DeepLabResNet) -> None:
        super().__init__()
        if net.backbone.output_stride != 8:
            raise ValueError(f"net: expected output stride 8, got {net.backbone.output_stride}")
        if not net.align_corners:
            raise ValueError("net: expected align_corners=True, at which cells of all scales meet")
        self.net = net
        self.scales = nn.ModuleList([Interp(shrink=4, zoom=3), Interp(shrink=2)])
        self.classes = net.classes
        self.preprocessing = net.preprocessing

    def all_scores(self, images: Tensor) -> list[Tensor]:
        """Scores for each loss: of scales 1, 0.75 and 0.5, and fused.

        Args:
            images: [N, 3, H, W].

        Returns:
            [N, C, h, w] each; the first and the last cell of an axis lie on the corner pixels of
            the filled up image.
        """
        images = filled_up(images, 32)
        scores = [self.net.coarse(images)]
        scores += [self.net.coarse(scale(images)) for scale in self.scales]
        size = (scores[0].shape[-2], scores[0].shape[-1])
        fused = torch.stack([interp(score, size) for score in scores]).amax(0)
        return [*scores, fused]

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H, W]."""
        fused = self.all_scores(images)[-1]
        return cut(self.net.interp(fused), 0, images.shape[-2:])

    def head(self) -> Iterator[nn.Module]:
        """The layers that no classifier has."""
        return self.net.head()

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers."""
        return {f"net.{ours}": theirs for ours, theirs in self.net.published_names().items()}


class DeformableDeepLab(Segmenter):
    """DeepLab on a ResNet whose last 3x3s are deformable.

        layer       what                                           stride of the output
        conv1       7x7, stride 2                                  2
        pool1       3x3, stride 2, padding 0, rounded up           4
        res2-res4   strides 1, 2, 2, on the first 1x1              4, 8, 16
        res5        stride 1, dilation 2 in the 3x3s; the last are deformable, with one group of
                    offsets from a 3x3 with dilation 1 that starts at 0                     16
        fc6         1x1, 1024, ReLU                                16
        score       1x1, classes                                   16
        upscore     fixed deconvolution, k 32, stride 16, cut from 8 on                     1

    44,868,747 parameters with ResNet-101, 21 classes and three deformable layers, without the
    deconvolution. As published the cut takes cells to lie at 16 i + 7.5, while those of res5 lie at
    16 i + 2: the trained layers learn the rest. fc6 and score start normally distributed with
    deviation 0.01, biases at 0.

    Args:
        classes: C.
        blocks: `RESNET50` or `RESNET101`.
        deformable_layers: 0, 1, 2, 3 or 6 as in the paper: res5c; res5b, c; res5a, b, c; and the
            last three of res4.
        style: "caffe" as published, or "torchvision" for its weights.
        norm: "frozen" as published, for trained weights; "batch" to train from scratch.
        width: fraction of all channels but the classes.
        output_stride: pixels from cell to cell; published is 16.
        border: of the deformable layers; "v1" for weights of 2017. See `deformops.deform_conv2d`.
        offset_dilation: of the 3x3s that predict offsets: 1 as published, None for that of the
            layer as the paper's text has it.
        preprocessing: what was done to the images; None: what the style's weights were trained
            with.

    Shapes: images [N, 3, H, W], scores [N, C, H, W].

    Raises:
        ValueError: an argument does not fit.

    Source: Dai et al., Deformable Convolutional Networks (2017), section 4.
    """

    def __init__(
        self,
        classes: int = 21,
        *,
        blocks: tuple[int, int, int, int] = RESNET101,
        deformable_layers: int = 3,
        style: resnet.Style = "caffe",
        norm: Norm = "frozen",
        width: float = 1.0,
        output_stride: int = 16,
        border: str = "v2",
        offset_dilation: int | None = 1,
        preprocessing: Preprocessing | None = None,
    ) -> None:
        super().__init__()
        if deformable_layers not in (0, 1, 2, 3, 6):
            raise ValueError(
                f"deformable_layers: expected 0, 1, 2, 3 or 6, got {deformable_layers}"
            )
        self.classes = classes
        self.preprocessing = preprocessing or _of_style(style, MXNET_BGR)
        self.backbone = ResNetTrunk(
            blocks,
            style=style,
            norm=norm,
            width=width,
            output_stride=output_stride,
            deformable_layers=deformable_layers,
            border=border,
            offset_dilation=offset_dilation,
        )
        hidden = scaled(1024, width)
        self.fc6 = nn.Conv2d(self.backbone.channels, hidden, 1)
        self.relu = nn.ReLU(inplace=True)
        self.score = nn.Conv2d(hidden, classes, 1)
        self.upscore = BilinearDeconv2d(classes, 2 * output_stride, output_stride)
        for conv in (self.fc6, self.score):
            initial.normal(conv, std=0.01)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H, W]."""
        height, width = images.shape[-2:]
        # The first pool, without padding, needs two pixels of conv1.
        seen = F.pad(images, (0, max(0, 3 - width), 0, max(0, 3 - height)))
        score = self.score(self.relu(self.fc6(self.backbone(seen))))
        return cut(self.upscore(score), self.upscore.stride // 2, (height, width))

    def deformable_layers(self) -> list[str]:
        """The names of the deformable layers, from the first to the last."""
        return [name for name, layer in self.named_modules() if isinstance(layer, DeformConv2dPack)]

    def head(self) -> Iterator[nn.Module]:
        """The layers that no classifier has, without the offsets, which learn at the base rate."""
        yield self.fc6
        yield self.score

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and torchvision's."""
        return _backbone_names(self.backbone)


def filled_up(images: Tensor, step: int) -> Tensor:
    """Images [N, C, H, W] with zeros behind, so that both sizes are `step` k + 1."""
    height, width = images.shape[-2:]
    below, right = -(height - 1) % step, -(width - 1) % step
    return F.pad(images, (0, right, 0, below)) if below or right else images


def _dense(net: DeepLabVGG | DeepLabResNet, images: Tensor) -> Tensor:
    """Scores [N, C, H, W] of images [N, 3, H, W], from those of the cells."""
    size = images.shape[-2:]
    if net.align_corners:
        return cut(net.interp(net.coarse(filled_up(images, net.interp.zoom))), 0, size)
    return F.interpolate(net.coarse(images), size, mode="bilinear", align_corners=False)


def _of_style(style: str, caffe: Preprocessing) -> Preprocessing:
    return caffe if style == "caffe" else TORCHVISION_RGB


def _backbone_names(trunk: ResNetTrunk) -> dict[str, tuple[str, ...]]:
    """Caffe's names of a trunk's layers, and those they have in a classifier."""
    prefix = "backbone."
    return {
        ours: (*theirs, ours.removeprefix(prefix))
        for ours, theirs in resnet.caffe_names(trunk.blocks, prefix).items()
    }
