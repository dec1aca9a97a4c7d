"""Receptive fields of layers and of whole networks: true and effective ones."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deformops import nn as dnn
from deformops import ops as dops
from deformops.analysis import (
    Window,
    effective_field,
    effective_receptive_field,
    field_of_view,
    receptive_field,
    trace_receptive_fields,
    uniform_std,
    windows_of,
)
from deformops.nets.alexnet import AlexNetFeatures
from deformops.nets.detection.aligned_inception_resnet import AlignedInceptionResNetTrunk
from deformops.nets.detection.zf import ZFFeatures
from deformops.nets.fcn import FCN
from deformops.nets.vgg import VGG16Features

CONV3 = Window(3, padding=1)
SLIM = 0.0625
# Its normalisation looks at neighbouring pixels, which the published numbers do not count.
ZF = [layer for layer in ZFFeatures(SLIM) if not isinstance(layer, dnn.LocalResponseNorm)]


def support(gradient: Tensor) -> tuple[int, int, int, int]:
    """The first and last row and column where a gradient [1, C, H, W] is not zero."""
    rows, columns = gradient[0].abs().sum(0).nonzero().unbind(1)
    return int(rows.min()), int(columns.min()), int(rows.max()), int(columns.max())


@pytest.mark.parametrize(
    ("layers", "size", "stride"),
    [
        ([VGG16Features(SLIM)], 212, 32),
        ([VGG16Features(SLIM), nn.Conv2d(8, 8, 7)], 404, 32),
        (ZF, 139, 16),
        ([*ZF, nn.Conv2d(8, 8, 3, padding=1)], 171, 16),
        ([ZFFeatures(SLIM)], 159, 16),
        ([AlexNetFeatures(SLIM)], 195, 32),
        ([AlexNetFeatures(SLIM), nn.ReLU(), nn.Conv2d(8, 8, 6)], 355, 32),
        ([VGG16Features(SLIM, atrous=True)], 227, 8),
        ([VGG16Features(SLIM, atrous=True), dnn.AtrousConv2d(8, 8, 3, dilation=12)], 419, 8),
    ],
    ids=[
        "VGG pool5",
        "fc6",
        "ZF",
        "ZF RPN",
        "ZF with its normalisation",
        "AlexNet pool5",
        "fc6",
        "DeepLab pool5",
        "fc6",
    ],
)
def test_networks_of_this_package(layers: list[nn.Module], size: int, stride: int) -> None:
    field = receptive_field(layers)
    assert (field.size, field.stride) == ((size, size), (stride, stride))


def test_field_of_view_is_that_of_the_deeplab_paper_and_not_the_true_field() -> None:
    column = [field_of_view(k, r) for k, r in ((7, 4), (4, 4), (4, 8), (3, 12))]
    assert column == [224, 128, 224, 224]
    # VGG-16 whose last two pools lost their stride, with 2x2 pools; fc6 of k taps and rate r.
    atrous = [CONV3, CONV3, Window(2, 2)] * 2 + [CONV3] * 3 + [Window(2, 2)]
    atrous += [CONV3] * 3 + [Window(2)] + [Window(3, dilation=2)] * 3 + [Window(2, dilation=2)]
    true = [
        receptive_field([*atrous, Window(k, dilation=r)]).size[0]
        for k, r in ((7, 4), (4, 4), (4, 8), (3, 12))
    ]
    assert true == [404, 308, 404, 404]


def test_windows_of_all_kinds_of_layers() -> None:
    torchvision = pytest.importorskip("torchvision")
    layers = nn.Sequential(
        nn.Conv2d(3, 4, (3, 5), stride=(2, 1), padding=(1, 2), dilation=(1, 3)),
        nn.Sequential(nn.BatchNorm2d(4), nn.GELU(), dnn.Dropout(), dnn.LocalResponseNorm()),
        nn.Conv2d(4, 4, 4, padding="same", dilation=3),
        nn.Conv2d(4, 4, 3, padding="valid"),
        nn.MaxPool2d(3, 2, 1, dilation=2),
        nn.AvgPool2d(2),
        dnn.CaffeMaxPool2d(3, 2),
        dnn.LocalResponseNorm(5, form="within"),
        dnn.DeformConv2dPack(4, 4, 3, padding=2, dilation=2),
        torchvision.ops.DeformConv2d(4, 4, 3, stride=2),
    )
    assert [tuple(map(window.axis, (0, 1))) for window in windows_of(layers)] == [
        ((3, 2, 1, 1), (5, 1, 2, 3)),
        ((4, 1, 4, 3),) * 2,
        ((3, 1, 0, 1),) * 2,
        ((3, 2, 1, 2),) * 2,
        ((2, 2, 0, 1),) * 2,
        ((3, 2, 0, 1),) * 2,
        ((5, 1, 2, 1),) * 2,
        ((3, 1, 2, 2),) * 2,
        ((3, 2, 0, 1),) * 2,
    ]
    assert windows_of([CONV3, layers[5]]) == [CONV3, Window((2, 2), (2, 2), (0, 0), (1, 1))]


class Reversed(nn.Sequential):
    def forward(self, input: Tensor) -> Tensor:
        return input.flip(-1)


@pytest.mark.parametrize(
    "layer",
    [
        nn.ConvTranspose2d(3, 3, 4, 2),
        dnn.BilinearDeconv2d(3, 4, 2),
        nn.Upsample(scale_factor=2),
        nn.MultiheadAttention(4, 1),
        nn.Unfold(3),
        Reversed(),
        nn.Linear(3, 3),
    ],
    ids=lambda layer: type(layer).__name__,
)
def test_layers_without_one_window_are_named(layer: nn.Module) -> None:
    with pytest.raises(TypeError, match=f"{type(layer).__name__}.*trace_receptive_fields"):
        receptive_field([nn.Conv2d(3, 3, 3), layer])


class Of(nn.Module):
    """A function as a network."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, image: Tensor) -> Tensor:
        return self.function(image)


