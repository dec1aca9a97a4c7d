"""Files that a killed process leaves whole: the old one, or the new one."""

from __future__ import annotations

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch


def save(file: Path, contents: dict[str, Any]) -> None:
    """Writes tensors and plain values so that at any moment the file is the old or the new one.

    They are written beside it, forced to the disk, and renamed over it.

    Args:
        file: what is written; `.NAME.part` beside it is used on the way.
        contents: tensors, numbers, texts, and lists and dictionaries of them.

    Raises:
        OSError: it cannot be written.
    """
    part = file.with_name(f".{file.name}.part")
    try:
        with part.open("wb") as stream:
            torch.save(contents, stream)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(file.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load(file: Path) -> dict[str, Any]:
    """Reads what `save` has written, onto the CPU; runs no code that a file may bring.

    Raises:
        ValueError: it is no such file.
        OSError: it cannot be read.
    """
    expected = "expected a checkpoint of deformops train-seg or train-det"
    with file.open("rb") as stream:
        if not zipfile.is_zipfile(stream):
            raise ValueError(f"{file}: {expected}, got what is no file of torch.save's")
    try:
        contents = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(f"{file}: {expected}, got what torch.load refuses: {error}") from error
    if not isinstance(contents, dict) or "network" not in contents:
        raise ValueError(f"{file}: {expected}, got other contents")
    return contents
