"""Receptive fields of windows, sampling points, effective dilation, displaced parts."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from deformops.analysis import (
    Window,
    displaced_parts,
    effective_dilation,
    effective_dilation_by_size,
    receptive_field,
    sampling_points,
)
from deformops.ops import deform_conv2d, deform_roi_pool

CONV3 = Window(3, padding=1)
POOL2 = Window(2, stride=2)
VGG_CONV5_3 = [CONV3, CONV3, POOL2] * 2 + [CONV3, CONV3, CONV3, POOL2] * 2 + [CONV3] * 3
ZF_CONV5 = [
    Window(7, stride=2, padding=3),
    Window(3, stride=2, padding=1),
    Window(5, stride=2, padding=2),
    Window(3, stride=2, padding=1),
    *[CONV3] * 3,
]
ALEXNET_POOL5 = [
    Window(11, stride=4),
    Window(3, stride=2),
    Window(5, padding=2),
    Window(3, stride=2),
    *[CONV3] * 3,
    Window(3, stride=2),
]


@pytest.mark.parametrize(
    ("windows", "size"),
    [
        ([Window(3, stride=2), Window(3)], 7),
        ([Window(3, stride=1), Window(3)], 5),
        ([Window(3, stride=1), Window(3, dilation=2)], 7),
    ],
    ids=["pooling with stride", "without", "without, then with holes"],
)
def test_holes_win_back_what_the_stride_gave(windows: list[Window], size: int) -> None:
    assert receptive_field(windows).size == (size, size)


@pytest.mark.parametrize(
    ("windows", "size", "stride"),
    [
        (VGG_CONV5_3, 196, 16),
        ([*VGG_CONV5_3, POOL2], 212, 32),
        ([*VGG_CONV5_3, CONV3], 228, 16),
        ([*VGG_CONV5_3, POOL2, Window(7)], 404, 32),
        (ZF_CONV5, 139, 16),
        ([*ZF_CONV5, CONV3], 171, 16),
        (ALEXNET_POOL5, 195, 32),
        ([*ALEXNET_POOL5, Window(6)], 355, 32),
    ],
    ids=["VGG conv5_3", "pool5", "RPN", "fc6", "ZF conv5", "ZF RPN", "AlexNet pool5", "fc6"],
)
def test_receptive_fields_of_known_networks(windows: list[Window], size: int, stride: int) -> None:
    field = receptive_field(windows)
    assert (field.size, field.stride) == ((size, size), (stride, stride))


def test_empty_stack_sees_the_pixel_itself() -> None:
    field = receptive_field([])
    assert (field.size, field.stride, field.box((3, 4))) == ((1, 1), (1, 1), (3, 4, 3, 4))
    assert field.center((3, 4)) == (3.0, 4.0)


def test_box_is_where_the_gradient_is() -> None:
    windows = [
        Window((3, 2), stride=(2, 1), padding=(1, 0), dilation=(2, 3)),
        Window((2, 3), stride=(1, 2), padding=(0, 2)),
        Window(3, stride=2, padding=1, dilation=(1, 2)),
    ]
    image = torch.zeros(1, 1, 60, 70, requires_grad=True)
    features = image
    for window in windows:
        (kh, sh, ph, dh), (kw, sw, pw, dw) = window.axis(0), window.axis(1)
        features = torch.conv2d(
            features, torch.ones(1, 1, kh, kw), None, (sh, sw), (ph, pw), (dh, dw)
        )
    position = (4, 6)
    (gradient,) = torch.autograd.grad(features[0, 0, 4, 6], image)
    rows, columns = gradient[0, 0].nonzero().unbind(1)
    top, left, bottom, right = receptive_field(windows).box(position)
    assert (top, left) == (int(rows.min()), int(columns.min()))
    assert (bottom, right) == (int(rows.max()), int(columns.max()))
    assert receptive_field(windows).center(position) == ((top + bottom) / 2, (left + right) / 2)


@pytest.mark.parametrize(
    ("name", "value"),
    [("kernel_size", 0), ("stride", (1, 0)), ("padding", -1), ("dilation", 1.5), ("stride", (1,))],
)
def test_window_names_the_entry_that_is_wrong(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=name):
        Window(**({"kernel_size": 3} | {name: value}))  # type: ignore[arg-type]


def test_three_layers_have_729_points() -> None:
    points = sampling_points([CONV3] * 3, [None] * 3, (20, 30))
    assert points.shape == (729, 2)
    assert points.dtype == torch.float64
    sums = torch.cartesian_prod(*[torch.tensor([-1, 0, 1])] * 3).sum(1)
    counts = {value: int((sums == value).sum()) for value in range(-3, 4)}
    for axis, centre in ((0, 20), (1, 30)):
        for value, count in counts.items():
            assert int((points[:, axis] == centre + value).sum()) == 27 * count


def test_regular_points_fill_the_receptive_field() -> None:
    windows = [Window((3, 2), (2, 1), (1, 0), (2, 3)), Window((2, 3), (1, 2), (0, 2))]
    points = sampling_points(windows, [None, None], (4, 6))
    top, left, bottom, right = receptive_field(windows).box((4, 6))
    assert points.amin(0).tolist() == [top, left]
    assert points.amax(0).tolist() == [bottom, right]


def test_constant_offsets_shift_the_cloud_exactly() -> None:
    windows = [CONV3, Window(3, stride=2, padding=1), Window(3, padding=2, dilation=2)]
    jumps = [1, 1, 2]
    shifts = torch.tensor([[0.25, -1.5], [3.0, 0.125], [-0.75, 2.5]], dtype=torch.float64)
    offsets = [shift.repeat(9)[:, None, None].expand(18, 12, 14) for shift in shifts]
    position = (5, 6)
    moved = sampling_points(windows, list(offsets), position)
    regular = sampling_points(windows, [None] * 3, position)
    total = sum(jump * shift for jump, shift in zip(jumps, shifts, strict=True))
    assert torch.equal(moved, regular + total)


def test_one_layer_reads_where_the_formula_says() -> None:
    window = Window((2, 3), stride=(2, 1), padding=(1, 2), dilation=(3, 1))
    offset = torch.randn(2 * 6 * 2, 5, 7, dtype=torch.float64)
    points = sampling_points([window], [offset], (3, 4), offset_group=1)
    for tap in range(6):
        i, j = divmod(tap, 3)
        dy, dx = (float(offset[2 * (6 + tap) + axis, 3, 4]) for axis in (0, 1))
        assert points[tap].tolist() == [3 * 2 - 1 + i * 3 + dy, 4 * 1 - 2 + j * 1 + dx]


def affine_offsets(generator: torch.Generator, height: int, width: int) -> Tensor:
    """Offsets of each tap that are affine over the map: interpolating them is exact."""
    ramp = torch.linspace(-1, 1, height)[:, None], torch.linspace(-1, 1, width)[None]
    a, b, c = torch.randn(3, 18, 1, 1, generator=generator, dtype=torch.float64)
    return a + 0.5 * b * ramp[0] + 0.5 * c * ramp[1]


def test_points_are_where_the_layers_look() -> None:
    """The gradient of a unit of averaging layers has the points' mean as its centre of mass."""
    generator = torch.Generator().manual_seed(3)
    windows = [CONV3, Window(3, stride=2, padding=2, dilation=2), CONV3]
    image = torch.zeros(1, 1, 40, 44, dtype=torch.float64, requires_grad=True)
    features, offsets = image, []
    for window in windows:
        _, stride, padding, dilation = window.axis(0)
        height, width = ((side - 1) // stride + 1 for side in features.shape[2:])
        offsets.append(affine_offsets(generator, height, width))
        features = deform_conv2d(
            features,
            offsets[-1][None],
            torch.ones(1, 1, 3, 3, dtype=torch.float64) / 9,
            stride=stride,
            padding=padding,
            dilation=dilation,
        )
    (gradient,) = torch.autograd.grad(features[0, 0, 10, 11], image)
    mass = gradient[0, 0]
    assert float(mass.sum().detach()) == pytest.approx(1, abs=1e-12)
    rows, columns = (torch.arange(side, dtype=torch.float64) for side in mass.shape)
    centre = torch.stack([(mass.sum(1) * rows).sum(), (mass.sum(0) * columns).sum()])
    points = sampling_points(windows, list(offsets), (10, 11))
    torch.testing.assert_close(points.mean(0), centre, atol=1e-9, rtol=0)


def test_whole_offsets_count_every_pixel_that_is_read() -> None:
    generator = torch.Generator().manual_seed(4)
    image = torch.zeros(1, 1, 40, 44, dtype=torch.float64, requires_grad=True)
    features, offsets = image, []
    for _ in range(3):
        moves = torch.randint(-3, 4, (18, 1, 1), generator=generator).double()
        offsets.append(moves.expand(18, 40, 44))
        ones = torch.ones(1, 1, 3, 3, dtype=torch.float64)
        features = deform_conv2d(features, offsets[-1][None], ones, padding=1)
    (gradient,) = torch.autograd.grad(features[0, 0, 20, 21], image)
    counts = torch.zeros(40, 44, dtype=torch.float64)
    for y, x in sampling_points([CONV3] * 3, list(offsets), (20, 21)).long().tolist():
        counts[y, x] += 1
    assert torch.equal(gradient[0, 0], counts)


def test_several_positions_are_followed_at_once() -> None:
    offset = torch.randn(18, 9, 9)
    positions = torch.tensor([[2.0, 3.0], [4.5, 6.25]])
    both = sampling_points([CONV3] * 2, [offset, offset], positions)
    assert both.shape == (2, 81, 2)
    for points, (y, x) in zip(both, positions.tolist(), strict=True):
        assert torch.equal(points, sampling_points([CONV3] * 2, [offset, offset], (y, x)))


def test_offsets_between_pixels_are_interpolated_and_held_beyond_the_map() -> None:
    offset = torch.zeros(2, 2, 2, dtype=torch.float64)
    offset[0] = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    layer = Window(1)
    places = torch.tensor([[0.0, 0.5], [0.25, 0.75], [-4.0, 9.0], [7.0, 0.0]])
    moved = sampling_points([layer], [offset], places)[:, 0, 0] - places[:, 0]
    assert moved.tolist() == [0.5, 1.25, 1.0, 2.0]


def test_offsets_that_are_not_numbers_give_points_that_are_not() -> None:
    offset = torch.zeros(18, 5, 5)
    offset[0, 2, 2] = math.nan
    points = sampling_points([CONV3, CONV3], [offset, offset], (2, 2))
    assert points[:9, 0].isnan().all()  # the first tap of the upper layer leads nowhere
    assert not points[80].isnan().any()


@pytest.mark.parametrize(
    ("offsets", "position", "match"),
    [
        ([None], (1, 1), r"offsets: expected one entry for each of 2 windows, got 1"),
        ([None, torch.zeros(17, 4, 4)], (1, 1), r"offsets\[1\]: expected \[2 \* G \* 9"),
        ([torch.zeros(1, 18, 4, 4), None], (1, 1), r"offsets\[0\]"),
        ([None, None], (1, 1, 1), r"position: expected \(y, x\)"),
    ],
)
def test_sampling_points_names_what_does_not_fit(
    offsets: list[Tensor | None], position: tuple[float, float], match: str
) -> None:
    with pytest.raises(ValueError, match=match):
        sampling_points([CONV3, CONV3], offsets, position)


def test_sampling_points_names_a_group_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="offset_group"):
        sampling_points([CONV3], [torch.zeros(36, 4, 4)], (1, 1), offset_group=2)


