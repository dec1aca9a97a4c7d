"""Loads libdeformops.so, which registers torch.ops.deformops, or says what would help."""

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
        ImportError: torch is too old, the library was not built, or it does not load. The message
            names the versions found and what would fix it.
    """
    cuda = torch.version.cuda or "none"
    found = f"Found: deformops {version}, torch {torch.__version__} (CUDA {cuda}), {path}."
    if _release(torch.__version__) < MINIMUM_TORCH:
        needed = "torch>=" + ".".join(map(str, MINIMUM_TORCH))
        raise ImportError(
            f"deformops needs {needed}: python -m pip install --upgrade '{needed}'. {found}"
        )
    if not path.is_file():
        raise ImportError(
            "The native library of deformops is missing: this source tree was not built. Run "
            "`make build`, or `python -m pip install --no-build-isolation -e .` in the checkout. "
            f"{found}"
        )
    try:
        torch.ops.load_library(str(path))
    except OSError as error:
        # torch wraps what the dynamic loader said into an error that only names the file.
        reason = str(error.__cause__ or error.__context__ or error)
        raise ImportError(f"{_remedy(reason)} The loader said: {reason}. {found}") from error


def _release(version: str) -> tuple[int, int]:
    match = re.match(r"(\d+)\.(\d+)", version)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _remedy(error: str) -> str:
    """What to do about a message of the dynamic loader."""
    if "undefined symbol" in error:
        return (
            "The native library of deformops asks this torch for a function that it does not have: "
            "the library is older than the package (rebuild with `make build`), or this torch is "
            "no release (install one)."
        )
    if "GLIBC" in error:
        return (
            "The native library of deformops was built on a newer system; build it on this one: "
            "python -m pip install --force-reinstall --no-deps --no-binary deformops-vision "
            "deformops-vision."
        )
    if any(sign in error for sign in ("ELF class", "ELF header", "file too short")):
        return (
            "The native library of deformops is damaged or made for another processor: reinstall "
            "deformops-vision."
        )
    return "The native library of deformops does not load."
