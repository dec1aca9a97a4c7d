"""The same bits for any number of threads, in any run; the same numbers with any vectors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import deformops
from tests.cases import Case, make_case
from tests.devices import Device
from tests.reference import Geometry, Pooling
from tests.roi_cases import RoiCase, make_roi_case

Threads = Callable[[int], AbstractContextManager[None]]

ROOT = Path(__file__).parents[1]
GEOMETRY = Geometry((3, 3), padding=(1, 1))

# Pixels and channels that threads cannot share out evenly, one image and several.
SHAPES: dict[str, dict[str, Any]] = {
    "one image": {"batch": 1, "input_size": (47, 53), "group_channels": 24},
    "batch": {"batch": 5, "input_size": (19, 23), "group_channels": 19},
    "groups": {"batch": 3, "groups": 2, "offset_groups": 2, "input_size": (17, 40)},
    "channels_last": {
        "batch": 2,
        "input_size": (31, 29),
        "group_channels": 32,
        "layouts": {"input": "channels_last"},
    },
    "many filters": {"batch": 1, "group_out_channels": 200, "input_size": (21, 22)},
}


def everything(case: Case, raw: Any) -> dict[str, Tensor]:
    """The results of every raw op."""
    kernel_size = list(case.geometry.kernel_size)
    window = case.raw_geometry
    gradients = raw.deform_conv2d_backward(
        case.grad_output, case.input, case.offset, case.weight, case.mask, *window, [True] * 4
    )
    names = ("grad_input", "grad_offset", "grad_weight", "grad_mask")
    return {
        "deform_conv2d": raw.deform_conv2d(
            case.input, case.offset, case.weight, case.bias, case.mask, *window
        ),
        **dict(zip(names, gradients, strict=True)),
        "gather": raw.gather_columns(case.input, case.offset, case.mask, kernel_size, *window),
        "scatter": raw.scatter_columns(
            case.columns, case.offset, case.mask, list(case.input_size), kernel_size, *window
        ),
        "contract": raw.contract_columns(
            case.input, case.columns, case.offset, kernel_size, *window, case.offset_groups
        ),
    }


# Boxes, channels and bins that threads cannot share out evenly; all boxes on few pixels.
POOLINGS: dict[str, dict[str, Any]] = {
    "many boxes": {"boxes": 23, "channels": 5},
    "one box": {"boxes": 1, "channels": 67, "input_size": (23, 29)},
    "channels_last": {"boxes": 17, "channels": 33, "layouts": {"input": "channels_last"}},
    "groups": {"boxes": 19, "channels": 3, "group_size": (3, 2)},
    "a small map": {"boxes": 41, "channels": 7, "input_size": (3, 2)},
}


def pooling_case(name: str, dtype: torch.dtype = torch.float32, device: str = "cpu") -> RoiCase:
    options = {"input_size": (13, 17), **POOLINGS[name]}
    pooling = Pooling("dcn", (7, 6), 0.37, options.pop("group_size", (1, 1)), 3)
    return make_roi_case(
        pooling, classes=1, part_size=(3, 3), exact=False, dtype=dtype, device=device, **options
    )


def every_pooling(case: RoiCase, raw: Any) -> dict[str, Tensor]:
    """The results of every raw op of RoI pooling."""
    moved = (case.input, case.boxes, case.offset, *case.bins)
    grad_input, grad_offset = raw.roi_average_backward(case.grad_output, *moved, [True, True])
    output, index = raw.roi_pool(case.input, case.boxes, *case.bins[:2], "caffe")
    scale, groups = case.bins[1], case.bins[3]
    pixels = (case.bins[0], scale, "rfcn", groups, 0, 0.0, [0, 0])
    adaptive = (case.bins[0], scale, "aligned", groups, 0, 0.0, [0, 0])
    in_place = (case.grad_output, case.input, case.boxes, None)
    return {
        "average": raw.roi_average(*moved),
        "grad_input": grad_input,
        "grad_offset": grad_offset,
        "pixels": raw.roi_average(*in_place[1:], *pixels),
        "grad_input of pixels": raw.roi_average_backward(*in_place, *pixels, [True, False])[0],
        "adaptive": raw.roi_average(*in_place[1:], *adaptive),
        "grad_input of adaptive": raw.roi_average_backward(*in_place, *adaptive, [True, False])[0],
        "maximum": output,
        "index": index,
        "gather": raw.gather_maxima(case.input, case.boxes, index),
        "scatter": raw.scatter_maxima(output, case.boxes, index, case.input.shape),
    }


def assert_same_bits(got: dict[str, Tensor], want: dict[str, Tensor], context: str) -> None:
    for name, tensor in got.items():
        assert torch.equal(tensor, want[name]), f"{name}, {context}"
        assert tensor.stride() == want[name].stride(), f"{name}, {context}"


@pytest.mark.parametrize("shape", SHAPES)
def test_threads_do_not_change_bits(threads: Threads, dtype: torch.dtype, shape: str) -> None:
    case = make_case(GEOMETRY, dtype=dtype, **SHAPES[shape])
    raw = torch.ops.deformops
    with threads(1):
        want = everything(case, raw)
    for count in (2, 3, 5):
        with threads(count):
            assert_same_bits(everything(case, raw), want, f"{count} threads")


def test_more_threads_than_pixels(threads: Threads) -> None:
    """So many products that all threads take part, and fewer pixels than threads."""
    case = make_case(GEOMETRY, input_size=(1, 1), group_channels=600, group_out_channels=600)
    with threads(1):
        want = everything(case, torch.ops.deformops)
    with threads(5):
        assert_same_bits(everything(case, torch.ops.deformops), want, "5 threads")


@pytest.mark.parametrize("name", POOLINGS)
def test_threads_do_not_change_bits_of_poolings(
    threads: Threads, dtype: torch.dtype, name: str
) -> None:
    case, raw = pooling_case(name, dtype), torch.ops.deformops
    with threads(1):
        want = every_pooling(case, raw)
    for count in (2, 3, 5):
        with threads(count):
            assert_same_bits(every_pooling(case, raw), want, f"{count} threads")


def test_runs_do_not_change_bits(threads: Threads) -> None:
    case = make_case(GEOMETRY, dtype=torch.float32, **SHAPES["batch"])
    with threads(2):
        want = everything(case, torch.ops.deformops)
        for run in range(10):
            assert_same_bits(everything(case, torch.ops.deformops), want, f"run {run}")


def test_deterministic_algorithms(device: Device) -> None:
    """The switch is obeyed: no complaint, and the same bits on every device."""
    case = make_case(GEOMETRY, dtype=torch.float32, device=device.type, **SHAPES["batch"])
    tensors = [
        tensor.requires_grad_()
        for tensor in (case.input, case.offset, case.weight, case.bias, case.mask)
        if tensor is not None
    ]
    image, offset, weight, bias, mask = tensors

    def gradients() -> tuple[Tensor, ...]:
        output = deformops.deform_conv2d(image, offset, weight, bias, padding=1, mask=mask)
        columns = deformops.gather_columns(image, 3, padding=1, offset=offset, mask=mask)
        back = deformops.scatter_columns(
            columns, case.input_size, 3, padding=1, offset=offset, mask=mask
        )
        loss = output.square().sum() + back.square().sum()
        return (output, columns, back, *torch.autograd.grad(loss, tensors))

    torch.use_deterministic_algorithms(True)
    try:
        want = gradients()
        for _ in range(3):
            for one, other in zip(gradients(), want, strict=True):
                assert torch.equal(one, other)
    finally:
        torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", POOLINGS)
def test_deterministic_poolings(device: Device, name: str) -> None:
    """Sums of many boxes on the same pixels, on every device."""
    case = pooling_case(name, device=device.type)
    moved = (case.input, case.boxes, case.offset, *case.bins)
    backward = device.raw.roi_average_backward
    _, index = device.raw.roi_pool(case.input, case.boxes, *case.bins[:2], "caffe")
    grad = index.to(case.input.dtype).sin()

    def gradients() -> dict[str, Tensor]:
        of_input, of_offset = backward(case.grad_output, *moved, [True, True], deterministic=True)
        scattered = device.raw.scatter_maxima(
            grad, case.boxes, index, case.input.shape, deterministic=True
        )
        return {"input": of_input, "offset": of_offset, "maxima": scattered}

    want = gradients()
    for run in range(3):
        assert_same_bits(gradients(), want, f"run {run}")
    plain = backward(case.grad_output, *moved, [True, True])
    torch.testing.assert_close(want["input"], plain[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(want["offset"], plain[1], rtol=1e-4, atol=1e-4)


def test_deterministic_algorithms_of_poolings(device: Device) -> None:
    """torch's switch is obeyed: no complaint, and the same bits."""
    case = pooling_case("many boxes", device=device.type)
    image, offset = case.input.requires_grad_(), case.offset.requires_grad_()

    def gradients() -> tuple[Tensor, ...]:
        output = deformops.deform_roi_pool(image, case.boxes, offset, (7, 6), 0.37, part_size=3)
        output = output + deformops.roi_pool(image, case.boxes, (7, 6), 0.37)
        return torch.autograd.grad(output.square().sum(), (image, offset))

    torch.use_deterministic_algorithms(True)
    try:
        want = gradients()
        for _ in range(3):
            for one, other in zip(gradients(), want, strict=True):
                assert torch.equal(one, other)
    finally:
        torch.use_deterministic_algorithms(False)


