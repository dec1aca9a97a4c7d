"""Schedules: a seed names one, and they differ where they may."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from deformops import simulation

VALUES = np.random.default_rng(0).standard_normal(5000).astype(np.float32)


def sums(kernels: ModuleType, seed: int, preemption: float = 0.0) -> list[float]:
    """Two sums whose last bits depend on the order in which blocks add to them."""
    with simulation.schedule(seed, preemption):
        return [float(kernels.block_sum(kernels.Mistake.NONE, VALUES)[0]) for _ in range(2)]


@pytest.mark.parametrize("preemption", [0.0, 0.1])
def test_seed_names_a_schedule(kernels: ModuleType, preemption: float) -> None:
    for seed in range(5):
        assert sums(kernels, seed, preemption) == sums(kernels, seed, preemption)


def test_schedules_differ(kernels: ModuleType) -> None:
    assert len({sums(kernels, seed)[0] for seed in range(1, 20)}) > 1
    # Launches of one seed differ as well.
    assert any(first != second for first, second in (sums(kernels, seed) for seed in range(1, 20)))


def test_seed_zero_is_a_fixed_order(kernels: ModuleType) -> None:
    first, second = sums(kernels, 0)
    assert first == second


def test_preemption_switches_more_often(kernels: ModuleType) -> None:
    counts = []
    for preemption in (0.0, 0.05, 1.0):
        simulation.clear_launches()
        with simulation.schedule(1, preemption):
            kernels.block_sum(kernels.Mistake.NONE, VALUES)
        counts.append(simulation.launches()[-1].switches)
    assert counts[0] < counts[1] < counts[2]


def test_exited_threads_may_count_as_arrived(kernels: ModuleType) -> None:
    """What compute capability 7.0 permits is an error unless it is asked for."""
    case = kernels.Mistake.EARLY_EXIT
    with pytest.raises(simulation.KernelError, match=r"barrier|warp"):
        kernels.block_sum(case, VALUES)
    # The thread also leaves a shuffle waiting, which nothing permits.
    with (
        simulation.schedule(0, allow_early_exit=True),
        pytest.raises(simulation.KernelError, match="__shfl_down_sync"),
    ):
        kernels.block_sum(case, VALUES)


def test_settings_are_restored(kernels: ModuleType) -> None:
    with simulation.schedule(7, 0.5):
        with simulation.schedule(3):
            pass
        simulation.clear_launches()
        kernels.block_sum(kernels.Mistake.NONE, VALUES)
        assert simulation.launches()[0].seed == 7
    with pytest.raises(ValueError, match="preemption"), simulation.schedule(1, 1.5):
        pass


def test_builds_are_named() -> None:
    with pytest.raises(ValueError, match="plain, race, asan"):
        simulation.load("fast")
    if not simulation.has_sanitizer():
        with pytest.raises(RuntimeError, match="simulation run asan"):
            simulation.load("asan")
