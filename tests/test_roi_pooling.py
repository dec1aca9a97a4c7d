"""RoI pooling against published numbers, the references, torchvision, and what must be equal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
import torchvision
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import deformops
from tests import reference
from tests.cases import arrange, assert_close, numpy
from tests.devices import Device
from tests.goldens import POOLED, Pooled
from tests.reference import Pooling
from tests.roi_cases import (
    ALL,
    MAXIMA,
    MEANS,
    RoiCase,
    assert_average_close,
    average,
    average_backward,
    make_roi_case,
    roi_cases,
)

INF, NAN = float("inf"), float("nan")


def pool(device: Device, case: RoiCase, **options: Any) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = device.raw.roi_pool(
        case.input, case.boxes, *case.pixel_bins, **options
    )
    return result


# --- published numbers ----------------------------------------------------------------------------


@pytest.mark.parametrize("case", POOLED.values(), ids=POOLED.keys())
def test_golden_values_and_gradients(case: Pooled) -> None:
    image, boxes = torch.from_numpy(case.input).requires_grad_(), torch.from_numpy(case.box)
    options: dict[str, Any] = {"output_size": 2, **case.options}
    if case.op.startswith("deform"):
        options["offset"] = None if case.offset is None else torch.from_numpy(case.offset)
    output = getattr(deformops, case.op)(image, boxes, **options)
    torch.testing.assert_close(output, torch.from_numpy(case.output), rtol=0, atol=1e-12)
    if case.grad_input is not None:
        (gradient,) = torch.autograd.grad(output.sum(), image)
        torch.testing.assert_close(gradient, torch.from_numpy(case.grad_input), rtol=0, atol=1e-12)


# --- references -----------------------------------------------------------------------------------


@given(data=st.data())
def test_raw_average_matches_reference(device: Device, data: st.DataObject) -> None:
    """In every order: these are the double and forward derivatives' building blocks too."""
    case = data.draw(roi_cases(MEANS, dtypes=ALL, orders=True, device=device.type))
    assert_average_close(device, case)


@given(data=st.data())
def test_raw_maximum_matches_reference(device: Device, data: st.DataObject) -> None:
    """The same pixel, and so the same bits."""
    case = data.draw(roi_cases(MAXIMA, dtypes=ALL, device=device.type))
    image, grad = numpy(case.input), numpy(case.grad_output)
    output, index = pool(device, case)
    want, want_index = reference.roi_pool(image, case.rows, case.pooling)
    assert index.dtype == torch.int32
    assert torch.equal(output.cpu().double(), torch.from_numpy(want))
    assert torch.equal(index.cpu().long(), torch.from_numpy(want_index))

    gathered = device.raw.gather_maxima(case.input, case.boxes, index)
    assert torch.equal(gathered, output)
    scattered = device.raw.scatter_maxima(case.grad_output, case.boxes, index, case.input.shape)
    assert_close(
        scattered, reference.scatter_maxima(grad, case.rows, want_index, tuple(case.input.shape))
    )


def test_raw_maximum_without_index(device: Device) -> None:
    case = make_roi_case(Pooling("caffe", (3, 2), 0.5), device=device.type)
    output, index = pool(device, case, want_index=False)
    assert index.shape == (0,)
    assert index.dtype == torch.int32
    assert torch.equal(output, pool(device, case)[0])


@pytest.mark.parametrize("wanted", [(True, False), (False, True), (False, False)], ids=str)
def test_raw_unwanted_gradients_are_empty(device: Device, wanted: tuple[bool, bool]) -> None:
    pooling = Pooling("dcn", (2, 2), 0.5, samples=2)
    case = make_roi_case(pooling, classes=1, channels=5, device=device.type)
    everything = average_backward(device, case)
    got = average_backward(device, case, wanted)
    for one, want, flag in zip(got, everything, wanted, strict=True):
        if flag:
            torch.testing.assert_close(one, want, rtol=1e-12, atol=1e-12)
        else:
            assert one.shape == (0,)


# Channels and bins around the sizes at which kernels switch tiles, vectors and their tails.
SIZES = [(1, (1, 1)), (3, (7, 7)), (16, (3, 5)), (33, (7, 7)), (64, (2, 14)), (129, (6, 6))]


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(("channels", "output_size"), SIZES, ids=str)
def test_raw_sizes_around_tiles(
    device: Device, dtype: torch.dtype, channels: int, output_size: tuple[int, int], layout: str
) -> None:
    for semantics, classes in (("aligned", None), ("dcn", 1), ("caffe", None)):
        case = make_roi_case(
            Pooling(semantics, output_size, 0.37, samples=0 if semantics == "aligned" else 2),
            channels=channels,
            boxes=3,
            input_size=(13, 18),
            classes=classes,
            exact=False,
            dtype=dtype,
            device=device.type,
            layouts={"input": layout, "grad_output": layout},
        )
        if semantics == "caffe":
            want, _ = reference.roi_pool(numpy(case.input), case.rows, case.pooling)
            assert torch.equal(pool(device, case)[0].cpu().double(), torch.from_numpy(want))
        else:
            assert_average_close(device, case)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize("group_size", [(7, 7), (3, 2), (1, 7)], ids=str)