@pytest.mark.parametrize("dilation", [1, 2, 6])
def test_regular_windows_have_their_dilation(dilation: int) -> None:
    spread = effective_dilation(torch.zeros(2, 36, 3, 5), dilation=dilation)
    assert torch.equal(spread, torch.full((2, 2, 3, 5), float(dilation)))


def test_effective_dilation_is_the_mean_of_adjacent_distances() -> None:
    offset = torch.randn(2, 2 * 2 * 6, 3, 4, dtype=torch.float64)
    spread = effective_dilation(offset, (2, 3), (2, 5))
    n, group, y, x = 1, 1, 2, 3
    place = {}
    for tap in range(6):
        i, j = divmod(tap, 3)
        channel = 2 * (group * 6 + tap)
        dy, dx = offset[n, channel, y, x], offset[n, channel + 1, y, x]
        place[i, j] = (2 * i + float(dy), 5 * j + float(dx))
    distances = [
        math.dist(place[i, j], place[i + di, j + dj])
        for i, j in place
        for di, dj in ((1, 0), (0, 1))
        if (i + di, j + dj) in place
    ]
    assert len(distances) == 7
    assert float(spread[n, group, y, x]) == pytest.approx(sum(distances) / 7, rel=1e-12)


def test_effective_dilation_says_what_does_not_fit() -> None:
    with pytest.raises(ValueError, match="kernel_size"):
        effective_dilation(torch.zeros(1, 2, 3, 3), 1)
    with pytest.raises(ValueError, match="offset"):
        effective_dilation(torch.zeros(1, 20, 3, 3))


