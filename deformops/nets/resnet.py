"""ResNet-50 and ResNet-101, as classifiers and as trunks of dense networks."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from deformops.nets._stages import Norm, StagedNetwork, batch_norm
from deformops.nets._width import scaled
from deformops.nn import AtrousConv2d, CaffeMaxPool2d, DeformConv2dPack
from deformops.nn import _initial as initial

#: Blocks of res2, res3, res4 and res5.
RESNET50 = (3, 4, 6, 3)
RESNET101 = (3, 4, 23, 3)

Style = Literal["caffe", "torchvision"]


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1, each with batch normalisation, around which the input goes to the sum.

    Args:
        in_channels: C.
        channels: F, of the 3x3; four times as many come out.
        stride: of the block.
        dilation: of the 3x3.
        style: the stride is on the first 1x1 ("caffe") or on the 3x3 ("torchvision").
        norm: batch normalisation that learns ("batch") or not ("frozen").
        project: whether the input goes through a 1x1 of its own.

    Shapes: input [N, C, H, W], output [N, 4 F, H / stride, W / stride].
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        style: Style = "torchvision",
        norm: Norm = "batch",
        project: bool = False,
    ) -> None:
        super().__init__()
        normalisation = batch_norm(norm)
        first, second = (stride, 1) if style == "caffe" else (1, stride)
        self.conv1 = nn.Conv2d(in_channels, channels, 1, first, bias=False)
        self.bn1 = normalisation(channels)
        self.conv2: nn.Module = AtrousConv2d(
            channels, channels, 3, second, padding=dilation, dilation=dilation, bias=False
        )
        self.bn2 = normalisation(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = normalisation(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(in_channels, 4 * channels, 1, stride, bias=False),
                normalisation(4 * channels),
            )
            if project
            else None
        )

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, 4 F, H / stride, W / stride]."""
        output = self.relu(self.bn1(self.conv1(input)))
        output = self.relu(self.bn2(self.conv2(output)))
        output = self.bn3(self.conv3(output))
        shortcut = input if self.downsample is None else self.downsample(input)
        result: Tensor = self.relu(output + shortcut)
        return result

    def deform(self, border: str, offset_groups: int, offset_dilation: int | None) -> None:
        """Makes the 3x3 a deformable one; the options are those of `DeformConv2dPack`."""
        conv = self.conv2
        if not isinstance(conv, AtrousConv2d):
            raise TypeError(f"deform: expected a plain 3x3, got {type(conv).__name__}")
        stride, dilation = conv.stride[0], conv.dilation[0]
        self.conv2 = DeformConv2dPack(
            conv.in_channels,
            conv.out_channels,
            3,
            stride,
            dilation,
            dilation,
            offset_groups=offset_groups,
            bias=False,
            border=border,
            offset_dilation=offset_dilation,
        )
        self.conv2.weight = nn.Parameter(conv.weight)


