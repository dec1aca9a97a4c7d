"""Memory of the ops: results, and a workspace that does not grow with the problem."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

MEBIBYTE = 2**20
# What two threads together may take besides the results, as the kernels state it: copies of the
# input (and of its gradient) of 16 MiB or one image, and tiles. Winograd's algorithm transforms
# tiles and weights for 24 MiB each, and has sums of 6 MiB for each thread.
WORKSPACE = {
    "forward": 24 * MEBIBYTE,
    "backward": 48 * MEBIBYTE,
    "winograd": 84 * MEBIBYTE,
}
# Batch, channels, side. Their columns are 288, 144 and 36 MiB in float32.
SHAPES = {
    "many images": (8, 256, 64),
    "a large image": (1, 64, 256),
    "a single channel": (1, 1, 1024),
}
# Images, channels, height, width, boxes; bins are 7 x 7.
POOLED_SHAPES = {
    "many channels": (1, 1029, 38, 50, 300),
    "many boxes": (1, 147, 64, 64, 3000),
    "many images": (8, 147, 64, 64, 300),
    "a large image": (1, 49, 512, 512, 300),
}


def convolution_workspace(name: str) -> int:
    return WORKSPACE[name.split(",")[0]]


def pooling_workspace(name: str) -> int:
    """Tables and gradients of a band of boxes, 16 MiB each; and for each of two threads a block of
    channels of one image, in float32.
    """
    shape = next(shape for shape in POOLED_SHAPES if shape in name)
    _, _, height, width, _ = POOLED_SHAPES[shape]
    return 34 * MEBIBYTE + 2 * 32 * height * width * 4


# Runs in a process of its own, whose peak nothing else has raised; writing 5 to clear_refs lowers
# the peak to what is in use.
MEASURE = """
import itertools, json, sys
import torch, deformops

torch.set_num_threads(2)
raw = torch.ops.deformops

def peak():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

def workspace(call, *arguments):
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")
    before = peak()
    result = call(*arguments)
    results = result if isinstance(result, tuple) else (result,)
    return peak() - before - sum(t.numel() * t.element_size() for t in results)

variants = list(itertools.product(
    json.loads(sys.argv[1]).items(), ("float32", "bfloat16"), ("contiguous", "channels_last")
))
measured = {}
"""
CONVOLUTION = """
def tensors(batch, channels, side, dtype="float32", layout="contiguous"):
    torch.manual_seed(0)
    image = torch.randn(batch, channels, side, side)
    if layout == "channels_last":
        image = image.contiguous(memory_format=torch.channels_last)
    others = (
        torch.randn(batch, 18, side, side),
        torch.randn(channels, channels, 3, 3),
        torch.rand(batch, 9, side, side),
    )
    return [tensor.to(getattr(torch, dtype)) for tensor in (image, *others)]

geometry = ([1, 1], [1, 1], [1, 1], [0, 0], "v2", "inner")

def forward(image, offset, weight, mask):
    return raw.deform_conv2d(image, offset, weight, None, mask, *geometry)

def backward(grad_output, image, offset, weight, mask):
    return raw.deform_conv2d_backward(
        grad_output, image, offset, weight, mask, *geometry, [True] * 4
    )

def winograd(image, weight):
    return raw.deform_conv2d(
        image, None, weight, None, None, *geometry, allow_winograd=True
    )

small = tensors(1, 16, 8)
backward(forward(*small), *small)  # whatever is set up once
for (shape, sizes), dtype, layout in variants:
    given = tensors(*sizes, dtype, layout)
    name = f"{shape}, {dtype}, {layout}"
    measured["forward, " + name] = workspace(forward, *given)
    grad_output = torch.ones_like(given[0])
    measured["backward, " + name] = workspace(backward, grad_output, *given)
    measured["winograd, " + name] = workspace(winograd, given[0], given[2])
    del given, grad_output
"""
POOLING = """
bins, scale = [7, 7], 1 / 16
kinds = {
    "aligned": ("aligned", [1, 1], -1, 0.0, [0, 0]),
    "pixels in groups": ("rfcn", [7, 7], 0, 0.0, [0, 0]),
    "moved": ("dcn", [1, 1], 4, 0.1, [0, 0]),
}

def tensors(images, channels, height, width, boxes, dtype="float32", layout="contiguous"):
    torch.manual_seed(0)
    image = torch.randn(images, channels, height, width).to(getattr(torch, dtype))
    if layout == "channels_last":
        image = image.contiguous(memory_format=torch.channels_last)
    size = torch.tensor([width, height]) * 16
    places = torch.rand(boxes, 2, 2).sort(1).values * size
    rows = torch.cat([torch.randint(images, (boxes, 1)).float(), places.flatten(1)], 1)
    return image, rows, torch.randn(boxes, 2, 7, 7).to(image.dtype)

def measure(name, image, rows, offset):
    for kind, (semantics, groups, *rest) in kinds.items():
        arguments = (image, rows, offset if kind == "moved" else None, bins, scale, semantics)
        arguments += (groups, *rest)
        measured[f"forward, {kind}, {name}"] = workspace(raw.roi_average, *arguments)
        channels = image.shape[1] // (groups[0] * groups[1])
        grad = torch.randn(len(rows), channels, *bins).to(image.dtype)
        for wanted in ([True, False], [False, True])[: 1 + (kind == "moved")]:
            measured[f"backward, {kind}, {wanted}, {name}"] = workspace(
                raw.roi_average_backward, grad, *arguments, wanted
            )
    measured[f"forward, maximum, {name}"] = workspace(
        raw.roi_pool, image, rows, bins, scale, "caffe"
    )
    output, index = raw.roi_pool(image, rows, bins, scale, "caffe")
    measured[f"backward, maximum, {name}"] = workspace(
        raw.scatter_maxima, output, rows, index, image.shape
    )

measure("", *tensors(1, 49, 8, 8, 3))  # whatever is set up once
measured.clear()
for (shape, sizes), dtype, layout in variants:
    measure(f"{shape}, {dtype}, {layout}", *tensors(*sizes, dtype, layout))
"""
REPORT = """
print(json.dumps(measured))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(
    ("family", "shapes", "calls", "allowed"),
    [
        (CONVOLUTION, SHAPES, 3, convolution_workspace),
        (POOLING, POOLED_SHAPES, 9, pooling_workspace),
    ],
    ids=["convolution", "pooling"],
)
def test_workspace_is_bounded(
    family: str, shapes: dict[str, Any], calls: int, allowed: Callable[[str], int]
) -> None:
    process = subprocess.run(
        [sys.executable, "-c", MEASURE + family + REPORT, json.dumps(shapes)],
        cwd=Path(__file__).parents[1],
        # glibc gives large blocks back at once, so that nothing kept for later hides a new one.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    measured: dict[str, int] = json.loads(process.stdout)
    assert len(measured) == 2 * 2 * calls * len(shapes)
    # Results that did not show up in the peak would mean that nothing was measured.
    assert min(measured.values()) > -MEBIBYTE, measured
    too_much = {
        name: f"{workspace / MEBIBYTE:.1f} MiB besides results"
        for name, workspace in measured.items()
        if workspace > allowed(name)
    }
    assert not too_much