def test_raw_groups(
    device: Device, dtype: torch.dtype, group_size: tuple[int, int], layout: str
) -> None:
    """Every bin in channels of its own, with more and fewer groups than bins."""
    for semantics, classes, part_size in (
        ("rfcn", None, None),
        ("torchvision", None, None),
        ("aligned", None, None),
        ("dcn", 3, (3, 5)),
    ):
        samples = {"aligned": 2, "dcn": 3}.get(semantics, 0)
        case = make_roi_case(
            Pooling(semantics, (7, 7), 0.37, group_size, samples),
            channels=2,
            boxes=3,
            input_size=(12, 15),
            classes=classes,
            part_size=part_size,
            exact=False,
            dtype=dtype,
            device=device.type,
            layouts={"input": layout},
        )
        assert_average_close(device, case)


def test_raw_transpose(device: Device) -> None:
    """<pool(x), y> = <x, its backward pass(y)>, in every convention, across all borders."""
    for semantics in MEANS:
        samples = 3 if semantics in ("aligned", "unaligned", "dcn") else 0
        pooling = Pooling(semantics, (3, 2), 0.37, (1, 2), samples)
        case = make_roi_case(pooling, boxes=20, exact=False, device=device.type)
        grad_input, _ = average_backward(device, case)
        left = (average(device, case) * case.grad_output).sum()
        torch.testing.assert_close(left, (case.input * grad_input).sum(), msg=semantics)


# --- torchvision ----------------------------------------------------------------------------------


def value_and_gradient(
    function: Callable[[Tensor, Tensor], Tensor], case: RoiCase
) -> tuple[Tensor, Tensor]:
    leaf = case.input.detach().requires_grad_()
    output = function(leaf, case.boxes)
    (gradient,) = torch.autograd.grad(output, leaf, case.grad_output)
    return output.detach(), gradient


def assert_same(
    ours: Callable[[Tensor, Tensor], Tensor],
    theirs: Callable[[Tensor, Tensor], Tensor],
    case: RoiCase,
) -> None:
    for name, got, want in zip(
        ("output", "gradient"),
        value_and_gradient(ours, case),
        value_and_gradient(theirs, case),
        strict=True,
    ):
        slack = 16 * torch.finfo(case.boxes.dtype).eps * max(case.input.shape[2:])
        assert_close(got, want, context=name, slack=slack * (1 + len(case.boxes)))


@given(roi_cases(("caffe",)))
def test_roi_pool_is_torchvisions(case: RoiCase) -> None:
    pooling = case.pooling
    arguments = (pooling.output_size, pooling.spatial_scale)
    got = deformops.roi_pool(case.input, case.boxes, *arguments)
    assert torch.equal(got, torchvision.ops.roi_pool(case.input, case.boxes, *arguments))
    assert_same(
        lambda x, boxes: deformops.roi_pool(x, boxes, *arguments),
        lambda x, boxes: torchvision.ops.roi_pool(x, boxes, *arguments),
        case,
    )


def ordered(case: RoiCase, least: float = 0.0) -> RoiCase:
    """Without inverted boxes, of which torchvision asks for a negative number of samples; and
    without smaller ones: the mean of no samples is NaN in its ps_roi_align.
    """
    x, y = (case.boxes[:, [low, low + 2]].sort(1).values for low in (1, 2))
    boxes = torch.stack([case.boxes[:, 0], x[:, 0], y[:, 0], x[:, 1] + least, y[:, 1] + least], 1)
    return replace(case, boxes=boxes)


@given(roi_cases(("aligned", "unaligned"), offsets=False))
def test_roi_align_is_torchvisions(case: RoiCase) -> None:
    case = ordered(replace(case, pooling=replace(case.pooling, group_size=(1, 1))))
    pooling = case.pooling
    channels = case.grad_output.shape[1]
    case = replace(case, input=case.input[:, :channels])
    aligned = pooling.semantics == "aligned"
    arguments = (pooling.output_size, pooling.spatial_scale, pooling.samples, aligned)
    assert_same(
        lambda x, boxes: deformops.roi_align(x, boxes, *arguments),
        lambda x, boxes: torchvision.ops.roi_align(x, boxes, *arguments),
        case,
    )


def position_sensitive(case: RoiCase) -> RoiCase:
    """The case with a group for each bin."""
    size = case.pooling.output_size
    shape = (*case.input.shape[:1], case.grad_output.shape[1] * size[0] * size[1])
    image = torch.randn(*shape, *case.input.shape[2:], dtype=case.input.dtype)
    return replace(case, pooling=replace(case.pooling, group_size=size), input=image)


@given(roi_cases(("aligned",), offsets=False))
def test_ps_roi_align_is_torchvisions(case: RoiCase) -> None:
    case = position_sensitive(ordered(case, least=0.5))
    pooling = case.pooling
    arguments = (pooling.output_size, pooling.spatial_scale, pooling.samples)
    assert_same(
        lambda x, boxes: deformops.ps_roi_align(x, boxes, *arguments),
        lambda x, boxes: torchvision.ops.ps_roi_align(x, boxes, *arguments),
        case,
    )


