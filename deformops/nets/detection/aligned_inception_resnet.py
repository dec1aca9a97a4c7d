"""Aligned-Inception-ResNet: its cells lie where their numbers say."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from deformops.nets._stages import Norm, StagedNetwork, batch_norm
from deformops.nets._width import scaled
from deformops.nn import AtrousConv2d
from deformops.nn import _initial as initial

#: Blocks of the four stages.
BLOCKS = (3, 4, 23, 3)


class InceptionResidualBlock(nn.Module):
    """Two branches side by side, joined by a 1x1, around which the input goes to the sum.

        branch A     1x1, p;      3x3, p
        branch B     1x1, p / 2;  3x3, p / 2;  3x3, p / 2
        joined       both side by side, 3 p / 2;  1x1, 4 p
        shortcut     the input, or its 1x1, 4 p, where the size changes

    Every convolution is followed by batch normalisation and, but for the last and the shortcut, by
    ReLU; what is joined is normalised at once. The stride is on the 3x3 of branch A, on the first
    3x3 of branch B and on the shortcut: all look at the same pixels.

    Args:
        in_channels: C.
        channels: p.
        stride: of the block.
        dilation: of the 3x3s.
        norm: batch normalisation that learns ("batch") or not ("frozen").
        project: whether the shortcut has a 1x1.

    Shapes: input [N, C, H, W], output [N, 4 p, H / stride, W / stride].
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        norm: Norm = "batch",
        project: bool = False,
    ) -> None:
        super().__init__()
        normalisation = batch_norm(norm)
        p, half = channels, max(1, channels // 2)

        def conv1x1(before: int, after: int, stride: int = 1) -> list[nn.Module]:
            return [nn.Conv2d(before, after, 1, stride, bias=False), normalisation(after)]

        def conv3x3(size: int, stride: int = 1) -> nn.Module:
            return AtrousConv2d(size, size, 3, stride, dilation, dilation, bias=False)

        self.branch_a = nn.Sequential(*conv1x1(in_channels, p), nn.ReLU(True), conv3x3(p, stride))
        self.branch_b = nn.Sequential(
            *conv1x1(in_channels, half),
            nn.ReLU(True),
            conv3x3(half, stride),
            normalisation(half),
            nn.ReLU(True),
            conv3x3(half),
        )
        self.joined = nn.Sequential(
            normalisation(p + half), nn.ReLU(True), *conv1x1(p + half, 4 * p)
        )
        self.shortcut = (
            nn.Sequential(*conv1x1(in_channels, 4 * p, stride)) if project else nn.Identity()
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, input: Tensor) -> Tensor:
        """[N, C, H, W] to [N, 4 p, H / stride, W / stride]."""
        branches = torch.cat([self.branch_a(input), self.branch_b(input)], dim=1)
        result: Tensor = self.relu(self.joined(branches) + self.shortcut(input))
        return result


class AlignedInceptionResNetTrunk(StagedNetwork):
    """All of Aligned-Inception-ResNet but its classifier.

        layer     names           what                                  stride of the output
        conv1     conv1, bn1      7x7, 64, stride 2, padding 3          2
        pool1     -               3x3, stride 2, padding 1              4
        stage 2   layer1          3 blocks, p = 64, 256 channels        4
        stage 3   layer2          4 blocks, p = 128, 512                8
        stage 4   layer3          23 blocks, p = 256, 1024              16
        stage 5   layer4          3 blocks, p = 512, 2048               32, at most `output_stride`

    Inception-ResNet's convolutions without padding leave the cells of different layers and places
    in unlike positions; here cell i of every layer is centred at pixel stride * i. At output stride
    16 the 3x3s of stage 5 have dilation 2 instead of a stride. He's initialisation.

    The paper gives the figures (64.3 million parameters, 22.1 % top-1 error) and the idea; the
    table of layers is that of the public rebuild `air101`, which has as many.

    Args:
        norm: batch normalisation that learns ("batch") or not ("frozen").
        width: fraction of all channels.
        output_stride: 16 or 32.
        blocks: of the four stages.

    Shapes: input [N, 3, H, W], output [N, 2048 * width, H / output_stride, W / output_stride].

    Raises:
        ValueError: an argument does not fit.

    Source: Dai et al., Deformable Convolutional Networks (2017), appendix B.
    """

    def __init__(
        self,
        *,
        norm: Norm = "batch",
        width: float = 1.0,
        output_stride: int = 32,
        blocks: tuple[int, int, int, int] = BLOCKS,
    ) -> None:
        if output_stride not in (16, 32):
            raise ValueError(f"output_stride: expected 16 or 32, got {output_stride}")
        super().__init__(width, norm, nn.MaxPool2d(3, 2, 1))
        atrous = output_stride == 16
        for stage, count in enumerate(blocks, start=1):
            p = scaled(64 * 2 ** (stage - 1), width)
            last = stage == len(blocks) and atrous
            layer = nn.Sequential()
            for block in range(count):
                layer.append(
                    InceptionResidualBlock(
                        self.channels,
                        p,
                        stride=2 if block == 0 and stage > 1 and not last else 1,
                        dilation=2 if last else 1,
                        norm=norm,
                        project=block == 0,
                    )
                )
                self.channels = 4 * p
            self.add_module(f"layer{stage}", layer)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                initial.he(module, "fan_out")


class AlignedInceptionResNet(AlignedInceptionResNetTrunk):
    """Aligned-Inception-ResNet with its classifier: 64,381,800 parameters.

    Args:
        classes: outputs.
        norm: see `AlignedInceptionResNetTrunk`.
        width: fraction of all channels.

    Shapes: input [N, 3, H, W], output [N, classes].
    """

    def __init__(self, classes: int = 1000, *, norm: Norm = "batch", width: float = 1.0) -> None:
        super().__init__(norm=norm, width=width)
        self.fc = nn.Linear(self.channels, classes)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, classes]."""
        scores: Tensor = self.fc(super().forward(images).mean((2, 3)))
        return scores
