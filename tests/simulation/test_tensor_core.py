"""ldmatrix and mma.sync, against the formulas of the PTX manual ("Matrix fragments for mma...").

They are written down as the manual has them, element by element, and share nothing with the device,
which derives all of them from one rule.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

Array = npt.NDArray[Any]
Place = Callable[[int, int, int], tuple[int, int]]  # (groupID, threadID_in_group, i) -> row, column


@dataclass(frozen=True)
class Shape:
    """An instruction: its number in device/engine.h, and where the elements a_i and b_i belong."""

    number: int
    k: int
    dtype: torch.dtype
    a: Place
    b: Place
    a_elements: int
    b_elements: int


def a_16(group: int, member: int, i: int) -> tuple[int, int]:
    row = group if 0 <= i < 2 or 4 <= i < 6 else group + 8
    column = member * 2 + (i & 1) if i < 4 else member * 2 + (i & 1) + 8
    return row, column


def b_16(group: int, member: int, i: int) -> tuple[int, int]:
    return (member * 2 + (i & 1) if i < 2 else member * 2 + (i & 1) + 8), group


def a_8(group: int, member: int, i: int) -> tuple[int, int]:
    return (group if i < 2 else group + 8), member * 2 + (i & 1)


def b_8(group: int, member: int, i: int) -> tuple[int, int]:
    return member * 2 + i, group


def a_tf32_8(group: int, member: int, i: int) -> tuple[int, int]:
    return (group if i in (0, 2) else group + 8), (member if i in (0, 1) else member + 4)


def b_tf32_8(group: int, member: int, i: int) -> tuple[int, int]:
    return (member if i == 0 else member + 4), group


def a_tf32_4(group: int, member: int, i: int) -> tuple[int, int]:
    return (group if i == 0 else group + 8), member


def b_tf32_4(group: int, member: int, i: int) -> tuple[int, int]:
    return member, group


def c_place(group: int, member: int, i: int) -> tuple[int, int]:
    return (group if i < 2 else group + 8), member * 2 + (i & 1)


SHAPES = {
    "m16n8k16.f16": Shape(0, 16, torch.float16, a_16, b_16, 8, 4),
    "m16n8k16.bf16": Shape(1, 16, torch.bfloat16, a_16, b_16, 8, 4),
    "m16n8k8.f16": Shape(2, 8, torch.float16, a_8, b_8, 4, 2),
    "m16n8k8.bf16": Shape(3, 8, torch.bfloat16, a_8, b_8, 4, 2),
    "m16n8k8.tf32": Shape(4, 8, torch.float32, a_tf32_8, b_tf32_8, 4, 2),
    "m16n8k4.tf32": Shape(5, 4, torch.float32, a_tf32_4, b_tf32_4, 2, 1),
}


def fragments(matrix: Array, place: Place, elements: int) -> Array:
    """[32, elements]: what each lane holds of a matrix."""
    rows = [[matrix[place(t // 4, t % 4, i)] for i in range(elements)] for t in range(32)]
    return np.array(rows, matrix.dtype)


def random_matrix(shape: Shape, rows: int, columns: int) -> tuple[Array, Array]:
    """Bits of the elements as they lie in registers, and the values that the tensor core sees."""
    matrix = torch.randn(rows, columns).to(shape.dtype)
    if shape.dtype is not torch.float32:
        return matrix.view(torch.int16).numpy(), matrix.double().numpy()
    bits = matrix.numpy().view(np.uint32)
    # Only 10 bits of mantissa count; the rest is there to be ignored.
    return bits, (bits & 0xFFFFE000).view(np.float32).astype(np.float64)


@pytest.mark.parametrize("name", SHAPES)
def test_multiply(kernels: ModuleType, name: str) -> None:
    shape = SHAPES[name]
    a_bits, a = random_matrix(shape, 16, shape.k)
    b_bits, b = random_matrix(shape, shape.k, 8)
    c = torch.randn(16, 8).numpy()
    d = kernels.multiply(
        shape.number,
        fragments(a_bits, shape.a, shape.a_elements).view(np.uint32),
        fragments(b_bits, shape.b, shape.b_elements).view(np.uint32),
        fragments(c, c_place, 4),
    )
    np.testing.assert_allclose(d, fragments(a @ b + c, c_place, 4), rtol=1e-5, atol=1e-5)


def test_multiply_f64(kernels: ModuleType) -> None:
    random = np.random.default_rng(0)
    a, b = random.standard_normal((8, 4)), random.standard_normal((4, 8))
    c = random.standard_normal((8, 8))
    lane = np.arange(32)
    group, member = lane // 4, lane % 4
    d = kernels.multiply_f64(a[group, member], b[member, group], c.reshape(32, 2))
    np.testing.assert_allclose(d.reshape(8, 8), a @ b + c, rtol=1e-14)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("count", [1, 2, 4])
def test_load_matrices(kernels: ModuleType, count: int, transposed: bool) -> None:
    matrices = np.arange(count * 64, dtype=np.uint16).reshape(count, 8, 8)
    words = kernels.load_matrices(count, transposed, matrices.reshape(count * 8, 8))
    got = words.view(np.uint16).reshape(32, count, 2)
    for lane in range(32):
        for i in range(count):
            matrix = matrices[i].T if transposed else matrices[i]
            # "each thread holds two elements of a row": row lane / 4, columns 2 (lane % 4) and + 1
            row, column = lane // 4, lane % 4 * 2
            assert got[lane, i].tolist() == matrix[row, column : column + 2].tolist()
