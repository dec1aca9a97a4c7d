"""Loads libdeformops.so, which registers torch.ops.deformops; says what would help when it cannot."""

from __future__ import annotations

import re
from pathlib import Path

import torch

MINIMUM_TORCH = (2, 13)
LIBRARY = Path(__file__).with_name("libdeformops.so")


def load_library(version: str, path: Path = LIBRARY) -> None:
    """Loads the library at `path`.

    Args:
        version: version of this package, for messages.
        path: the shared library.

    Raises:
        ImportError: torch is too old, the library was not built, or it does not load. The message names the versions
            found and what would fix it.
    """
    found = f"deformops {version}, torch {torch.__version__} (CUDA {torch.version.cuda or 'none'}), {path}"
    if _release(torch.__version__) < MINIMUM_TORCH:
        needed = ".".join(map(str, MINIMUM_TORCH))
        raise ImportError(
            f"deformops needs torch >= {needed}: python -m pip install --upgrade 'torch>={needed}'. Found: {found}."
        )
    if not path.is_file():
        raise ImportError(
            "The native library of deformops is missing: this is a source tree that was not built. Run `make build`, or "
            f"`python -m pip install --no-build-isolation -e .` in the checkout. Found: {found}."
        )
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        raise ImportError(f"{_remedy(str(error))} The loader said: {error}. Found: {found}.") from error


def _release(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _remedy(error: str) -> str:
    """What to do about a message of the dynamic loader."""
    if "undefined symbol" in error:
        return (
            "The native library of deformops asks this torch for a function that it does not have. Either the library "
            "is older than the package (rebuild: `make build`), or torch is an unusual build: install a release."
        )
    if "GLIBC" in error:
        return "The native library of deformops was built on a newer system; build it here: pip install --no-binary :all: deformops-vision."
    if "wrong ELF class" in error or "invalid ELF header" in error or "file too short" in error:
        return "The native library of deformops is damaged or made for another processor; reinstall deformops-vision."
    return "The native library of deformops does not load."
