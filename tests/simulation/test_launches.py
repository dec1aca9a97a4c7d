"""What the benchmark counts of the launches of kernels, and that its record is complete."""

from __future__ import annotations

from types import SimpleNamespace

import torch

import deformops
from benchmarks import launches
from deformops.simulation.problems import Tensors, problems

assert deformops.__version__  # its ops are registered


def a_launch(kernel: str, blocks: int, sectors: int, products: int = 0) -> SimpleNamespace:
    return SimpleNamespace(
        kernel=f"deformops::cuda::{kernel}",
        grid=(blocks, 2, 1),
        sectors_read=sectors,
        sectors_written=1,
        multiplications=products,
    )


def test_launches_of_a_kernel_are_summed() -> None:
    found = [
        a_launch("deform_conv2d_kernel<Math<half, true>, (Lanes)1>", 4, 100, products=7),
        a_launch("copy_kernel<float>", 1, 3),
        a_launch("copy_kernel<float>", 2, 5),
    ]
    product, copy = launches.summed("op", torch.float16, "shape", found)
    assert product.kernel == "deform_conv2d_kernel<Math<half, true>, kChannels>"
    assert (product.launches, product.blocks, product.bytes) == (1, 8, 101 * 32)
    assert product.flops == 2 * 64 * 64 * 9 * 64 * 64
    assert product.tensor_products == 7
    assert copy == launches.Row(
        "op", "float16", "shape", "copy_kernel<float>", 2, 6, 10 * 32, 0.0, 0
    )


def test_the_record_of_launches_is_of_every_problem() -> None:
    known = problems(torch.ops.deformops, Tensors(torch.float32, False), {})
    assert {row.op for row in launches.load_record()} == known.keys()
