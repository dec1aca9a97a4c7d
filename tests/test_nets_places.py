"""Where networks look: ramps of coordinates, patches, receptive fields, crops."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from fractions import Fraction
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from deformops import nets
from deformops.analysis import Window, receptive_field
from deformops.nets.deeplab import filled_up
from deformops.nets.grid import add_where_both
from deformops.nn import (
    BilinearDeconv2d,
    CaffeAvgPool2d,
    CaffeMaxPool2d,
    LocalResponseNorm,
)

# --- crops ----------------------------------------------------------------------------------------


def test_crops_are_those_of_the_published_networks() -> None:
    with torch.device("meta"):
        assert nets.FCN(stride=32).crop == 19
        net = nets.FCN(stride=16)
        assert (net.crop_pool4, net.crop) == (5, 27)
        net = nets.FCN(stride=8)
        assert (net.crop_pool4, net.crop_pool3, net.crop) == (5, 9, 31)
        assert nets.FCNAlexNet().crop == 18
        places = [(int(grid.step), float(grid.first)) for grid in net.features.grids()][2:]
        assert places == [(8, -95.5), (16, -91.5), (32, -83.5)]


def test_smallest_padding() -> None:
    """One pixel of padding less than needed is refused, and needed is what leaves a score."""
    with torch.device("meta"):
        for stride, pad in ((32, 81), (16, 73), (8, 69)):
            assert nets.FCN(stride=stride, pad=pad).crop == 0
            with pytest.raises(ValueError, match=f"pad: expected 1, or enough .*, got {pad - 1}"):
                nets.FCN(stride=stride, pad=pad - 1)
        assert nets.FCNAlexNet(pad=82).crop == 0
        with pytest.raises(ValueError, match="pad: expected enough for every pixel, got 81"):
            nets.FCNAlexNet(pad=81)


def test_crops_of_caffes_coordinate_maps() -> None:
    """Its own cases: convolution, pool and deconvolution; different steps; half and lost cells."""
    image = nets.Grid()
    with torch.device("meta"):
        conv = nn.Conv2d(1, 1, 3)
        at = image.after([conv, nn.MaxPool2d(2), nn.ReLU(), nn.Conv2d(1, 1, 1)])
        assert at.after([BilinearDeconv2d(1, 4, 2)]).crop(onto=image) == 0
        at = image.after([conv, nn.MaxPool2d(4)])
        assert at.after([BilinearDeconv2d(1, 8, 4)]).crop(onto=image) == 1
        for padding in range(4):
            padded = image.after([nn.Conv2d(1, 1, 3, padding=padding), nn.MaxPool2d(4)])
            assert padded.after([BilinearDeconv2d(1, 8, 4)]).crop(onto=image) == 1 + padding
        third = image.after([conv, nn.MaxPool2d(3), BilinearDeconv2d(1, 4, 2)])
        with pytest.raises(ValueError, match=r"crop: expected a step of 1 pixels, got 3/2"):
            third.crop(onto=image)
        half = image.after([nn.Conv2d(1, 1, 2)])
        with pytest.raises(ValueError, match=r"crop: expected a whole number of cells, got -1/2"):
            half.crop(onto=image)
        with pytest.raises(ValueError, match=r"crop: expected a number of cells from 0 on, got -1"):
            image.after([conv]).crop(onto=image)
        assert image.after([nn.Conv2d(1, 1, 3, dilation=4)]).first == Fraction(4)


def test_every_crop_is_inside() -> None:
    """The sizes of 1 to 2099 pixels, in numbers: no map ends before the one it is cut to."""

    def sizes(n: int, layers: Iterable[nn.Module]) -> int:
        for layer in layers:
            if isinstance(layer, CaffeMaxPool2d):
                n = layer.output_size(n)
            elif isinstance(layer, nn.Conv2d):
                n = (n + 2 * int(layer.padding[0]) - layer.kernel_size[0]) // layer.stride[0] + 1
            elif isinstance(layer, BilinearDeconv2d):
                n = (n - 1) * layer.stride + layer.kernel_size
        return n

    with torch.device("meta"):
        net, alexnet, slim = nets.FCN(), nets.FCNAlexNet(), nets.FCN(pad=1)
    to_pool3, to_pool4 = list(net.features)[:17], list(net.features)[17:24]
    published = {224: 8, 500: 16, 375: 12, 1: 1}
    for n in range(1, 2100):
        pool3 = sizes(n, to_pool3)
        pool4 = sizes(pool3, to_pool4)
        score = sizes(sizes(pool4, list(net.features)[24:]), [net.fc6])
        assert score == published.get(n, score)
        up2 = sizes(score, [net.upscore2])
        assert up2 + net.crop_pool4 <= pool4
        up4 = sizes(up2, [net.upscore_pool4])
        assert up4 + net.crop_pool3 <= pool3
        assert n + net.crop <= sizes(up4, [net.upscore])
        assert n + 19 <= sizes(score, [BilinearDeconv2d(1, 64, 32)])
        assert n + 27 <= sizes(up2, [BilinearDeconv2d(1, 32, 16)])
        layers = [*alexnet.features, alexnet.fc6, alexnet.upscore]
        assert n + alexnet.crop <= sizes(n, layers)
        pool3, pool4, pool5 = (-(-n // step) for step in (8, 16, 32))
        assert pool4 - slim.crop_pool4 <= 2 * pool5 + 2
        assert pool3 - slim.crop_pool3 <= 2 * pool4 + 2
        assert n + slim.crop <= 8 * pool3 + 8


def test_maps_are_added_where_both_are() -> None:
    small, large = torch.ones(1, 1, 3, 4), torch.arange(56.0).reshape(1, 1, 7, 8)
    assert torch.equal(add_where_both(small, large, 2), 1 + large[..., 2:5, 2:6])
    assert torch.equal(add_where_both(large, small, -2), 1 + large[..., 2:5, 2:6])


# --- ramps: a network that only carries coordinates gives every pixel its own ---------------------


class MeanForMax(CaffeMaxPool2d):
    """The mean over the windows of a maximum."""

    def forward(self, input: Tensor) -> Tensor:
        return CaffeAvgPool2d(self.kernel_size, self.stride, self.padding)(input)


def carrying(net: nn.Module) -> Any:
    """The network with kernels that hand on two channels, from the middle of their windows.

    Maxima become means, of which the centre is that of the window, normalisations disappear, and of
    residual blocks what goes around them is left.
    """
    net = deepcopy(net).double().eval()
    for name, module in list(net.named_modules()):
        if isinstance(module, (CaffeMaxPool2d, nn.MaxPool2d)):
            mean = MeanForMax if isinstance(module, CaffeMaxPool2d) else nn.AvgPool2d
            net.set_submodule(name, mean(module.kernel_size, module.stride, module.padding))
        elif isinstance(module, LocalResponseNorm):
            net.set_submodule(name, nn.Identity())
        elif isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
        elif isinstance(module, nets.Bottleneck):
            nn.init.zeros_(module.bn3.weight)
        elif isinstance(module, nn.Conv2d):
            centre = [slice((k - 1) // 2, k // 2 + 1) for k in module.kernel_size]
            for parameter in module.parameters():
                nn.init.zeros_(parameter)
            with torch.no_grad():
                for channel in range(2):
                    taps = module.weight[channel, channel, centre[0], centre[1]]
                    taps.fill_(1 / taps.numel())
    return net


def ramps(size: int) -> Tensor:
    """An image of row and column, from 1000 on so that nothing is negative."""
    line = 1000 + torch.arange(size, dtype=torch.float64)
    rows, columns = line[:, None].expand(size, size), line.expand(size, size)
    return torch.stack([rows, columns, torch.zeros_like(rows)])[None]


def middle(net: nn.Module, size: int, margin: int, factor: float = 1.0) -> Tensor:
    """What the network says in the middle of the ramps, minus the ramps times a factor."""
    image = ramps(size)
    with torch.no_grad():
        scores = net(image)
    assert scores.shape == (1, 2, size, size)
    return (scores - factor * image[:, :2])[..., margin:-margin, margin:-margin]


@pytest.mark.parametrize(("stride", "pad"), [(32, 100), (16, 100), (8, 100), (8, 90), (8, 1)])
def test_ramps_through_fcn(stride: int, pad: int) -> None:
    """Every map that is added brings the coordinates of the pixels themselves.

    Each has a weight of its own, so that no two mistakes make one right sum.
    """
    net = carrying(nets.FCN(2, stride=stride, width=1 / 32, pad=pad))
    weights = (1.0, 1.37, 1.61)
    for score, weight in zip(net.head(), weights, strict=False):
        with torch.no_grad():
            score.weight *= weight
    want = sum(weights[: {32: 1, 16: 2, 8: 3}[stride]])
    assert middle(net, 384, 160, want).abs().max() < 1e-9


def test_at_once_scales_the_finer_maps() -> None:
    net = carrying(nets.FCN(2, at_once=True, width=1 / 32, pad=1))
    assert middle(net, 384, 160, 1.0101).abs().max() < 1e-9


def test_ramps_through_fcn_alexnet() -> None:
    net = carrying(nets.FCNAlexNet(2, width=1 / 24))
    assert middle(net, 448, 180).abs().max() < 1e-9


@pytest.mark.parametrize("size", [321, 250])
def test_ramps_through_deeplab(size: int) -> None:
    net = carrying(nets.DeepLabVGG(2, width=1 / 32))
    assert middle(net, size, 60).abs().max() < 1e-9
    four = carrying(nets.DeepLabVGG(2, width=1 / 32, rates=(1, 2, 3, 4)))
    assert middle(four, size, 60, 4.0).abs().max() < 1e-9


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("style", ["caffe", "torchvision"])
def test_ramps_through_deeplab_on_a_resnet(style: Any, output_stride: int) -> None:
    net = carrying(
        nets.DeepLabResNet(
            2,
            blocks=nets.RESNET50,
            style=style,
            width=1 / 16,
            rates=(1,),
            output_stride=output_stride,
        )
    )
    assert middle(net, 193, 60).abs().max() < 1e-9


def test_ramps_through_multiple_scales() -> None:
    """All scales say the same at the same place, so that the maximum is what each says."""
    net = nets.DeepLabResNet(2, blocks=nets.RESNET50, width=1 / 16, rates=(1,))
    scales = nets.MultiScale(carrying(net))
    assert middle(scales, 321, 90).abs().max() < 1e-9
    with torch.no_grad():
        scores = scales.all_scores(ramps(321))
    assert [score.shape[-1] for score in scores] == [41, 31, 21, 41]


@pytest.mark.parametrize("layers", [0, 3])
def test_ramps_through_deformable_deeplab(layers: int) -> None:
    """The published cut takes cells at 16 i + 2 to lie at 16 i + 7.5."""
    net = nets.DeformableDeepLab(2, blocks=nets.RESNET50, deformable_layers=layers, width=1 / 16)
    shifted = middle(carrying(net), 256, 80)
    torch.testing.assert_close(shifted, torch.full_like(shifted, -5.5))


# --- receptive fields -----------------------------------------------------------------------------


def windows(layers: Iterable[nn.Module]) -> list[Window]:
    """The geometry of layers as `deformops.analysis` takes it."""
    return [
        Window(*(getattr(layer, name) for name in ("kernel_size", "stride", "padding")))
        if isinstance(layer, CaffeMaxPool2d)
        else Window(layer.kernel_size, layer.stride, layer.padding, layer.dilation)  # type: ignore[arg-type]
        for layer in layers
        if isinstance(layer, (CaffeMaxPool2d, nn.Conv2d))
    ]


def test_receptive_fields() -> None:
    """Size and stride of published networks: VGG, FCN, AlexNet, DeepLab."""
    with torch.device("meta"):
        fcn, alexnet, deeplab = nets.FCN(), nets.FCNAlexNet(), nets.DeepLabVGG()
    for layers, size, stride in (
        (list(fcn.features)[:30], 196, 16),
        (list(fcn.features), 212, 32),
        ([*fcn.features, fcn.fc6], 404, 32),
        (list(alexnet.features), 195, 32),
        ([*alexnet.features, alexnet.fc6], 355, 32),
        (list(deeplab.features), 227, 8),
        ([*deeplab.features, *deeplab.aspp.branches[0].children()], 419, 8),
    ):
        field = receptive_field(windows(layers))
        assert (field.size, field.stride) == ((size, size), (stride, stride))
    field = receptive_field(windows([*deeplab.features, *deeplab.aspp.branches[0].children()]))
    assert field.center((5, 7)) == (40, 56)


# --- patches --------------------------------------------------------------------------------------


@pytest.mark.parametrize("pad", [1, 100])
def test_patches_say_what_the_whole_image_says(pad: int) -> None:
    """Dense inference shares work and changes nothing: a whole network, evaluated both ways.

    A pixel of the result depends on cells of fc6 up to 32 pixels away, each of which sees 404.
    """
    net = nets.FCN(3, width=1 / 16, pad=pad).eval()
    for score in net.head():
        nn.init.normal_(score.weight, std=0.1)
    image = 50 * torch.randn(1, 3, 544, 576)
    with torch.no_grad():
        whole = net(image)
        for top, left in ((0, 0), (32, 64), (32, 32)):
            patch = net(image[..., top : top + 512, left : left + 512])
            rows, columns = slice(240, 272), slice(240, 272)
            want = whole[..., top + 240 : top + 272, left + 240 : left + 272]
            torch.testing.assert_close(patch[..., rows, columns], want, rtol=1e-4, atol=1e-4)
    assert whole.std() > 0.1


def test_fully_connected_layers_slide() -> None:
    """A convolution made of a linear layer is that layer on every crop."""
    linear = nn.Linear(4 * 3 * 2, 5)
    conv = nets.convolutionalize(linear, (3, 2))
    image = torch.randn(2, 4, 7, 6)
    output = conv(image)
    assert output.shape == (2, 5, 5, 5)
    for y in range(5):
        for x in range(5):
            crop = image[..., y : y + 3, x : x + 2].flatten(1)
            torch.testing.assert_close(output[..., y, x], linear(crop))
    with pytest.raises(ValueError, match=r"kernel_size: expected one whose taps divide 24, got"):
        nets.convolutionalize(linear, 5)


# --- filling up, sizes of DeepLab -----------------------------------------------------------------


def test_images_are_filled_up_behind() -> None:
    image = torch.rand(1, 3, 30, 41)
    filled = filled_up(image, 8)
    assert filled.shape == (1, 3, 33, 41)
    assert torch.equal(filled[..., :30, :], image)
    assert filled[..., 30:, :].count_nonzero() == 0
    assert filled_up(filled, 8) is filled


def test_scores_of_multiple_scales() -> None:
    """Sizes at 321, one network for all, the maximum of what they say; the published 241."""
    net = nets.build_segmenter("deeplab-msc-resnet101", 3, width=1 / 64, norm="batch").eval()
    seen: list[tuple[int, ...]] = []
    assert isinstance(net, nets.MultiScale)
    net.net.backbone.register_forward_pre_hook(lambda _, images: seen.append(images[0].shape[2:]))
    with torch.no_grad():
        *scores, fused = net.all_scores(torch.randn(1, 3, 321, 321))
    assert seen == [(321, 321), (241, 241), (161, 161)]
    assert [score.shape[-1] for score in scores] == [41, 31, 21]
    resized = [
        nn.functional.interpolate(s, (41, 41), mode="bilinear", align_corners=True) for s in scores
    ]
    assert torch.equal(fused, torch.maximum(torch.maximum(*resized[:2]), resized[2]))
    assert len(list(net.parameters())) == len(list(net.net.parameters()))
    with pytest.raises(ValueError, match="net: expected align_corners=True"):
        nets.MultiScale(nets.DeepLabResNet(3, blocks=(1, 1, 1, 1), width=0.05, align_corners=False))
    with pytest.raises(ValueError, match="net: expected output stride 8, got 16"):
        nets.MultiScale(nets.DeepLabResNet(3, width=1 / 32, output_stride=16))


@pytest.mark.parametrize("name", ["deeplab-largefov", "deeplab-resnet50"])
def test_borders_on_borders(name: str) -> None:
    """Without aligned corners, images are as they are: cells share them evenly."""
    torch.manual_seed(0)
    net: Any = nets.build_segmenter(name, 3, width=0.05, align_corners=False).double().eval()
    images = torch.randn(1, 3, 50, 61, dtype=torch.float64)
    cells = net.coarse(images)
    want = nn.functional.interpolate(cells, (50, 61), mode="bilinear", align_corners=False)
    torch.testing.assert_close(net(images), want)
    net.align_corners = True
    assert not torch.allclose(net(images), want)


def test_four_times_denser_than_the_classifier() -> None:
    """Pools that keep their size give a map with stride 8: 41 cells at 321, zoomed to 321."""
    dense = nets.VGG16Features(1 / 32, atrous=True)
    plain = nets.VGG16Features(1 / 32)
    dense.load_state_dict(plain.state_dict(), strict=True)
    image = torch.randn(1, 3, 321, 321)
    with torch.no_grad():
        sizes = [pool.shape[-1] for pool in dense.pools(image)]
        assert sizes == [161, 81, 41, 41, 41]
        assert [pool.shape[-1] for pool in plain.pools(image)] == [161, 81, 41, 21, 11]
    dilations = [conv.dilation for conv in dense if isinstance(conv, nn.Conv2d)]
    assert dilations == 10 * [(1, 1)] + 3 * [(2, 2)]