def test_calls_at_the_same_time_do_not_meet() -> None:
    """Each thread of the caller has its own workspace."""
    work = [
        make_case(GEOMETRY, dtype=dtype, seed=seed, **SHAPES[shape])
        for seed, shape in enumerate(SHAPES)
        for dtype in (torch.float32, torch.float64, torch.bfloat16)
    ]
    raw = torch.ops.deformops
    calls = [partial(everything, case, raw) for case in work]
    calls += [partial(every_pooling, pooling_case(name), raw) for name in POOLINGS]
    want = [call() for call in calls]
    with ThreadPoolExecutor(max_workers=4) as pool:
        for _ in range(3):
            for index, got in enumerate(pool.map(lambda call: call(), calls)):
                assert_same_bits(got, want[index], f"call {index}")


# --- instruction sets -----------------------------------------------------------------------------


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def chosen() -> str:
    isa: str = json.loads(torch.ops.deformops.build_info())["cpu_isa"]
    return isa


INSTRUCTION_SETS = ("portable", "avx2", "avx512")


@pytest.mark.parametrize("isa", INSTRUCTION_SETS)
def test_every_instruction_set_matches_the_references(isa: str) -> None:
    """The comparisons with the references once more, with other vectors."""
    best = chosen()
    if isa == best:
        pytest.skip(f"{isa} is what all other tests run with")
    if best not in INSTRUCTION_SETS or INSTRUCTION_SETS.index(isa) > INSTRUCTION_SETS.index(best):
        pytest.skip(f"this machine has no {isa}")
    report = "import torch, deformops; print(torch.ops.deformops.build_info())"
    info = run_python("-c", report, DEFORMOPS_CPU_ISA=isa)
    assert json.loads(info.stdout)["cpu_isa"] == isa, info.stderr

    files = (
        *("test_deform_conv2d.py", "test_gather_scatter_columns.py", "test_stencil_edges.py"),
        *("test_roi_pooling.py", "test_atrous_conv2d.py"),
    )
    of_kernels = "cpu and (raw or sizes or prime or empty or whole or borders or pixel)"
    tests = run_python(
        *("-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
        *(str(ROOT / "tests" / file) for file in files),
        *("-k", f"{of_kernels} or test_winograd and not transforms or regular_taps and float32"),
        DEFORMOPS_CPU_ISA=isa,
        HYPOTHESIS_PROFILE="ci",
    )
    assert tests.returncode == 0, tests.stdout[-4000:]
    assert " passed" in tests.stdout
