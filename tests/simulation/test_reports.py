"""What the device says: errors name the place, launches are counted, memory traffic is measured."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from deformops import simulation
from deformops.simulation import report

SELFTEST = Path(__file__).parents[2] / "csrc" / "simulation" / "selftest"


def line_of(file: str, text: str) -> str:
    """`csrc/.../file:line` of the only line that contains `text`."""
    lines = (SELFTEST / file).read_text().splitlines()
    (number,) = [i for i, line in enumerate(lines, start=1) if text in line]
    return f"csrc/simulation/selftest/{file}:{number}"


def test_error_names_kernel_block_thread_file_and_line(kernels: ModuleType) -> None:
    values = np.ones(1000, np.float32)
    with pytest.raises(simulation.KernelError) as caught:
        kernels.block_sum(kernels.Mistake.TWO_BARRIERS, values)
    failure = caught.value.failure
    assert failure.kind == "barrier"
    assert failure.op == "block_sum"
    assert "sum_kernel" in failure.kernel
    assert failure.in_thread
    assert (failure.block, failure.thread) == ((0, 0, 0), (32, 0, 0))
    assert repr(failure.stack[0]).startswith("csrc/simulation/selftest/block_sum.cu:")
    for part in ("sum_kernel", "block (0, 0, 0)", "thread (32, 0, 0)", "block_sum.cu:", "seed 0"):
        assert part in str(caught.value)
    assert isinstance(caught.value, RuntimeError)


def test_place_of_an_access(race_kernels: ModuleType) -> None:
    kernels = race_kernels
    with pytest.raises(simulation.KernelError) as caught:
        kernels.copy(kernels.Mistake.PAST_THE_END, np.ones(1001, np.float32))
    stack = [repr(place) for place in caught.value.failure.stack]
    assert stack == [line_of("memory.cu", "in[i + 1] == 1e30f")]
    assert "0 bytes past the end of `in` (read-only, 4004 bytes)" in str(caught.value)


def test_race_names_both_places(race_kernels: ModuleType) -> None:
    kernels = race_kernels
    with pytest.raises(simulation.KernelError) as caught:
        kernels.warp_tree(kernels.Mistake.MISSING_WARP_BARRIER, np.ones(256, np.float32))
    assert line_of("warps.cu", "const float other =") in str(caught.value)
    assert line_of("warps.cu", "sums[thread] += other") in str(caught.value)
    assert "shared `sums`" in str(caught.value)


def test_device_works_on_after_a_failure(kernels: ModuleType) -> None:
    values = np.ones(1000, np.float32)
    for mistake in ("DIVERGENT_BARRIER", "SHARED_OVERRUN", "MISSING_LANE"):
        with pytest.raises(simulation.KernelError):
            kernels.block_sum(getattr(kernels.Mistake, mistake), values)
        failure = simulation.last_failure()
        assert failure is not None
        assert "sum_kernel" in failure.kernel
        assert kernels.block_sum(kernels.Mistake.NONE, values) == 1000


def test_launches_are_counted(kernels: ModuleType) -> None:
    simulation.clear_launches()
    kernels.block_sum(kernels.Mistake.NONE, np.ones(1000, np.float32))
    a = np.zeros((64, 32), np.uint16)
    kernels.gemm(kernels.Mistake.NONE, a, a[:32])
    kernels.through_scratch(kernels.Mistake.NONE, np.ones(100, np.float32))
    total, product, doubled, copied = simulation.launches()

    assert "sum_kernel" in total.kernel
    assert (total.grid, total.block) == ((4, 1, 1), (256, 1, 1))
    assert (total.static_shared_bytes, total.dynamic_shared_bytes) == (32, 0)
    assert (total.threads, total.block_barriers, total.atomics) == (1024, 4, 4)
    assert total.warp_collectives == 4 * (8 * 5 + 3)
    assert (product.grid, product.dynamic_shared_bytes) == ((1, 1, 1), 2 * (64 * 40 + 32 * 40) * 2)
    assert product.multiplications == 4 * 2 * 4  # warps, steps in depth, columns
    assert product.async_copies == 64 * 32 // 8 + 32 * 32 // 8
    assert product.block_barriers == 2
    assert (doubled.grid, copied.grid) == ((2, 1, 1), (2, 1, 1))
    assert copied.number == doubled.number + 1


def test_bytes_are_counted(race_kernels: ModuleType) -> None:
    simulation.clear_launches()
    race_kernels.copy(race_kernels.Mistake.NONE, np.ones(1001, np.float32))
    (launch,) = simulation.launches()
    assert (launch.bytes_read, launch.bytes_written) == (4004, 4004)


@pytest.mark.parametrize(("stride", "sectors"), [(0, 1), (1, 4), (2, 8), (8, 32), (100, 32)])
def test_global_transactions(race_kernels: ModuleType, stride: int, sectors: int) -> None:
    values = np.empty(32 * 100 + 8, np.float32)
    skip = -values.ctypes.data // 4 % 8  # to the next multiple of a sector's 32 bytes
    values = values[skip : skip + 31 * 100 + 1]
    values[:] = np.arange(values.size)
    with simulation.profile() as launches:
        out = race_kernels.strided(values, stride)
    assert np.array_equal(out, np.arange(32) * stride)
    loads = report.total(launches, "global", "load")
    assert loads == report.Traffic(1, 0, 128, sectors, min(sectors, 4))
    assert launches[0].sectors_read == sectors


@pytest.mark.parametrize(("pitch", "passes"), [(32, 32), (33, 1), (34, 2), (36, 4), (48, 16)])
def test_bank_conflicts(race_kernels: ModuleType, pitch: int, passes: int) -> None:
    values = np.arange(1024, dtype=np.float32).reshape(32, 32)
    with simulation.profile() as launches:
        out = race_kernels.transpose(values, pitch)
    assert np.array_equal(out, values.T)
    # Rows go in without a conflict; columns come out, 32 rows apart.
    assert report.total(launches, "shared", "store") == report.Traffic(32, 0, 4096, 32, 32)
    assert report.total(launches, "shared", "load") == report.Traffic(32, 0, 4096, 32 * passes, 32)


def test_vector_access_is_one_request(race_kernels: ModuleType) -> None:
    values = np.zeros(4 * 64 + 8, np.float32)
    skip = -values.ctypes.data // 4 % 8
    with simulation.profile() as launches:
        race_kernels.copy(race_kernels.Mistake.NONE, values[skip : skip + 256])
    assert report.total(launches, "global", "load") == report.Traffic(2, 0, 1024, 32, 32)


def test_divergent_requests(race_kernels: ModuleType) -> None:
    with simulation.profile() as launches:
        race_kernels.block_sum(race_kernels.Mistake.NONE, np.ones(1024, np.float32))
    # One lane of each warp writes to shared memory; one warp of each block reads 8 values back.
    stores, loads = (report.total(launches, "shared", motion) for motion in ("store", "load"))
    assert (stores.requests, stores.partial) == (32, 32)
    assert (loads.requests, loads.partial) == (4, 4)
    assert report.total(launches, "global", "atomic").requests == 4


def test_tables(race_kernels: ModuleType) -> None:
    with simulation.profile() as launches:
        race_kernels.transpose(np.zeros((32, 32), np.float32), 32)
    head, row = report.table(launches).splitlines()
    assert "transpose_kernel" in row
    assert len(head.split("  ")) > 5
    worst = report.hot_lines(launches).splitlines()[1]
    assert worst.split()[:2] == ["shared", "load"]
    assert worst.endswith(line_of("traffic.cu", "= tile[threadIdx.x"))
