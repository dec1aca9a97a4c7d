"""Every variant of the RoI pooling kernels, and what only threads side by side can get wrong.

Small problems of the shapes at which a kernel goes another way: tiles and vectors with tails,
more bins than a block takes, lists of rows and columns that overflow, boxes dealt to shares.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from tests import reference
from tests.cases import assert_close, numpy
from tests.devices import Device
from tests.reference import Pooling
from tests.roi_cases import RoiCase, assert_average_close, average_backward, make_roi_case

LAYOUTS = ["contiguous", "channels_last"]


@dataclass(frozen=True)
class Shape:
    """What decides which way a kernel takes; see `make_roi_case`."""

    pooling: Pooling
    sizes: dict[str, Any] = field(default_factory=dict)


MEANS = {
    "pixels": Shape(Pooling("rfcn", (3, 2), 0.5), {"channels": 5}),
    "samples": Shape(Pooling("aligned", (2, 3), 0.5), {"channels": 3}),
    # Whole vectors, and more channels than a thread sums.
    "vectors": Shape(Pooling("unaligned", (2, 2), 0.5, samples=2), {"channels": 48}),
    "moved vectors": Shape(
        Pooling("dcn", (2, 2), 0.5, samples=2), {"channels": 16, "classes": 2, "part_size": (1, 2)}
    ),
    "more parts than bins": Shape(
        Pooling("dcn", (2, 3), 0.5, samples=3), {"classes": 1, "part_size": (3, 5), "channels": 6}
    ),
    "own channels": Shape(Pooling("torchvision", (3, 3), 0.5, (3, 3)), {"channels": 3}),
    "groups": Shape(
        Pooling("aligned", (5, 4), 0.5, (2, 3), samples=2), {"channels": 2, "classes": 1}
    ),
    # 64 bins are a block's, 8 x 8 a tile's.
    "many bins": Shape(Pooling("aligned", (9, 17), 0.5, samples=1), {"channels": 1}),
    "many moved bins": Shape(
        Pooling("aligned", (9, 8), 0.5, samples=2), {"channels": 1, "classes": 1, "boxes": 2}
    ),
    "a row of bins": Shape(Pooling("unaligned", (1, 70), 0.5), {"channels": 2, "boxes": 2}),
    # More rows and columns than fit into shared memory at once.
    "long bins": Shape(
        Pooling("unaligned", (1, 1)), {"channels": 1, "boxes": 3, "input_size": (2, 700)}
    ),
    "long bins of pixels": Shape(
        Pooling("rfcn", (2, 1)), {"channels": 1, "boxes": 3, "input_size": (700, 2)}
    ),
    "many samples": Shape(
        Pooling("dcn", (7, 7), samples=9), {"channels": 1, "classes": 1, "boxes": 2}
    ),
    # More pixels than a tile's 32 columns and 256 threads.
    "large map": Shape(
        Pooling("aligned", (3, 3), samples=2), {"input_size": (20, 45), "channels": 2, "images": 1}
    ),
    # Few pixels, many boxes: shares of 32 boxes or more.
    "shares": Shape(
        Pooling("aligned", (1, 2), samples=1), {"boxes": 80, "input_size": (4, 5), "channels": 2}
    ),
    "slopes y": Shape(Pooling("dcn", (2, 2), 0.5, samples=2, order=(1, 0)), {"classes": 1}),
    "slopes": Shape(Pooling("aligned", (2, 2), 0.5, samples=2, order=(1, 1)), {"classes": 2}),
}
MAXIMA = {
    "few channels": Shape(Pooling("caffe", (3, 2), 0.5), {"channels": 3}),
    "vectors": Shape(Pooling("mmcv", (2, 2), 0.5), {"channels": 48}),
    "many bins": Shape(Pooling("caffe", (9, 17), 0.5), {"channels": 1, "boxes": 2}),
    "many boxes": Shape(Pooling("caffe", (7, 7)), {"channels": 1, "boxes": 40, "images": 3}),
}


def case_of(
    shape: Shape, dtype: torch.dtype, device: Device, layout: str = "contiguous"
) -> RoiCase:
    return make_roi_case(
        shape.pooling,
        dtype=dtype,
        device=device.type,
        layouts={"input": layout, "grad_output": layout},
        **shape.sizes,
    )


@pytest.mark.variants
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", MEANS.values(), ids=MEANS)
def test_means(device: Device, dtype: torch.dtype, shape: Shape, layout: str) -> None:
    assert_average_close(device, case_of(shape, dtype, device, layout))


@pytest.mark.variants
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", MAXIMA.values(), ids=MAXIMA)
def test_maxima(device: Device, dtype: torch.dtype, shape: Shape, layout: str) -> None:
    """Whole numbers, so that there are ties and sums are exact in any order."""
    case = case_of(shape, dtype, device, layout)
    case.input.copy_((3 * case.input).round())
    case.grad_output.copy_((2 * case.grad_output).round())
    pooling = case.pixel_bins
    output, index = device.raw.roi_pool(case.input, case.boxes, *pooling)
    want, want_index = reference.roi_pool(numpy(case.input), case.rows, case.pooling)
    assert torch.equal(output.cpu().double(), torch.from_numpy(want))
    assert torch.equal(index.cpu().long(), torch.from_numpy(want_index))
    alone, _ = device.raw.roi_pool(case.input, case.boxes, *pooling, want_index=False)
    assert torch.equal(alone, output)

    assert torch.equal(device.raw.gather_maxima(case.input, case.boxes, index), output)
    size = list(case.input.shape)
    want = reference.scatter_maxima(numpy(case.grad_output), case.rows, want_index, tuple(size))
    for deterministic in (False, True):
        got = device.raw.scatter_maxima(
            case.grad_output, case.boxes, index, size, deterministic=deterministic
        )
        assert torch.equal(got.cpu(), torch.from_numpy(want).to(got.dtype))


@pytest.mark.variants
def test_maps_that_32_bits_do_not_count(device: Device, dtype: torch.dtype) -> None:
    """2^32 pixels, all of them one: only the numbers of pixels are large."""
    image = torch.ones(1, 2, 1, 1, dtype=dtype, device=device.type).expand(1, 2, 65536, 65536)
    boxes = torch.tensor([[0.0, 65530, 65533, 65533, 65535]], device=device.type)
    boxes = boxes.double() if dtype == torch.float64 else boxes
    output, index = device.raw.roi_pool(image, boxes, [1, 1], 1.0, "caffe")
    assert index.dtype == torch.int64
    assert index.flatten().tolist() == [65533 * 65536 + 65530] * 2
    assert output.flatten().tolist() == [1.0, 1.0]
    assert torch.equal(device.raw.gather_maxima(image, boxes, index), output)


@pytest.mark.variants
@pytest.mark.parametrize(
    "shape", [MEANS["shares"], MEANS["moved vectors"]], ids=["shares", "moved"]
)
def test_means_have_one_order_of_summation(
    device: Device, dtype: torch.dtype, shape: Shape
) -> None:
    """The same bits in every run, asked for or not."""
    case = case_of(shape, dtype, device)
    first = average_backward(device, case)
    for deterministic in (False, True):
        again = average_backward(device, case, deterministic=deterministic)
        assert all(map(torch.equal, first, again))


@pytest.mark.variants
def test_maxima_have_one_order_of_summation(device: Device, dtype: torch.dtype) -> None:
    """Bins of one box that found the same pixel, and boxes that did."""
    case = make_roi_case(
        Pooling("caffe", (6, 7)), boxes=37, input_size=(3, 4), dtype=dtype, device=device.type
    )
    _, index = device.raw.roi_pool(case.input, case.boxes, *case.pixel_bins)

    def scatter() -> Tensor:
        result: Tensor = device.raw.scatter_maxima(
            case.grad_output, case.boxes, index, list(case.input.shape), deterministic=True
        )
        return result

    first = scatter()
    assert all(torch.equal(first, scatter()) for _ in range(3))
    want = reference.scatter_maxima(
        numpy(case.grad_output), case.rows, index.cpu().numpy(), tuple(case.input.shape)
    )
    assert_close(first, want)


def test_more_boxes_than_a_grid_axis(device: Device) -> None:
    count = 70_000
    image = torch.arange(8.0, device=device.type).reshape(2, 1, 2, 2)
    boxes = torch.tensor([[0.0, 0, 0, 1, 1], [1, 0, 0, 1, 1]], device=device.type)
    boxes = boxes.repeat(count // 2, 1)
    output, _ = device.raw.roi_pool(image, boxes, [1, 1], 1.0, "caffe")
    assert output.flatten().tolist() == [3.0, 7.0] * (count // 2)


@pytest.mark.parametrize("number", [2.0, -1.0, 0.5, float("nan")])
def test_kernels_refuse_boxes_without_an_image(device: Device, number: float) -> None:
    """With an assertion: on a GPU nobody may wait to look."""
    if not device.name.startswith("simulated"):
        pytest.skip("ends the CUDA context of this process")
    case = make_roi_case(
        Pooling("aligned", (2, 2), samples=1), classes=1, boxes=5, device=device.type
    )
    index = torch.zeros(case.grad_output.shape, dtype=torch.int32)
    case.boxes[3, 0] = number
    bins, size = case.bins, list(case.input.shape)
    backward = (case.grad_output, case.input, case.boxes, case.offset, *bins)
    scatter = (case.grad_output, case.boxes, index, size)
    calls: dict[str, Any] = {
        "roi_pool_kernel": lambda: device.raw.roi_pool(case.input, case.boxes, *bins[:2], "caffe"),
        "move_maxima_kernel": lambda: device.raw.gather_maxima(case.input, case.boxes, index),
        "add_maxima_in_order_kernel": lambda: device.raw.scatter_maxima(
            *scatter, deterministic=True
        ),
        "roi_average_kernel": lambda: device.raw.roi_average(
            case.input, case.boxes, case.offset, *bins
        ),
        "locate_boxes_kernel": lambda: device.raw.roi_average_backward(*backward, [True, False]),
        "sum_slopes_kernel": lambda: device.raw.roi_average_backward(*backward, [False, True]),
    }
    for kernel, call in calls.items():
        with pytest.raises(RuntimeError, match=r"assertion: boxes: ") as error:
            call()
        assert f"::{kernel}<" in str(error.value)
        assert "csrc/kernels/cuda/roi_" in str(error.value)


def test_kernels_refuse_an_index_beyond_the_map(device: Device) -> None:
    if not device.name.startswith("simulated"):
        pytest.skip("ends the CUDA context of this process")
    case = make_roi_case(Pooling("caffe", (2, 2)), device=device.type)
    index = torch.zeros(case.grad_output.shape, dtype=torch.int32)
    index[1, 0, 1, 0] = case.input.shape[2] * case.input.shape[3]
    size = list(case.input.shape)
    for call in (
        lambda: device.raw.gather_maxima(case.input, case.boxes, index),
        lambda: device.raw.scatter_maxima(case.grad_output, case.boxes, index, size),
    ):
        with pytest.raises(RuntimeError, match=r"assertion: index: "):
            call()
