"""Slim networks."""

from __future__ import annotations


def scaled(channels: int, width: float) -> int:
    """A fraction of a number of channels, rounded, at least 1.

    Raises:
        ValueError: the fraction is not above 0.
    """
    if not width > 0:
        raise ValueError(f"width: expected a fraction above 0, got {width}")
    return max(1, round(channels * width))
