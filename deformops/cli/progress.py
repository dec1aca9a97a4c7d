"""One line that is written over, where somebody looks at it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class ProgressLine:
    """A line of the error output that shows how far something is; nothing where no terminal is.

    Args:
        quiet: show nothing anywhere.
    """

    def __init__(self, quiet: bool = False) -> None:
        self.on = sys.stderr.isatty() and not quiet

    def show(self, text: str, number: int = 0, of: int = 0) -> None:
        """Shows a text, and of how many things how many are done."""
        if self.on:
            filled = round(20 * number / of) if of else 0
            bar = f"[{'#' * filled}{'.' * (20 - filled)}] " if of else ""
            print(f"\r\033[K{bar}{text}", end="", file=sys.stderr, flush=True)

    @contextmanager
    def counting(self, what: str) -> Iterator[Callable[[int, int], None]]:
        """A function of a number and of how many that shows them, until the line is taken away."""
        try:
            yield lambda number, of: self.show(f"{what} {number} of {of}", number, of)
        finally:
            self.clear()

    def clear(self) -> None:
        """Takes the line away."""
        if self.on:
            print("\r\033[K", end="", file=sys.stderr, flush=True)
