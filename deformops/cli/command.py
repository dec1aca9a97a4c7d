"""What commands that work on pictures have in common."""

from __future__ import annotations

import argparse
import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Command:
    """The `run` of a command: options are checked first, and mistakes become a line of text.

    Attributes:
        name: of the command.
        check: raises ValueError for options that make no sense.
        module: with the function that does the work, imported once the options are checked.
        function: its name. It takes the options and returns the exit status; it may raise
            ValueError, OSError and ArithmeticError with a text for the user.
    """

    name: str
    check: Callable[[argparse.Namespace], None]
    module: str
    function: str

    def __call__(self, arguments: argparse.Namespace) -> int:
        """Runs the command.

        Returns:
            The exit status: what the function returns, or 1 after a message to the error output.
        """
        try:
            if importlib.util.find_spec("PIL") is None:
                raise ValueError("it needs Pillow: pip install 'deformops-vision[nets]'")
            self.check(arguments)
            work: Callable[[argparse.Namespace], int] = getattr(
                importlib.import_module(self.module), self.function
            )
            return work(arguments)
        except BrokenPipeError:
            raise  # Nobody listens any more, which is no mistake: the program ends quietly.
        except (ValueError, OSError, ArithmeticError) as error:
            text: object = error
            if isinstance(error, OSError) and error.filename is not None and error.strerror:
                text = f"{error.filename}: {error.strerror}"
            print(f"deformops {self.name}: {text}", file=sys.stderr)
            return 1
