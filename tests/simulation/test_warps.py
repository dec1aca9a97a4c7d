"""Collectives of a warp and of a block, against a model in numpy."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from deformops import simulation


@pytest.mark.parametrize("seed", range(4))
def test_collectives(kernels: ModuleType, seed: int) -> None:
    with simulation.schedule(seed):
        out = kernels.collectives()
    thread = np.arange(64)
    lane, first = thread % 32, thread // 32 * 32
    ballot = sum(1 << i for i in range(0, 32, 3))
    expected = [
        first + (lane + 5) % 32,
        np.where(lane % 8 >= 3, thread - 3, thread),
        np.where(lane % 8 < 5, thread + 3, thread),
        first + (lane ^ 9),
        np.full(64, ballot - (1 << 32 if ballot >= 1 << 31 else 0)),
        np.where(thread >= 32, 1, 2),  # any(thread == 40) + 2 all(thread < 32)
        [match_mask(i % 32) for i in thread],
        np.where(thread < 32, sum(range(32)), sum(range(32, 64))),
        7 - first - 31,
        2 * (first + 30) + 1000 * 30,
        np.full(64, 13),  # multiples of 5 below 64
        np.full(64, 1),  # or is true, and is not
    ]
    assert np.array_equal(out, np.stack(expected, axis=1))


def match_mask(lane: int) -> int:
    mask = sum(1 << other for other in range(32) if other // 10 == lane // 10)
    return mask - (1 << 32) if mask >= 1 << 31 else mask


@pytest.mark.parametrize("seed", range(4))
def test_groups_within_a_warp_go_their_own_way(kernels: ModuleType, seed: int) -> None:
    values = np.arange(64, dtype=np.float32)
    with simulation.schedule(seed, 0.05):
        out = kernels.groups_of_eight(kernels.Mistake.NONE, values)
    assert np.array_equal(out, np.repeat(values.reshape(8, 8).sum(1), 8))
