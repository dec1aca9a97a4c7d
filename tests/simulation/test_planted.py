"""Planted mistakes are noticed, and right kernels never suspected."""

from __future__ import annotations

import pytest

from deformops.simulation import selftest

SEEDS = range(20)
# Mistake -> build -> what it has to be noticed as (any of these), in at least so many of 20
# schedules. "value": by a wrong result only, thanks to poisoned memory and adverse schedules.
EXPECTED: dict[str, dict[str, tuple[set[str], int]]] = {
    "MISSING_BARRIER": {
        "plain": ({"value"}, 20),
        "race": ({"unwritten read", "race"}, 20),
        "asan": ({"value"}, 20),
    },
    "SHARED_OVERRUN": {
        "plain": ({"overrun"}, 20),
        "race": ({"out of bounds"}, 20),
        "asan": ({"undefined behaviour"}, 20),
    },
    "MISSING_WARP_BARRIER": {
        "plain": ({"value"}, 18),
        "race": ({"race"}, 20),
        "asan": ({"value"}, 18),
    },
    "MISSING_WAIT": {
        "plain": ({"value"}, 20),
        "race": ({"async copy"}, 20),
        "asan": ({"value"}, 20),
    },
    "NO_BARRIER_AFTER_WAIT": {
        "plain": ({"value"}, 18),
        "race": ({"unwritten read", "race"}, 20),
        "asan": ({"value"}, 18),
    },
    "NO_BARRIER_BEFORE_REFILL": {
        "plain": ({"value"}, 19),
        "race": ({"race"}, 20),
        "asan": ({"value"}, 18),
    },
    # Races without a trace: only the checker of every access knows.
    "NOT_ATOMIC": {"plain": (set(), 0), "race": ({"race"}, 20), "asan": (set(), 0)},
    "MISSING_FENCE": {"plain": (set(), 0), "race": ({"race"}, 20), "asan": (set(), 0)},
    "PAST_THE_END": {
        "plain": (set(), 0),
        "race": ({"out of bounds"}, 20),
        "asan": ({"address sanitizer"}, 20),
    },
    "UNWRITTEN_GLOBAL": {
        "plain": ({"value"}, 20),
        "race": ({"unwritten read"}, 20),
        "asan": ({"value"}, 20),
    },
    "MISALIGNED": {
        "plain": ({"fault"}, 20),
        "race": ({"misaligned"}, 20),
        "asan": ({"undefined behaviour"}, 20),
    },
    "DIVISION_BY_ZERO": {
        "plain": ({"fault"}, 20),
        "race": ({"fault"}, 20),
        "asan": ({"undefined behaviour"}, 20),
    },
}
ALIKE_EVERYWHERE = {
    "DIVERGENT_BARRIER": {"barrier"},
    "TWO_BARRIERS": {"barrier"},
    "EARLY_EXIT": {"barrier", "warp"},  # it leaves a barrier, or a shuffle before that, waiting
    "MISSING_LANE": {"warp"},
    "WRONG_MASK": {"warp"},
    "MISMATCHED_COLLECTIVE": {"warp"},
    "WRONG_FRAGMENT": {"value"},
    "UNFINISHED_COPY": {"async copy"},
    "WRITE_TO_INPUT": {"read only"},
    "TOO_MUCH_SHARED": {"launch"},
    "ENDLESS_RECURSION": {"fault"},
}
CASES = selftest.cases()
PLANTED = [case for case in CASES if case.mistake != "NONE"]
RIGHT = [case for case in CASES if case.mistake == "NONE"]


@pytest.mark.parametrize("preemption", [0.0, 0.01])
@pytest.mark.parametrize("case", RIGHT, ids=lambda case: case.kernel)
def test_right_kernels_are_not_suspected(
    case: selftest.Case, build: str, preemption: float
) -> None:
    assert selftest.noticed(case, build, SEEDS, preemption) == {}


@pytest.mark.parametrize("case", PLANTED, ids=lambda case: case.name)
def test_mistakes_are_noticed(case: selftest.Case, build: str) -> None:
    everywhere = (ALIKE_EVERYWHERE.get(case.mistake, set()), len(SEEDS))
    kinds, at_least = EXPECTED.get(case.mistake, {}).get(build, everywhere)
    found = selftest.noticed(case, build, SEEDS)
    assert set(found) <= kinds
    assert found.total() >= at_least


def test_every_mistake_has_an_expectation() -> None:
    assert {case.mistake for case in PLANTED} == {*EXPECTED, *ALIKE_EVERYWHERE}