class ResNetTrunk(StagedNetwork):
    """All of a ResNet but its classifier.

        layer     names           at width 1            stride of the output
        conv1     conv1, bn1      7x7, 64, stride 2     2
        pool1     -               3x3, stride 2         4
        res2      layer1          3 blocks, 256         4
        res3      layer2          4 blocks, 512         8
        res4      layer3          6 or 23, 1024         16, at most `output_stride`
        res5      layer4          3 blocks, 2048        32, at most `output_stride`

    Where a stage gives up its stride, its 3x3s get holes instead: dilation 2 and, at output stride
    8, 4. Caffe's style does so in all blocks; torchvision's lets the first block keep the dilation
    of the stage before. The state_dict is that of torchvision without `fc`. He's initialisation.

    Args:
        blocks: of the four stages: `RESNET50` or `RESNET101`.
        style: "caffe": strides on the 1x1s, sizes after pool1 rounded up. "torchvision": strides on
            the 3x3s, rounded down.
        width: fraction of all channels.
        norm: batch normalisation that learns ("batch") or not ("frozen"). Frozen makes sense only
            with weights that were trained.
        output_stride: 8, 16 or 32.
        pool_padding: of pool1; None: 0 in Caffe's style, 1 in torchvision's, as their classifiers
            have it. DeepLab's is 1 in Caffe's style, too.
        deformable_layers: how many of the last 3x3s are deformable: 3 are those of res5, 6 also
            those of the last three blocks of res4.
        border: see `deformops.deform_conv2d`.
        offset_groups: groups of channels with offsets of their own: 1 published for segmentation, 4
            for detection.
        offset_dilation: of the 3x3s that predict offsets: 1 published for segmentation, None (that
            of the layer) for detection.

    Shapes: input [N, 3, H, W], output [N, 2048 * width, H / output_stride, W / output_stride].

    Raises:
        ValueError: an argument does not fit.

    Source: He, Zhang, Ren and Sun, Deep Residual Learning for Image Recognition (2016), table 1.
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int] = RESNET50,
        *,
        style: Style = "torchvision",
        width: float = 1.0,
        norm: Norm = "batch",
        output_stride: int = 32,
        pool_padding: int | None = None,
        deformable_layers: int = 0,
        border: str = "v2",
        offset_groups: int = 1,
        offset_dilation: int | None = 1,
    ) -> None:
        if style not in ("caffe", "torchvision"):
            raise ValueError(f"style: expected 'caffe' or 'torchvision', got {style!r}")
        if output_stride not in (8, 16, 32):
            raise ValueError(f"output_stride: expected 8, 16 or 32, got {output_stride}")
        if not 0 <= deformable_layers <= sum(blocks):
            raise ValueError(
                f"deformable_layers: expected 0 to {sum(blocks)}, got {deformable_layers}"
            )
        pool, usual = (CaffeMaxPool2d, 0) if style == "caffe" else (nn.MaxPool2d, 1)
        super().__init__(width, norm, pool(3, 2, usual if pool_padding is None else pool_padding))
        self.blocks = blocks
        self.output_stride = output_stride
        reached, dilation = 4, 1
        for stage, count in enumerate(blocks, start=1):
            planes = scaled(64 * 2 ** (stage - 1), width)
            stride, first_dilation = (1 if stage == 1 else 2), dilation
            if stride == 2 and reached == output_stride:
                stride, dilation = 1, 2 * dilation
                first_dilation = dilation if style == "caffe" else first_dilation
            reached *= stride
            layer = nn.Sequential()
            for block in range(count):
                layer.append(
                    Bottleneck(
                        self.channels,
                        planes,
                        stride=stride if block == 0 else 1,
                        dilation=first_dilation if block == 0 else dilation,
                        style=style,
                        norm=norm,
                        project=block == 0,
                    )
                )
                self.channels = 4 * planes
            self.add_module(f"layer{stage}", layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initial.he(module, "fan_out")
        bottlenecks = [module for module in self.modules() if isinstance(module, Bottleneck)]
        for bottleneck in bottlenecks[len(bottlenecks) - deformable_layers :]:
            bottleneck.deform(border, offset_groups, offset_dilation)


class ResNet(ResNetTrunk):
    """A ResNet with its classifier: global mean, then one fully connected layer.

    ResNet-50 has 25,557,032 parameters, ResNet-101 44,549,160. The state_dict and, in torchvision's
    style, the outputs are those of torchvision.

    Args:
        blocks: of the four stages: `RESNET50` or `RESNET101`.
        classes: outputs.
        **options: those of `ResNetTrunk`.

    Shapes: input [N, 3, H, W], output [N, classes].
    """

    def __init__(
        self,
        blocks: tuple[int, int, int, int] = RESNET50,
        classes: int = 1000,
        **options: Any,
    ) -> None:
        super().__init__(blocks, **options)
        self.fc = nn.Linear(self.channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, classes]."""
        scores: Tensor = self.fc(super().forward(images).mean((2, 3)))
        return scores

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What Caffe's files call the layers."""
        return {**caffe_names(self.blocks, ""), "fc": ("fc1000",)}


def resnet50(classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-50; options are those of `ResNetTrunk`."""
    return ResNet(RESNET50, classes, **options)


def resnet101(classes: int = 1000, **options: Any) -> ResNet:
    """ResNet-101; options are those of `ResNetTrunk`."""
    return ResNet(RESNET101, classes, **options)


def caffe_names(blocks: tuple[int, int, int, int], prefix: str) -> dict[str, tuple[str, ...]]:
    """What Caffe's files call the layers of a ResNet: res2a_branch2a and so on."""
    names: dict[str, tuple[str, ...]] = {
        f"{prefix}conv1": ("conv1",),
        f"{prefix}bn1": ("bn_conv1", "scale_conv1"),
    }

    def both(ours: str, conv: str, norm: str, block: str, branch: str) -> None:
        place = f"{block}_branch{branch}"
        names[f"{ours}.{conv}"] = (f"res{place}",)
        names[f"{ours}.{norm}"] = (f"bn{place}", f"scale{place}")

    for stage, count in enumerate(blocks, start=1):
        for index in range(count):
            ours = f"{prefix}layer{stage}.{index}"
            block = f"{stage + 1}{_letter(index, count, blocks)}"
            for number, letter in enumerate("abc", start=1):
                both(ours, f"conv{number}", f"bn{number}", block, f"2{letter}")
            if index == 0:
                both(f"{ours}.downsample", "0", "1", block, "1")
    return names


def _letter(index: int, count: int, blocks: tuple[int, ...]) -> str:
    """a, b, c, ... in ResNet-50; a, b1, b2, ... in the longer stages of ResNet-101."""
    if blocks == RESNET101 and count > 3 and index > 0:
        return f"b{index}"
    return "abcdef"[index]