def test_effective_dilation_by_the_size_of_objects() -> None:
    """Filters are on the smallest box that holds their centre."""
    places = torch.stack(torch.meshgrid(torch.arange(4.0), torch.arange(5.0), indexing="ij"), -1)
    dilation = torch.arange(20.0).reshape(4, 5)
    boxes = torch.tensor([[0, 0, 3, 3], [1, 1, 1, 2], [0, 0, 4, 0]])  # areas 16, 2 and 5
    found = effective_dilation_by_size(dilation, 8 * places, 8 * boxes, (2 * 8, 32))
    # The areas of the boxes are counted in pixels: 25 * 25, 9 * 17 and 33 * 1.
    on = {
        "small": [6.0, 11.0, 0.0, 1.0, 2.0, 3.0, 4.0],
        "medium": [5.0, 7.0, 8.0, 10.0, 12.0, 13.0, 15.0, 16.0, 17.0, 18.0],
        "large": [],
        "background": [9.0, 14.0, 19.0],
    }
    for name, values in on.items():
        wanted = torch.tensor(values, dtype=torch.float64)
        assert found[name].filters == len(values)
        if values:
            assert found[name].mean == pytest.approx(float(wanted.mean()))
            assert found[name].std == pytest.approx(float(wanted.std(correction=0)))
        else:
            assert math.isnan(found[name].mean)
    # Ends are included: a box from 0 to 31 has the area that is no longer small.
    edge = effective_dilation_by_size(dilation, places, torch.tensor([[0, 0, 31, 31]]))
    assert (edge["small"].filters, edge["medium"].filters) == (0, 20)
    # A regular grid has its dilation everywhere, whatever the objects; groups are filters, too.
    regular = effective_dilation(torch.zeros(1, 36, 4, 5), dilation=2)[0]
    for name, spread in effective_dilation_by_size(regular, 8 * places, 8 * boxes, (2, 28)).items():
        if spread.filters:
            assert (name, spread.mean, spread.std) == (name, 2.0, 0.0)
    assert effective_dilation_by_size(dilation, places, boxes[:0])["background"].filters == 20
    with pytest.raises(ValueError, match=r"places: expected \[4, 5, 2\]"):
        effective_dilation_by_size(dilation, places[:3], boxes)
    with pytest.raises(ValueError, match=r"boxes: expected \[L, 4\]"):
        effective_dilation_by_size(dilation, places, boxes[0])