@given(roi_cases(("torchvision",)))
def test_ps_roi_pool_is_torchvisions_inside(case: RoiCase) -> None:
    """For boxes that do not reach the last row and column; a frame of zeros sees to that."""
    case = position_sensitive(case)
    image = torch.nn.functional.pad(case.input, (0, 40, 0, 40))
    case = replace(case, input=image, boxes=case.boxes.clamp(max=(20 / case.pooling.spatial_scale)))
    arguments = (case.pooling.output_size, case.pooling.spatial_scale)
    assert_same(
        lambda x, boxes: deformops.ps_roi_pool(x, boxes, *arguments, semantics="torchvision"),
        lambda x, boxes: torchvision.ops.ps_roi_pool(x, boxes, *arguments),
        case,
    )


def test_ps_roi_pool_reads_the_last_row_and_column() -> None:
    """torchvision clips bins at the last pixel in its forward pass, behind it in its backward pass:
    of a box of the whole map it never reads the last row and column, and its gradient is wrong.
    """
    image = torch.arange(25.0, dtype=torch.float64).reshape(1, 1, 5, 5)
    boxes = torch.tensor([[0.0, 0, 0, 5, 5]], dtype=torch.float64)

    def ours(x: Tensor) -> Tensor:
        return deformops.ps_roi_pool(x, boxes, 1, semantics="torchvision")

    def theirs(x: Tensor) -> Tensor:
        result: Tensor = torchvision.ops.ps_roi_pool(x, boxes, 1)
        return result

    assert theirs(image).item() == image[..., :4, :4].mean() == 9
    assert ours(image).item() == image.mean() == 12
    leaf = image.clone().requires_grad_()
    assert torch.autograd.gradcheck(ours, (leaf,))
    with pytest.raises(RuntimeError, match="Jacobian mismatch"):
        torch.autograd.gradcheck(theirs, (leaf,))


def test_positional_arguments_are_torchvisions() -> None:
    """Changing the import is enough; with a list of boxes, too."""
    image = torch.randn(2, 12, 9, 9)
    boxes = [torch.tensor([[1.0, 2, 9, 11], [0, 0, 5, 7]]), torch.tensor([[3.0, 3, 12, 8]])]
    for name, arguments in (
        ("roi_pool", (3, 0.5)),
        ("roi_align", ((2, 3), 0.5, 2, True)),
        ("roi_align", (2,)),
        ("ps_roi_align", ((2, 3), 0.5, 2)),
    ):
        got = getattr(deformops, name)(image, boxes, *arguments)
        want = getattr(torchvision.ops, name)(image, boxes, *arguments)
        assert_close(got, want, context=name)


# --- what must be equal ---------------------------------------------------------------------------


def on_grid(*corners: float) -> Tensor:
    return torch.tensor([[0.0, *corners]], dtype=torch.float64)


def test_double_the_box_and_the_same_offset_moves_twice_as_far() -> None:
    """On a ramp, values are positions."""
    ramp = torch.arange(64, dtype=torch.float64).expand(1, 1, 64, 64)
    offset = torch.tensor([3.0, -2.0], dtype=torch.float64).reshape(1, 2, 1, 1)
    for across, image in ((0, ramp), (1, ramp.mT)):
        shifts = []
        for size in (9, 19):
            box = on_grid(20, 22, 20 + size, 22 + size)  # of 10 and 20 pixels: both ends belong
            still = deformops.deform_roi_pool(image, box, None, 1)
            moved = deformops.deform_roi_pool(image, box, offset, 1, part_size=1)
            shifts.append((moved - still).item())
        assert shifts[0] == pytest.approx(0.1 * offset[0, across].item() * 10)
        assert shifts[1] == pytest.approx(2 * shifts[0])


@pytest.mark.parametrize("semantics", ["dcn", "mmcv"])
def test_an_offset_moves_the_whole_box(semantics: str) -> None:
    """The same offset in all parts is a box elsewhere."""
    image = torch.randn(1, 3, 30, 30, dtype=torch.float64)
    box, moved = on_grid(8, 10, 15, 17), on_grid(12, 8, 19, 15)
    extent = 8 if semantics == "dcn" else 7
    offset = torch.tensor([4.0, -2.0], dtype=torch.float64).reshape(1, 2, 1, 1) / extent / 0.1
    offset = offset.expand(1, 2, 3, 3)
    options: dict[str, Any] = {"semantics": semantics, "samples_per_bin": 2}
    got = deformops.deform_roi_pool(image, box, offset, 3, **options)
    assert_close(got, deformops.deform_roi_pool(image, moved, None, 3, **options))


def test_no_offset_is_zero_offset() -> None:
    image = torch.randn(1, 4, 9, 9, dtype=torch.float64)
    boxes, zero = on_grid(1, 2, 13, 15), torch.zeros(1, 2, 2, 2, dtype=torch.float64)
    for function in (deformops.deform_roi_pool, deformops.deform_ps_roi_pool):
        got = function(image, boxes, zero, 2, 0.5)
        assert torch.equal(got, function(image, boxes, None, 2, 0.5))