def conv(image: Tensor, kernel: tuple[int, int] = (3, 3), **options: Any) -> Tensor:
    weight = image.new_ones(1, image.shape[1], *kernel)
    return F.conv2d(image, weight, **options)


def deconv(image: Tensor, kernel: int, **options: Any) -> Tensor:
    weight = image.new_ones(image.shape[1], 1, kernel, kernel)
    return F.conv_transpose2d(image, weight, **options)


def skip(image: Tensor) -> Tensor:
    """As FCN: a coarse map is enlarged, cut and added to a finer one."""
    fine = conv(image, stride=2, padding=1).relu_()
    coarse = F.avg_pool2d(conv(fine, padding=1), 2, ceil_mode=True)
    return fine + deconv(coarse, 4, stride=2)[..., 1 : 1 + fine.shape[2], 1:][..., : fine.shape[3]]


def rearranged(image: Tensor) -> Tensor:
    """Rows and columns as other dimensions, and back."""
    last = conv(image, stride=(1, 2)).permute(0, 2, 3, 1).flip(1)  # [N, H, W, C]
    split = last.unsqueeze(0).squeeze(0)[:, 2:, ::2].transpose(1, 3)  # [N, C, W, H]
    top, bottom = torch.cat([split, split.roll(0, 1)], 1).chunk(2, dim=1)
    return (top * bottom).mT.reshape(1, 1, 1, *top.mT.shape[2:])[:, 0]


def joined(image: Tensor) -> Tensor:
    """Beside each other, on each other, and summed up over columns."""
    wide = torch.cat([conv(image, (3, 1)), conv(image, stride=(1, 5))], dim=3)
    return torch.stack([wide, wide.mean(3, keepdim=True).expand_as(wide).square()]).sum(0)


CASES: dict[str, Callable[[Tensor], Tensor]] = {
    "convolution": lambda x: conv(x, (3, 2), stride=(2, 1), padding=(2, 1), dilation=(1, 3)),
    "its transpose": lambda x: deconv(x, 3, stride=3, padding=1, dilation=2, output_padding=1),
    "padding": lambda x: conv(F.pad(x, (3, 1, 2, 0), mode="reflect"), stride=2),
    "replication": lambda x: conv(F.pad(x, (2, 2, 1, 0), mode="replicate")),
    "zeros": lambda x: conv(F.pad(x, (5, -2, 3, 4))),
    "mean pooling": lambda x: F.avg_pool2d(x, (3, 2), (2, 3), 1, ceil_mode=True),
    "adaptive pooling": lambda x: F.adaptive_avg_pool2d(x, (5, 4)),
    "bilinear": lambda x: F.interpolate(x, scale_factor=(2.5, 3), mode="bilinear"),
    "recomputed scale": lambda x: F.interpolate(x, (40, 17), mode="bilinear"),
    "corners": lambda x: F.interpolate(x, (45, 57), mode="bilinear", align_corners=True),
    "nearest": lambda x: F.interpolate(x, (31, 13)),
    "bicubic": lambda x: F.interpolate(x, scale_factor=1.7, mode="bicubic"),
    "antialias": lambda x: F.interpolate(x, (8, 50), mode="bilinear", antialias=True),
    "skip": skip,
    "rearranged": rearranged,
    "joined": joined,
    "pixel shuffle": lambda x: F.pixel_shuffle(x.expand(-1, 4, -1, -1) * 1.0, 2),
    "atrous": lambda x: dops.atrous_conv2d(x, x.new_ones(1, 1, 3, 3), dilation=3, padding=2),
}


