"""The network that is looked at, and the photo as it sees it."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from deformops.cli.trained import trained
from deformops.nets import detection
from deformops.nets.preprocessing import TORCHVISION_RGB, Preprocessing
from deformops.training.augmentation import scaled
from deformops.training.checkpoint import load
from deformops.training.detection import DetectionNetwork, fitting_scale
from deformops.training.network import PREPROCESSINGS, Network

LONGEST_SIDE = 800
Result = TypeVar("Result")
UNIT = Preprocessing((0.0, 0.0, 0.0), (255.0, 255.0, 255.0))


@dataclass(frozen=True)
class Subject:
    """What is looked at.

    Attributes:
        name: for titles.
        net: the network.
        photo: [3, H, W] uint8, of the size that the network sees.
        images: [1, 3, H, W], what it is called with.
        scale: how many times larger that is than the photo that was given.
    """

    name: str
    net: nn.Module
    photo: Tensor
    images: Tensor
    scale: float


def subject(arguments: argparse.Namespace, photo: Tensor, device: torch.device) -> Subject:
    """Finds the network that the arguments name and makes the photo fit it.

    Args:
        arguments: of the command.
        photo: [3, H, W] uint8.
        device: where the network runs.

    Raises:
        ValueError: MODEL names no network.
        OSError: a file cannot be read.
    """
    size = photo.shape[-2:]
    own, colon, name = arguments.model.rpartition(":")
    if not colon or Path(arguments.model).is_file():
        name, net, scale = _of_checkpoint(Path(arguments.model), (size[0], size[1]))
    else:
        net, scale = _of_module(own, name), min(1.0, LONGEST_SIDE / max(size))
    if arguments.size is not None:
        scale = arguments.size / max(size)
    fitting = scaled(size, scale)
    seen = photo
    if fitting != tuple(size):
        seen = F.interpolate(photo[None], fitting, mode="bilinear", antialias=True)[0]
    preprocessing = _preprocessing(net, arguments.preprocessing)
    return Subject(name, net.to(device), seen, preprocessing(seen[None]).to(device), scale)


def _of_checkpoint(file: Path, size: tuple[int, int]) -> tuple[str, nn.Module, float]:
    """The name of a trained network, the network, and how much larger it wants photos."""
    if not file.exists():
        raise ValueError(
            f"MODEL: expected a checkpoint, package.module:name or file.py:name, got {file}: there "
            "is no such file"
        )
    kind = load(file)["network"].get("name")
    if kind in detection.networks():
        detector, net, _ = trained(file, DetectionNetwork, "train-det")
        return detector.name, net, fitting_scale(size, *detector.size)
    network, net, state = trained(file, Network, "train-seg or train-det")
    return network.name, net, 1 / float(state["recipe"]["augmentation"]["reduce"])


def _of_module(place: str, name: str) -> nn.Module:
    """The network of a name in a file of Python, or in a module that can be imported."""
    found = _imported(place)
    value = getattr(found, name, None)
    if value is None:
        raise ValueError(f"MODEL: {place} has no {name!r}")
    if not isinstance(value, nn.Module) and callable(value):
        value = calling(f"{place}:{name}()", value)
    if not isinstance(value, nn.Module):
        raise ValueError(
            f"MODEL: expected a torch.nn.Module or a function that returns one, got "
            f"{place}:{name}, a {type(value).__name__}"
        )
    return value


def _imported(place: str) -> ModuleType:
    if not place.endswith(".py"):
        sys.path.insert(0, "")  # as python -m has it
        try:
            module: ModuleType = calling(place, lambda: importlib.import_module(place))
        finally:
            sys.path.remove("")
        return module
    file = Path(place)
    if not file.is_file():
        raise ValueError(f"MODEL: there is no file {file}")
    loader = SourceFileLoader(file.stem, str(file))
    module = ModuleType(file.stem)
    module.__file__ = str(file)
    # What it imports may lie beside it.
    sys.path.insert(0, str(file.resolve().parent))
    try:
        calling(place, lambda: loader.exec_module(module))
    finally:
        sys.path.pop(0)
    return module


def calling(what: str, function: Callable[[], Result]) -> Result:
    """Calls what is not ours: whatever it raises becomes a ValueError that tells of it."""
    try:
        return function()
    except Exception as error:
        raise ValueError(f"{what} raised {type(error).__name__}: {error}") from error


def _preprocessing(net: nn.Module, chosen: str | None) -> Preprocessing:
    if chosen is not None:
        return {**PREPROCESSINGS, "unit": UNIT}[chosen]
    own = getattr(net, "preprocessing", None)
    return own if isinstance(own, Preprocessing) else TORCHVISION_RGB
