"""Tensors with more than 2^31 elements: indices that do not fit into 32 bits.

Everything is bfloat16, 4.3 GB a tensor, and touches as little of it as it can.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from tests.devices import Device

GIGABYTE = 10**9
WINDOW = ([1, 1], [0, 0], "v2", "inner")  # dilation, order, border, kink

pytestmark = pytest.mark.slow


def available() -> int:
    with Path("/proc/meminfo").open() as info:
        line = next(line for line in info if line.startswith("MemAvailable"))
    return 1024 * int(line.split()[1])


@pytest.fixture(autouse=True)
def enough_memory(device: Device) -> Iterator[None]:
    free = torch.cuda.mem_get_info()[0] if device.type == "cuda" else available()
    if free < 14 * GIGABYTE:
        pytest.skip(f"needs 14 GB of memory, {free / GIGABYTE:.1f} are free")
    yield
    if device.type == "cuda":
        torch.cuda.empty_cache()


def zeros(device: Device, *shape: int) -> Tensor:
    result = torch.zeros(shape, dtype=torch.bfloat16, device=device.type)
    assert result.numel() > 2**31 or result.numel() < 2**20
    return result


# (N, C, H, W) of the input; what counts is the last pixel of the last channel of the last image.
INPUTS = [(1, 1, 46400, 46400), (2, 1040, 1024, 1024), (2100, 1, 1024, 1024)]


@pytest.mark.parametrize("shape", INPUTS, ids=str)
def test_large_input(device: Device, shape: tuple[int, ...]) -> None:
    """A 2 x 2 output reads the far corner, and gives its gradient back there."""
    batch, channels, height, width = shape
    image = zeros(device, *shape)
    image[-1, -1, -2:, -2:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    stride = [height - 2, width - 2]  # output (1, 1) sits on the pixel before the last
    offset = zeros(device, batch, 2, 2, 2) + 0.5
    weight = zeros(device, 1, channels, 1, 1) + 1
    geometry = (stride, [0, 0], *WINDOW)
    output = device.raw.deform_conv2d(image, offset, weight, None, None, *geometry)
    assert output.shape == (batch, 1, 2, 2)
    assert output[-1, 0, 1, 1].item() == 2.5
    assert output.count_nonzero() == 1
    columns = device.raw.gather_columns(image, offset, None, [1, 1], *geometry)
    assert columns[-1, -1, 0, 1, 1].item() == 2.5
    assert columns.count_nonzero() == 1
    del image

    columns.zero_()
    columns[-1, -1, 0, 1, 1] = 4.0
    back = device.raw.scatter_columns(columns, offset, None, [height, width], [1, 1], *geometry)
    assert back[-1, -1, -2:, -2:].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert back[0, 0, :4].count_nonzero() == 0


def test_large_backward(device: Device) -> None:
    """Input and its gradient are both large."""
    batch, channels, height, width = INPUTS[1]
    image = zeros(device, batch, channels, height, width)
    image[-1, -1, -2:, -2:] = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    offset = zeros(device, batch, 2, 2, 2) + 0.5
    weight = zeros(device, 1, channels, 1, 1) + 1
    grad_output = zeros(device, batch, 1, 2, 2)
    grad_output[-1, 0, 1, 1] = 4.0
    grad_input, grad_offset, grad_weight, _ = device.raw.deform_conv2d_backward(
        grad_output,
        image,
        offset,
        weight,
        None,
        *([height - 2, width - 2], [0, 0], *WINDOW),
        [True, True, True, False],
    )
    assert grad_input[-1, -1, -2:, -2:].tolist() == [[1.0, 1.0], [1.0, 1.0]]
    assert grad_offset[-1, :, 1, 1].tolist() == [8.0, 4.0]
    assert grad_weight[0, -1].item() == 10.0
    assert grad_weight.count_nonzero() == 1


def test_large_columns(device: Device) -> None:
    """The input is small, its columns are not."""
    image = torch.zeros(1, 2, 11000, 11000, dtype=torch.bfloat16, device=device.type)
    image[0, 1, -3:, -3:] = torch.arange(9.0).reshape(3, 3)
    columns = device.raw.gather_columns(image, None, None, [3, 3], [1, 1], [0, 0], *WINDOW)
    assert columns.numel() > 2**31
    assert columns[0, 1, :, -1, -1].tolist() == list(range(9))
    assert columns[0, 0, :, -1, -1].count_nonzero() == 0


def test_large_output(device: Device) -> None:
    image = torch.ones(1, 1, 4096, 4096, dtype=torch.bfloat16, device=device.type)
    weight = torch.arange(1.0, 130.0, device=device.type).bfloat16().reshape(129, 1, 1, 1)
    offset = torch.zeros(1, 2, 4096, 4096, dtype=torch.bfloat16, device=device.type)
    output = device.raw.deform_conv2d(image, offset, weight, None, None, *([1, 1], [0, 0], *WINDOW))
    assert output.numel() > 2**31
    assert output[0, :, -1, -1].tolist() == weight.flatten().tolist()
    assert output[0, :, 0, 0].tolist() == weight.flatten().tolist()