def test_deform_roi_pool_of_mmcv_is_roi_align_in_place() -> None:
    image = torch.randn(1, 3, 9, 9)
    boxes = on_grid(-3, 1.5, 12.25, 40)
    for samples in (0, 3):
        got = deformops.deform_roi_pool(
            image, boxes, None, (2, 3), 0.5, samples_per_bin=samples, semantics="mmcv"
        )
        assert torch.equal(got, deformops.roi_align(image, boxes, (2, 3), 0.5, samples, True))


def test_one_group_is_no_group() -> None:
    image, boxes = torch.randn(1, 4, 9, 9), on_grid(1, 2, 13, 15)
    offset = torch.randn(1, 4, 3, 3)
    got = deformops.deform_ps_roi_pool(image, boxes, offset, 3, 0.5, group_size=1)
    assert torch.equal(got, deformops.deform_roi_pool(image, boxes, offset, 3, 0.5))


def test_groups_read_their_own_channels() -> None:
    """Output channel c of bin (i, j) is what a plain pooling of its input channel has there."""
    image, boxes = torch.randn(1, 3 * 2 * 3, 9, 9, dtype=torch.float64), on_grid(1, 2, 13, 15)
    got = deformops.deform_ps_roi_pool(image, boxes, None, (4, 3), 0.5, group_size=(2, 3))
    plain = deformops.deform_roi_pool(image, boxes, None, (4, 3), 0.5)
    for c, i, j in torch.cartesian_prod(torch.arange(3), torch.arange(4), torch.arange(3)).tolist():
        assert got[0, c, i, j] == plain[0, (c * 2 + i // 2) * 3 + j, i, j]


def test_classes_move_their_own_channels() -> None:
    image, boxes = torch.randn(1, 6, 9, 9, dtype=torch.float64), on_grid(1, 2, 13, 15)
    offset = torch.randn(1, 6, 2, 2, dtype=torch.float64)
    got = deformops.deform_roi_pool(image, boxes, offset, 2, 0.5)
    for c in range(3):
        channels = slice(2 * c, 2 * c + 2)
        one = deformops.deform_roi_pool(image[:, channels], boxes, offset[:, channels], 2, 0.5)
        assert torch.equal(got[:, channels], one)


def test_parts_are_shared_by_their_bins() -> None:
    image, boxes = torch.randn(1, 2, 9, 9, dtype=torch.float64), on_grid(1, 2, 13, 15)
    offset = torch.randn(1, 2, 2, 3, dtype=torch.float64)
    got = deformops.deform_roi_pool(image, boxes, offset, (4, 6), 0.5, part_size=(2, 3))
    each = offset.repeat_interleave(2, 2).repeat_interleave(2, 3)
    assert torch.equal(got, deformops.deform_roi_pool(image, boxes, each, (4, 6), 0.5))


def test_boxes_for_each_image() -> None:
    image = torch.randn(3, 4, 9, 9)
    lists = [torch.rand(count, 4) * 16 for count in (2, 0, 1)]
    rows = torch.cat([torch.cat([torch.full((len(b), 1), i), b], 1) for i, b in enumerate(lists)])
    for name in ("roi_pool", "roi_align", "ps_roi_align", "ps_roi_pool"):
        function = getattr(deformops, name)
        want = function(image, rows, 2, 0.5)
        for boxes in (lists, tuple(lists)):
            assert torch.equal(function(image, boxes, 2, 0.5), want), name
    for function in (deformops.deform_roi_pool, deformops.deform_ps_roi_pool):
        offset = torch.randn(3, 2, 2, 2)
        assert torch.equal(
            function(image, lists, offset, 2, 0.5), function(image, rows, offset, 2, 0.5)
        )


# --- types ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [torch.float16, torch.bfloat16], ids=str)
def test_half_inputs_with_float_boxes(half: torch.dtype) -> None:
    """Corners beyond what a half type counts: the recommended way is exact, the other is not."""
    image = torch.zeros(1, 1, 1, 4200, dtype=half)
    image[..., 2049], image[..., 4099] = 3.0, 5.0
    boxes = torch.tensor([[0.0, 2049, 0, 2049, 0], [0, 4099, 0, 4099, 0]])
    assert deformops.roi_pool(image, boxes, 1).flatten().tolist() == [3, 5]
    assert deformops.ps_roi_pool(image, boxes, 1).flatten().tolist() == [3, 5]
    aligned = boxes + torch.tensor([0, 0.25, 0.25, 0.75, 0.75])
    assert deformops.roi_align(image, aligned, 1, 1.0, 1, True).flatten().tolist() == [3, 5]
    assert deformops.roi_pool(image, boxes.to(half), 1).flatten().tolist() != [3, 5]


def test_boxes_of_other_types_are_converted() -> None:
    image = torch.randn(1, 4, 9, 9, dtype=torch.float64)
    boxes = torch.tensor([[0.0, 1, 2.5, 13, 15]])
    want = deformops.roi_align(image, boxes.double(), 2, 0.5)
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        assert torch.equal(deformops.roi_align(image, boxes.to(dtype), 2, 0.5), want)
        rows = [boxes[:, 1:].to(dtype)]
        assert torch.equal(deformops.roi_align(image, rows, 2, 0.5), want)
    single = deformops.roi_align(image.float(), boxes, 2, 0.5)
    assert torch.equal(deformops.roi_align(image.float(), boxes.double(), 2, 0.5), single)


def test_half_sums_are_float(device: Device) -> None:
    """4096 ones sum to 4096 in every direction; a half accumulator would stop at 256 or 2048."""
    count = 4096
    for dtype in (torch.float16, torch.bfloat16):
        ones = torch.ones(1, 1, 64, 64, dtype=dtype, device=device.type)
        ones[..., ::2] = 2.0
        whole = torch.tensor([[0.0, 0, 0, 63, 63]], device=device.type)
        pixels = ([1, 1], 1.0, "rfcn", [1, 1], 0, 0.0, [0, 0])
        assert device.raw.roi_average(ones, whole, None, *pixels).item() == 1.5

        many = whole.expand(count, 5)
        grad = torch.ones(count, 1, 1, 1, dtype=dtype, device=device.type)
        grad_input, _ = device.raw.roi_average_backward(
            grad, ones, many, None, *pixels, [True, False]
        )
        assert (grad_input == 1).all()
        index = torch.zeros(count, 1, 1, 1, dtype=torch.int32, device=device.type)
        grad_input = device.raw.scatter_maxima(grad, many, index, ones.shape)
        assert grad_input.sum().item() == grad_input[0, 0, 0, 0].item() == count

        # 512 channels share an offset, each with a slope of 8: an extent of 8 times a ramp of 1.
        ramp = torch.arange(16.0, device=device.type).to(dtype).expand(1, 512, 16, 16)
        box = torch.tensor([[0.0, 4, 4, 11, 11]], device=device.type)
        offset = torch.zeros(1, 2, 1, 1, dtype=dtype, device=device.type)
        samples = ([1, 1], 1.0, "dcn", [1, 1], 2, 1.0, [0, 0])
        _, grad_offset = device.raw.roi_average_backward(
            grad[:1].expand(1, 512, 1, 1), ramp, box, offset, *samples, [False, True]
        )
        assert grad_offset.flatten().tolist() == [4096, 0]


# --- layouts, sizes -------------------------------------------------------------------------------


@pytest.mark.parametrize("groups", [(1, 1), (2, 2)], ids=str)
def test_channels_last_in_channels_last_out(device: Device, groups: tuple[int, int]) -> None:
    layouts = {"input": "channels_last"}
    case = make_roi_case(
        Pooling("aligned", (2, 2), 0.5, groups), channels=3, device=device.type, layouts=layouts
    )
    assert average(device, case).is_contiguous(memory_format=torch.channels_last)
    grad_input, _ = average_backward(device, case)
    assert grad_input.is_contiguous(memory_format=torch.channels_last)
    if groups == (1, 1):
        case = replace(case, pooling=Pooling("caffe", (2, 2), 0.5))
        output, index = pool(device, case)
        assert output.is_contiguous(memory_format=torch.channels_last)
        assert index.stride() == output.stride()
        grad = case.grad_output.contiguous(memory_format=torch.channels_last)
        grad_input = device.raw.scatter_maxima(grad, case.boxes, index, case.input.shape)
        assert grad_input.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("layout", ["channels_last", "permuted", "strided"])
def test_layouts_of_the_index(device: Device, layout: str) -> None:
    """It comes out of roi_pool, but what users hand over may have any strides."""
    case = make_roi_case(Pooling("caffe", (3, 2), 0.5), boxes=3, device=device.type)
    index = pool(device, case)[1].contiguous()
    wide = index.repeat_interleave(2, -1)
    other = wide[..., ::2] if layout == "strided" else arrange(index, layout)
    assert other.stride() != index.stride()
    same_bits = partial(device.raw.scatter_maxima, deterministic=True)
    for op, first, *rest in (
        (device.raw.gather_maxima, case.input),
        (same_bits, case.grad_output, case.input.shape),
    ):
        want = op(first, case.boxes, index, *rest)
        assert torch.equal(op(first, case.boxes, other, *rest), want)


def test_arguments_are_not_written_to(device: Device) -> None:
    case = make_roi_case(Pooling("dcn", (2, 2), 0.5, samples=2), classes=2, device=device.type)
    names = ("input", "boxes", "offset", "grad_output")
    before = {name: getattr(case, name).clone() for name in names}
    average(device, case)
    average_backward(device, case)
    maxima = replace(case, pooling=Pooling("caffe", (2, 2), 0.5))
    _, index = pool(device, maxima)
    device.raw.scatter_maxima(case.grad_output, case.boxes, index, case.input.shape)
    for name in names:
        assert torch.equal(getattr(case, name), before[name]), name


EVERY: dict[str, Callable[..., Tensor]] = {
    "roi_pool": lambda x, boxes: deformops.roi_pool(x, boxes, 2, 0.5),
    "roi_pool, mmcv": lambda x, boxes: deformops.roi_pool(x, boxes, 2, 0.5, semantics="mmcv"),
    "roi_align": lambda x, boxes: deformops.roi_align(x, boxes, 2, 0.5),
    "roi_align, aligned": lambda x, boxes: deformops.roi_align(x, boxes, 2, 0.5, 2, True),
    "ps_roi_align": lambda x, boxes: deformops.ps_roi_align(x, boxes, 2, 0.5),
    "ps_roi_pool": lambda x, boxes: deformops.ps_roi_pool(x, boxes, 2, 0.5),
    "ps_roi_pool, torchvision": lambda x, boxes: deformops.ps_roi_pool(
        x, boxes, 2, 0.5, semantics="torchvision"
    ),
    "deform_roi_pool": lambda x, boxes: deformops.deform_roi_pool(
        x, boxes, x.new_full((len(boxes), 2, 2, 2), 0.3), 2, 0.5
    ),
    "deform_roi_pool, mmcv": lambda x, boxes: deformops.deform_roi_pool(
        x, boxes, x.new_full((len(boxes), 2, 2, 2), 0.3), 2, 0.5, semantics="mmcv"
    ),
    "deform_ps_roi_pool": lambda x, boxes: deformops.deform_ps_roi_pool(
        x, boxes, x.new_full((len(boxes), 2, 2, 2), 0.3), 2, 0.5
    ),
}


@pytest.fixture(params=EVERY)
def pooled(request: pytest.FixtureRequest) -> Callable[..., Tensor]:
    return EVERY[request.param]


@pytest.mark.parametrize("images", [0, 2])
def test_no_boxes(pooled: Callable[..., Tensor], images: int) -> None:
    image = torch.randn(images, 4, 5, 6, requires_grad=True)
    output = pooled(image, torch.zeros(0, 5))
    assert output.shape[0] == 0
    assert output.shape[2:] == (2, 2)
    (gradient,) = torch.autograd.grad(output.sum(), image)
    assert gradient.shape == image.shape
    assert not gradient.any()
    none_each = [torch.zeros(0, 4)] * images
    if "deform" not in str(pooled):
        assert deformops.roi_align(image, none_each, 2).shape == (0, 4, 2, 2)


def test_no_channels(pooled: Callable[..., Tensor]) -> None:
    output = pooled(torch.randn(1, 0, 5, 6), torch.tensor([[0.0, 1, 1, 4, 4]]))
    assert output.shape == (1, 0, 2, 2)


@pytest.mark.parametrize("size", [(0, 6), (5, 0), (0, 0)], ids=str)
def test_empty_maps(pooled: Callable[..., Tensor], size: tuple[int, int]) -> None:
    """Nothing is read, so every bin is 0."""
    image = torch.randn(1, 4, *size, requires_grad=True)
    output = pooled(image, torch.tensor([[0.0, 1, 1, 4, 4]]))
    assert output.shape[2:] == (2, 2)
    assert not output.any()
    output.sum().backward()
    assert image.grad is not None


# --- boxes and pixels that are no numbers ---------------------------------------------------------


def value_and_input_gradient(pooled: Callable[..., Tensor], boxes: Tensor) -> tuple[Tensor, Tensor]:
    image = torch.randn(1, 4, 8, 8, requires_grad=True)
    output = pooled(image, boxes)
    (gradient,) = torch.autograd.grad(output.sum(), image)
    return output.detach(), gradient


@pytest.mark.parametrize("corner", range(1, 5))
def test_nan_boxes_are_nan(pooled: Callable[..., Tensor], corner: int) -> None:
    """And spoil nothing else: not the pixels' gradient, nor the next box."""
    boxes = torch.tensor([[0.0, 2, 2, 9, 9]] * 2)
    boxes[0, corner] = NAN
    output, gradient = value_and_input_gradient(pooled, boxes)
    assert output[0].isnan().all()
    assert output[1].isfinite().all()
    torch.manual_seed(0)
    alone = value_and_input_gradient(pooled, boxes[1:])[1]
    torch.manual_seed(0)
    torch.testing.assert_close(value_and_input_gradient(pooled, boxes)[1], alone)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("infinity", [INF, -INF])
@pytest.mark.parametrize("corner", range(1, 5))
def test_infinite_boxes_are_zero(
    pooled: Callable[..., Tensor], corner: int, infinity: float
) -> None:
    boxes = torch.tensor([[0.0, 2, 2, 9, 9]])
    boxes[0, corner] = infinity
    output, gradient = value_and_input_gradient(pooled, boxes)
    assert not output.any()
    assert not gradient.any()


@pytest.mark.parametrize("far", [3e4, 3e9, 3e18, 3e38])
def test_far_and_huge_boxes_end(pooled: Callable[..., Tensor], far: float) -> None:
    """Without overflow, and without counting samples that nobody sees."""
    for corners in ((far, far, far, far), (-far, -far, far, far), (2, 2, far, 9), (-far, 2, 9, 9)):
        boxes = torch.tensor([[0.0, *corners]])
        output, gradient = value_and_input_gradient(pooled, boxes)
        assert output.isfinite().all()
        assert gradient.isfinite().all()


def test_far_boxes_are_zero(pooled: Callable[..., Tensor]) -> None:
    boxes = torch.tensor([[0.0, 50, 50, 60, 60], [0, -60, -60, -50, -50], [0, 2, 50, 9, 60]])
    output, gradient = value_and_input_gradient(pooled, boxes)
    assert not output.any()
    assert not gradient.any()


def test_empty_and_inverted_boxes() -> None:
    """Caffe's and R-FCN's are a pixel or a tenth of one at least; aligned ones have no samples."""
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    boxes = torch.tensor([[0.0, 6, 6, 6, 6], [0, 6, 6, 2, 2]])
    assert deformops.roi_pool(image, boxes, 1, 0.5).flatten().tolist() == [27, 27]
    assert deformops.roi_pool(image, boxes, 1, 0.5, semantics="mmcv").flatten().tolist() == [27, 0]
    assert deformops.ps_roi_pool(image, boxes, 1, 0.5).flatten().tolist() == [27, 27]
    assert deformops.roi_align(image, boxes, 1, 0.5, -1, True).flatten().tolist() == [0, 0]
    assert deformops.roi_align(image, boxes, 1, 0.5, 2, True).flatten().tolist() == [22.5, 13.5]


def test_nan_pixels_make_their_bins_nan(device: Device) -> None:
    """torchvision's maximum skips NaN; the gradient goes to the first NaN of the bin."""
    image = torch.arange(36.0, device=device.type).reshape(1, 1, 6, 6)
    image[0, 0, 1, 2] = image[0, 0, 2, 0] = NAN
    boxes = torch.tensor([[0.0, 0, 0, 5, 5]], device=device.type)
    output, index = device.raw.roi_pool(image, boxes, [2, 2], 1.0, "caffe")
    assert index.flatten().tolist() == [8, 17, 32, 35]
    assert output.flatten().isnan().tolist() == [True, False, False, False]
    assert output.flatten()[1:].tolist() == [17, 32, 35]
    pixels = ([2, 2], 1.0, "rfcn", [1, 1], 0, 0.0, [0, 0])
    mean = device.raw.roi_average(image, boxes, None, *pixels)
    assert mean.flatten().isnan().tolist() == [True, False, False, False]
    samples = ([2, 2], 1.0, "aligned", [1, 1], 2, 0.0, [0, 0])
    inner = torch.tensor([[0.0, 0.6, 0.6, 5.4, 5.4]], device=device.type)
    mean = device.raw.roi_average(image, inner, None, *samples)
    assert mean.flatten().isnan().tolist() == [True, False, False, False]


def test_minus_infinity_is_a_number(device: Device) -> None:
    """Not the smallest float, with no index."""
    image = torch.full((1, 1, 4, 4), -INF, device=device.type)
    image[0, 0, 3, 3] = -7.0
    boxes = torch.tensor([[0.0, 0, 0, 3, 3]], device=device.type)
    output, index = device.raw.roi_pool(image, boxes, [2, 2], 1.0, "caffe")
    assert output.flatten().tolist() == [-INF, -INF, -INF, -7]
    assert index.flatten().tolist() == [0, 2, 8, 15]


def test_ties_go_to_the_first_pixel(device: Device) -> None:
    image = torch.ones(1, 1, 6, 6, device=device.type)
    image[0, 0, 0, 0] = -0.0
    image[0, 0, 0, 1] = 0.0
    boxes = torch.tensor([[0.0, 0, 0, 5, 5], [0, 0, 0, 1, 0]], device=device.type)
    _, index = device.raw.roi_pool(image, boxes, [1, 1], 1.0, "caffe")
    assert index.flatten().tolist() == [2, 0]


@pytest.mark.parametrize("semantics", ["dcn", "aligned"])
def test_nan_and_infinite_offsets(device: Device, semantics: str) -> None:
    """NaN moves a bin nowhere known, and takes the gradient of its own offset; infinity, away."""
    image = torch.randn(1, 3, 8, 8, device=device.type)
    boxes = torch.tensor([[0.0, 2, 2, 9, 9]], device=device.type)
    offset = torch.zeros(1, 2, 2, 2, device=device.type)
    offset[0, 0, 0, 0], offset[0, 1, 0, 1], offset[0, 0, 1, 0] = NAN, INF, -INF
    bins = ([2, 2], 0.5, semantics, [1, 1], 2, 0.1, [0, 0])
    output = device.raw.roi_average(image, boxes, offset, *bins)
    assert output[:, :, 0, 0].isnan().all()
    assert not output[:, :, 0, 1].any()
    assert not output[:, :, 1, 0].any()
    assert output[:, :, 1, 1].isfinite().all()
    grad_input, grad_offset = device.raw.roi_average_backward(
        torch.ones_like(output), image, boxes, offset, *bins, [True, True]
    )
    assert grad_input.isfinite().all()
    assert grad_offset[0, :, 0, 0].isnan().all()
    assert not grad_offset[0, :, 0, 1].any()
    assert not grad_offset[0, :, 1, 0].any()
    assert grad_offset[0, :, 1, 1].isfinite().all()


def test_offset_gradient_of_boxes_without_numbers(device: Device) -> None:
    case = make_roi_case(
        Pooling("dcn", (2, 2), 0.5, samples=2), boxes=3, classes=1, device=device.type
    )
    boxes = case.boxes.clone()
    boxes[0, 2], boxes[1, 3] = NAN, INF
    grad_input, grad_offset = average_backward(device, replace(case, boxes=boxes))
    assert grad_offset[0].isnan().all()
    assert not grad_offset[1].any()
    assert grad_offset[2].isfinite().all()
    assert grad_input.isfinite().all()


@pytest.mark.parametrize("function", [deformops.deform_roi_pool, deformops.deform_ps_roi_pool])
def test_no_bins_are_said_of_bins(function: Callable[..., Tensor]) -> None:
    """Not of parts, whose number is that of bins where none is given."""
    image, boxes = torch.zeros(1, 4, 8, 8), torch.zeros(1, 5)
    with pytest.raises(ValueError, match=r"output_size: expected .*\[0, 0\]"):
        function(image, boxes, None, 0)
    with pytest.raises(ValueError, match=r"part_size: expected .*\[0, 2\]"):
        function(image, boxes, None, 2, part_size=(0, 2))


# --- images that do not exist ---------------------------------------------------------------------


@pytest.mark.parametrize("number", [2.0, -1.0, 1e6, -1e6, 0.5, 1e30, NAN, INF, -INF])
def test_a_box_needs_an_image(pooled: Callable[..., Tensor], number: float) -> None:
    """Where torchvision crashes or reads what is behind the tensor."""
    image = torch.randn(2, 4, 5, 6, requires_grad=True)
    boxes = torch.tensor([[1.0, 0, 0, 4, 4], [number, 0, 0, 4, 4]])
    with pytest.raises(ValueError, match=r"boxes: expected .* 2 images .* in row 1"):
        pooled(image, boxes)


def test_without_images_there_are_no_boxes(pooled: Callable[..., Tensor]) -> None:
    with pytest.raises(ValueError, match=r"boxes: expected .* 0 images .* in row 0"):
        pooled(torch.randn(0, 4, 5, 6), torch.tensor([[0.0, 0, 0, 4, 4]]))


@pytest.mark.parametrize("number", [30, 31, 2**31 - 1, -2, -(2**31)])
@pytest.mark.parametrize("deterministic", [False, True])
def test_raw_ops_ask_for_pixels(device: Device, number: int, deterministic: bool) -> None:
    if device.type == "cuda":
        pytest.skip("an assertion in a kernel ends the CUDA context of this process")
    image, boxes = torch.ones(2, 40, 5, 6), torch.tensor([[1.0, 0, 0, 4, 4], [0, 0, 0, 3, 3]])
    index = torch.full((2, 40, 2, 3), 29, dtype=torch.int32)
    index[0, 7] = -1
    grad = torch.ones(index.shape)
    scatter = partial(device.raw.scatter_maxima, deterministic=deterministic)
    assert device.raw.gather_maxima(image, boxes, index).sum() == grad.numel() - 6
    assert scatter(grad, boxes, index, image.shape).sum() == grad.numel() - 6
    index[1, 38, 1, 2] = number
    with pytest.raises(RuntimeError, match="index"):
        device.raw.gather_maxima(image, boxes, index)
    with pytest.raises(RuntimeError, match="index"):
        scatter(grad, boxes, index, image.shape)


@pytest.mark.parametrize("number", [2.0, -1.0, 0.5, NAN])
def test_raw_ops_ask_for_an_image(device: Device, number: float) -> None:
    if device.type == "cuda":
        pytest.skip("an assertion in a kernel ends the CUDA context of this process")
    case = make_roi_case(Pooling("aligned", (2, 2), 0.5), device=device.type)
    index = torch.zeros(case.grad_output.shape, dtype=torch.int32)
    boxes = case.boxes.clone()
    boxes[2, 0] = number
    bins = ([2, 2], 0.5, "aligned", [1, 1], 2, 0.1, [0, 0])
    calls: dict[str, Callable[[], Any]] = {
        "roi_pool": lambda: device.raw.roi_pool(case.input, boxes, [2, 2], 0.5, "caffe"),
        "gather_maxima": lambda: device.raw.gather_maxima(case.input, boxes, index),
        "scatter_maxima": lambda: device.raw.scatter_maxima(
            case.grad_output, boxes, index, case.input.shape
        ),
        "roi_average": lambda: device.raw.roi_average(case.input, boxes, None, *bins),
        "roi_average_backward": lambda: device.raw.roi_average_backward(
            case.grad_output, case.input, boxes, None, *bins, [True, False]
        ),
    }
    for call in calls.values():
        with pytest.raises(RuntimeError):
            call()