@pytest.mark.parametrize("case", CASES)
def test_boxes_are_where_the_gradient_is(case: str) -> None:
    network = Of(CASES[case])
    image = 1 + torch.rand(1, 1, 23, 29, dtype=torch.float64)
    image.requires_grad_()
    values = network(image)
    fields = trace_receptive_fields(network, image.detach())[""]
    assert fields.size == values.shape[-2:]
    height, width = fields.size
    generator = torch.Generator().manual_seed(0)
    places = [(0, 0), (height - 1, width - 1), (0, width - 1), (height // 2, width // 2)]
    places += [
        (
            int(torch.randint(height, (), generator=generator)),
            int(torch.randint(width, (), generator=generator)),
        )
        for _ in range(12)
    ]
    for row, column in places:
        (gradient,) = torch.autograd.grad(
            values[0, 0, row, column], image, retain_graph=True, allow_unused=True
        )
        if not gradient.any():
            assert fields.box((row, column)) is None
        else:
            assert fields.box((row, column)) == support(gradient), (row, column)


def test_traced_fields_are_those_of_the_formula() -> None:
    """VGG-16, on the device where nothing is computed and fields do not meet the border."""
    net = FCN(classes=2, width=SLIM, stride=32).to("meta")
    traced = trace_receptive_fields(net, torch.empty(1, 3, 1000, 1100, device="meta"))
    theory = receptive_field([net.features, net.fc6])
    fields = traced["fc6"]
    assert theory.size == (404, 404)
    for position in ((15, 16), (17, 20)):
        assert fields.box(position) == theory.box(position)
        (place,) = fields.places(torch.tensor([position])).tolist()
        assert tuple(place) == theory.center(position)
        assert fields.positions(torch.tensor([place])).tolist() == [list(position)]
    # A pixel of the result lies between two cells, which are 32 pixels apart.
    top, left, bottom, right = traced[""].box((500, 501))
    assert (bottom - top + 1, right - left + 1) == (436, 436)
    (place,) = traced[""].places(torch.tensor([[500, 501]])).tolist()
    assert place == [500, 501]


def test_cells_of_the_aligned_network_lie_at_multiples_of_the_stride() -> None:
    """Through every branch."""
    net = AlignedInceptionResNetTrunk(norm="batch", width=SLIM).to("meta")
    fields = trace_receptive_fields(net, torch.empty(1, 3, 161, 97, device="meta"))[""]
    assert fields.rows.place.tolist() == [32 * row for row in range(6)]
    assert fields.columns.place.tolist() == [32 * column for column in range(4)]


def test_an_operator_that_may_look_anywhere_is_named_where_it_matters() -> None:
    class Sorting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Conv2d(1, 1, 3)
            self.after = nn.Conv2d(1, 1, 3)

        def forward(self, image: Tensor) -> Tensor:
            return self.after(self.before(image).sort(dim=-1).values)

    traced = trace_receptive_fields(Sorting(), torch.rand(1, 1, 9, 9))
    assert traced["before"].box((2, 3)) == (2, 3, 4, 5)
    for layer in ("after", ""):
        with pytest.raises(ValueError, match=f"layer '{layer}'.*aten::sort may look anywhere"):
            traced[layer]
    with pytest.raises(ValueError, match=r"layer: expected one that ran.*'before'.*got 'behind'"):
        traced["behind"]
    with pytest.raises(ValueError, match=r"position.*\(7, 7\), got 7 on axis 1"):
        traced["before"].box((0, 7))
    with pytest.raises(ValueError, match="inputs: expected images of one size, got none"):
        trace_receptive_fields(Sorting(), torch.rand(3))


def test_a_part_that_is_written_is_not_followed() -> None:
    def half(image: Tensor) -> Tensor:
        values = conv(image)
        values[..., :4, :] += conv(image, (5, 5), padding=1)[..., :4, :]
        return values * 2

    with pytest.raises(ValueError, match="writes a part of it"):
        trace_receptive_fields(Of(half), torch.rand(1, 1, 9, 9))[""]


def test_values_that_see_all() -> None:
    network = nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)
    )
    fields = trace_receptive_fields(network, torch.rand(1, 1, 9, 8))[""]
    assert (fields.dims, fields.box((0, 0))) == ((None, None), (0, 0, 8, 7))


