"""The same bits for any number of threads, in any run; the same numbers with any vectors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import deformops
from tests.cases import Case, make_case
from tests.devices import Device
from tests.reference import Geometry

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


def test_calls_at_the_same_time_do_not_meet() -> None:
    """Each thread of the caller has its own workspace."""
    work = [
        make_case(GEOMETRY, dtype=dtype, seed=seed, **SHAPES[shape])
        for seed, shape in enumerate(SHAPES)
        for dtype in (torch.float32, torch.float64, torch.bfloat16)
    ]
    want = [everything(case, torch.ops.deformops) for case in work]
    with ThreadPoolExecutor(max_workers=4) as pool:
        for _ in range(3):
            results = pool.map(lambda case: everything(case, torch.ops.deformops), work)
            for index, got in enumerate(results):
                assert_same_bits(got, want[index], f"case {index}")


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

    files = ("test_deform_conv2d.py", "test_gather_scatter_columns.py", "test_stencil_edges.py")
    tests = run_python(
        *("-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"),
        *(str(ROOT / "tests" / file) for file in files),
        *("-k", "cpu and (raw or sizes or prime or empty or whole or borders or pixel)"),
        DEFORMOPS_CPU_ISA=isa,
        HYPOTHESIS_PROFILE="ci",
    )
    assert tests.returncode == 0, tests.stdout[-4000:]
    assert " passed" in tests.stdout
