"""Memory of the convolution: results, and a workspace that does not grow with the problem."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MEBIBYTE = 2**20
# What two threads together may take besides the results, as the kernels state it: copies of the
# input (and of its gradient) of 16 MiB or one image, and tiles.
WORKSPACE = {"forward": 24 * MEBIBYTE, "backward": 48 * MEBIBYTE}
# Batch, channels, side. Their columns are 288 and 144 MiB in float32.
SHAPES = {"many images": (8, 256, 64), "a large image": (1, 64, 256)}

# Runs in a process of its own, whose peak nothing else has raised; writing 5 to clear_refs lowers
# the peak to what is in use.
MEASURE = """
import itertools, json, sys
import torch, deformops

torch.set_num_threads(2)

def peak():
    with open("/proc/self/status") as status:
        line = next(line for line in status if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])

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
    return torch.ops.deformops.deform_conv2d(image, offset, weight, None, mask, *geometry)

def backward(grad_output, image, offset, weight, mask):
    return torch.ops.deformops.deform_conv2d_backward(
        grad_output, image, offset, weight, mask, *geometry, [True] * 4
    )

def workspace(call, *arguments):
    with open("/proc/self/clear_refs", "w") as clear:
        clear.write("5")
    before = peak()
    result = call(*arguments)
    results = result if isinstance(result, tuple) else (result,)
    return peak() - before - sum(t.numel() * t.element_size() for t in results)

small = tensors(1, 16, 8)
backward(forward(*small), *small)  # whatever is set up once
measured = {}
for (shape, sizes), dtype, layout in itertools.product(
    json.loads(sys.argv[1]).items(), ("float32", "bfloat16"), ("contiguous", "channels_last")
):
    given = tensors(*sizes, dtype, layout)
    name = f"{shape}, {dtype}, {layout}"
    measured["forward, " + name] = workspace(forward, *given)
    grad_output = torch.ones_like(given[0])
    measured["backward, " + name] = workspace(backward, grad_output, *given)
    del given, grad_output
print(json.dumps(measured))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="needs Linux's /proc")
def test_no_columns_of_a_whole_image() -> None:
    process = subprocess.run(
        [sys.executable, "-c", MEASURE, json.dumps(SHAPES)],
        cwd=Path(__file__).parents[1],
        # glibc gives large blocks back at once, so that nothing kept for later hides a new one.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536", "MALLOC_TRIM_THRESHOLD_": "65536"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    measured: dict[str, int] = json.loads(process.stdout)
    assert len(measured) == 2 * 2 * 2 * len(SHAPES)
    # Results that did not show up in the peak would mean that nothing was measured.
    assert min(measured.values()) > -MEBIBYTE, measured
    too_much = {
        name: f"{workspace / MEBIBYTE:.1f} MiB besides results"
        for name, workspace in measured.items()
        if workspace > WORKSPACE[name.split(",")[0]]
    }
    assert not too_much