def test_tracing_leaves_the_network_as_it_was() -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2).eval(), nn.BatchNorm2d(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    trace_receptive_fields(network, torch.rand(2, 1, 9, 8))
    effective_receptive_field(network, torch.rand(1, 1, 9, 8), (3, 3))
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not any(
        module._forward_hooks or module._forward_pre_hooks for module in network.modules()
    )


def uniform(depth: int, **options: Any) -> nn.Sequential:
    layers = [nn.Conv2d(1, 1, 3, padding=1, bias=False, **options) for _ in range(depth)]
    for layer in layers:
        nn.init.constant_(layer.weight, 1 / 9)
    return nn.Sequential(*layers).double()


@pytest.mark.parametrize("depth", [1, 2, 3, 5, 24])
def test_a_uniform_stack_has_the_variance_of_its_boxes(depth: int) -> None:
    """2 n / 3: the width grows as the square root of the depth."""
    image = torch.rand(1, 1, 53, 57, dtype=torch.float64)
    field = effective_receptive_field(uniform(depth), image, (26, 28))
    wanted = torch.eye(2, dtype=torch.float64) * 2 * depth / 3
    torch.testing.assert_close(field.covariance, wanted, atol=1e-9, rtol=0)
    assert field.center == pytest.approx((26, 28), abs=1e-9)
    assert field.std == pytest.approx(uniform_std([Window(3)] * depth), rel=1e-9)
    assert field.share((26 - depth, 28 - depth, 26 + depth, 28 + depth)) == pytest.approx(1)
    if depth < 20:  # then the corners' weights are so small that the sum does not feel them
        assert field.radius(1.0) == pytest.approx(math.hypot(depth, depth))


def test_strides_and_holes_widen_the_uniform_stack() -> None:
    layers = nn.Sequential(
        nn.Conv2d(1, 1, 4, stride=2), nn.AvgPool2d(3, 2), nn.Conv2d(1, 1, (3, 1), dilation=(2, 1))
    ).double()
    for parameter in layers.parameters():
        nn.init.constant_(parameter, 0.5)
    field = effective_receptive_field(layers, torch.rand(1, 1, 60, 60).double(), (4, 5))
    wanted = [math.sqrt(15 / 12 + 4 * 8 / 12 + 16 * 4 * 8 / 12), math.sqrt(15 / 12 + 4 * 8 / 12)]
    assert list(uniform_std(layers)) == pytest.approx(wanted)
    assert field.std == pytest.approx(wanted)
    assert field.center == pytest.approx(receptive_field(layers).center((4, 5)))


def test_radius_holds_its_share() -> None:
    mass = torch.zeros(21, 21)
    mass[10, 10], mass[10, 13], mass[6, 7] = 2, 1, 1
    field = effective_field(mass)
    assert field.center == (9.0, 10.0)
    assert field.radius(0.5) == pytest.approx(1)
    assert field.radius(0.75) == pytest.approx(math.hypot(1, 3))
    assert field.radius(1) == pytest.approx(math.hypot(3, 3))
    assert field.share((10, 10, 10, 13)) == pytest.approx(0.75)
    with pytest.raises(ValueError, match="share: expected"):
        field.radius(0)


def test_one_channel_of_one_layer() -> None:
    first, last = nn.Conv2d(2, 2, 3), nn.Conv2d(2, 1, 5)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[0, 0, 0, 0] = first.weight[1, 1, 2, 1] = 1.0
    network = nn.Sequential(first, nn.ReLU(), last)
    image = 1 + torch.rand(1, 2, 9, 9)
    one = effective_receptive_field(network, image, (3, 4), layer="0", channel=0)
    assert one.mass.nonzero().tolist() == [[3, 4]]
    both = effective_receptive_field(network, image, (3, 4), layer="0")
    assert both.mass.nonzero().tolist() == [[3, 4], [5, 5]]


def test_effective_field_says_what_does_not_fit() -> None:
    network, image = nn.Sequential(nn.Conv2d(1, 1, 3), nn.Flatten()), torch.rand(1, 1, 9, 9)
    with pytest.raises(ValueError, match="layer: expected the name of a module, got '7'"):
        effective_receptive_field(network, image, (0, 0), layer="7")
    with pytest.raises(ValueError, match=r"layer: expected one that returns a map.*\[1, 49\]"):
        effective_receptive_field(network, image, (0, 0))
    with pytest.raises(ValueError, match=r"position: expected.*\(7, 7\), got \(7, 0\)"):
        effective_receptive_field(network, image, (7, 0), layer="0")
    with pytest.raises(ValueError, match="images: the unit does not depend on them"):
        effective_receptive_field(
            Of(lambda image: torch.ones(1, 1, 3, 3, requires_grad=True) * 2), image, (0, 0)
        )
    with pytest.raises(ValueError, match="gradient: expected numbers that are not all 0"):
        effective_field(torch.zeros(3, 3))