def test_parts_of_a_box() -> None:
    box = torch.tensor([[10.0, 20.0, 29.0, 59.0]])  # 20 x 40 pixels
    in_place = displaced_parts(box, None, (2, 4))
    assert in_place.shape == (1, 2, 4, 4)
    assert in_place[0, 0, 0].tolist() == [9.5, 19.5, 14.5, 39.5]
    assert in_place[0, 1, 3].tolist() == [24.5, 39.5, 29.5, 59.5]
    offset = torch.zeros(1, 2, 2, 1)
    offset[0, :, 1, 0] = torch.tensor([0.5, -1.0])  # right by 0.05 widths, up by 0.1 heights
    moved = displaced_parts(box, offset, (2, 4))
    assert torch.equal(moved[:, 0], in_place[:, 0])
    assert torch.equal(moved[0, 1], in_place[0, 1] + torch.tensor([1.0, -4.0, 1.0, -4.0]))
    # Twice the box, twice the shift; the scale of the map does not matter.
    double = displaced_parts(torch.tensor([[0, 10.0, 20.0, 49.0, 99.0]]), offset, (2, 4), 1 / 16)
    assert (double[0, 1, 0] - displaced_parts(box, None, (2, 4))[0, 1, 0]).tolist() == [
        *(2.0, 12.0, 7.0, 32.0),
    ]
    mmcv = displaced_parts(box - 0.25, offset * 2, 1, offset_scale=0.2, semantics="mmcv")
    assert mmcv[0, 0, 0].tolist() == [9.25, 19.25, 28.25, 58.25]


