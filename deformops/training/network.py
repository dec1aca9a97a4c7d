"""A network as a checkpoint describes it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from torch import nn

from deformops.nets.preprocessing import CAFFE_BGR, TORCHVISION_RGB, Preprocessing
from deformops.nets.segmentation import build_segmenter
from deformops.nets.segmenter import Segmenter

PREPROCESSINGS = {"caffe": CAFFE_BGR, "torchvision": TORCHVISION_RGB}

Described = TypeVar("Described", bound="NetworkDescription")


@dataclass(frozen=True)
class NetworkDescription(ABC):
    """What it takes to build a network, and to read what it says.

    Attributes:
        name: of the network.
        class_names: of the classes that it tells apart.
        options: of the network.
        preprocessing: "caffe" or "torchvision"; None: the network's own.
    """

    name: str
    class_names: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    preprocessing: str | None = None

    @classmethod
    def of(cls: type[Described], state: Mapping[str, Any]) -> Described:
        """As a checkpoint has it.

        Raises:
            ValueError: the checkpoint has something else.
        """
        others = set(state) - {one.name for one in fields(cls)}
        if others:
            raise ValueError(f"it describes no {cls.__name__}, but has {', '.join(sorted(others))}")
        try:
            return cls(**{**state, "class_names": tuple(state["class_names"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"it describes no {cls.__name__}: {error}") from error

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    @abstractmethod
    def build(self) -> nn.Module:
        """Builds it, with weights from torch's global generator.

        Raises:
            ValueError: there is no such network, option or preprocessing.
        """

    def chosen_preprocessing(self) -> Preprocessing | None:
        """What photos go through; None: the network's own.

        Raises:
            ValueError: there is no such preprocessing.
        """
        if self.preprocessing is not None and self.preprocessing not in PREPROCESSINGS:
            raise ValueError(
                f"preprocessing: expected {' or '.join(PREPROCESSINGS)}, got {self.preprocessing!r}"
            )
        return None if self.preprocessing is None else PREPROCESSINGS[self.preprocessing]


@dataclass(frozen=True)
class Network(NetworkDescription):
    """A segmentation network, one of `deformops.nets.segmentation.networks()`.

    Attributes:
        ignore: the label that said nothing in training.
    """

    ignore: int = 255

    def build(self) -> Segmenter:
        """Builds it, with weights from torch's global generator.

        Raises:
            ValueError: there is no such network, option or preprocessing.
        """
        options = dict(self.options)
        preprocessing = self.chosen_preprocessing()
        if preprocessing is not None:
            options["preprocessing"] = preprocessing
        return build_segmenter(self.name, len(self.class_names), **options)
