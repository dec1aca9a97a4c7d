"""A linear chain by enumeration of all its labellings, and hidden Markov models likewise."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Labelling = tuple[int, ...]
Score = Callable[[Labelling], float]


def labellings(length: int, labels: int) -> Iterator[Labelling]:
    """Every sequence of labels of this length, in lexicographic order."""
    return itertools.product(range(labels), repeat=length)


def score(
    emissions: Array,
    transitions: Array,
    labelling: Labelling,
    start: Array | None = None,
    end: Array | None = None,
) -> float:
    """Emissions ``[T, L]`` and transitions ``[from, to]`` along a labelling, with its two ends."""
    total = 0.0
    for i, label in enumerate(labelling):
        total += emissions[i, label]
        if i > 0:
            total += transitions[labelling[i - 1], label]
    if start is not None:
        total += start[labelling[0]]
    if end is not None:
        total += end[labelling[-1]]
    return float(total)


def log_partition(length: int, labels: int, score: Score) -> float:
    """The logarithm of the sum of exp(score) over all labellings."""
    return float(np.logaddexp.reduce([score(each) for each in labellings(length, labels)]))


def marginals(length: int, labels: int, score: Score) -> Array:
    """The probability of each label at each place, ``[T, L]``."""
    total = log_partition(length, labels, score)
    result = np.zeros((length, labels))
    for each in labellings(length, labels):
        for i, label in enumerate(each):
            result[i, label] += np.exp(score(each) - total)
    return result


def expected(length: int, labels: int, score: Score, value: Callable[[Labelling], Array]) -> Array:
    """The mean over all labellings, weighed by their probability, of some numbers."""
    total = log_partition(length, labels, score)
    terms = [np.exp(score(each) - total) * value(each) for each in labellings(length, labels)]
    mean: Array = np.sum(terms, axis=0)
    return mean


def best(length: int, labels: int, score: Score) -> tuple[Labelling, float]:
    """The labelling with the highest score, and that score."""
    winner = max(labellings(length, labels), key=score)
    return winner, score(winner)


def hmm_joint(
    initial: Array, transition: Array, emission: Array, states: Labelling, seen: Sequence[int]
) -> float:
    """The probability that a hidden Markov model takes these states and shows these symbols."""
    probability = initial[states[0]] * emission[states[0], seen[0]]
    for i in range(1, len(states)):
        probability *= transition[states[i - 1], states[i]] * emission[states[i], seen[i]]
    return float(probability)