@pytest.mark.parametrize("semantics", ["dcn", "mmcv"])
@pytest.mark.parametrize("scale", [1.0, 0.25])
def test_parts_are_what_deformable_pooling_averages(semantics: str, scale: float) -> None:
    """On maps of coordinates, pooling returns the means of the places that it samples."""
    size, samples = 40, 4
    ramp = torch.arange(size, dtype=torch.float64)
    maps = torch.stack(torch.meshgrid(ramp, ramp, indexing="ij"))[None]  # y, x
    boxes = torch.tensor([[0, 10.0, 11.5, 18.0, 20.0], [0, 9.0, 9.0, 22.0, 17.0]]) / scale
    boxes[:, 0] = 0
    offset = torch.rand(2, 2, 3, 2, dtype=torch.float64) - 0.5
    pooled = deform_roi_pool(
        maps, boxes, offset, (3, 2), scale, samples_per_bin=samples, semantics=semantics
    )
    parts = displaced_parts(boxes, offset, (3, 2), scale, semantics=semantics)
    x1, y1, x2, y2 = parts.unbind(-1)
    # Where the middle of the samples is in a bin; and cell u of the map covers 1 / scale pixels.
    middle = 0.5 - (0.5 / samples if semantics == "dcn" else 0)
    for channel, (low, high) in enumerate(((y1, y2), (x1, x2))):
        in_map = (low + middle * (high - low) + 0.5) * scale - 0.5
        torch.testing.assert_close(pooled[:, channel], in_map, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ((torch.zeros(1, 3), None, 2), r"boxes: expected \[K, 4\] or \[K, 5\], got \[1, 3\]"),
        ((torch.zeros(1, 4), torch.zeros(1, 4, 2, 2), 2), r"offset: expected \[1, 2, part_y"),
        ((torch.zeros(1, 4), torch.zeros(2, 2, 2, 2), 2), r"offset: expected \[1, 2, part_y"),
    ],
)
def test_parts_say_what_does_not_fit(arguments: tuple[Any, ...], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        displaced_parts(*arguments)
    with pytest.raises(ValueError, match="semantics: expected 'dcn' or 'mmcv'"):
        displaced_parts(torch.zeros(1, 4), None, 2, semantics="rfcn")
