"""A segmentation network as a checkpoint describes it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from deformops.nets.preprocessing import CAFFE_BGR, TORCHVISION_RGB
from deformops.nets.segmentation import build_segmenter
from deformops.nets.segmenter import Segmenter

PREPROCESSINGS = {"caffe": CAFFE_BGR, "torchvision": TORCHVISION_RGB}


@dataclass(frozen=True)
class Network:
    """What it takes to build a network, and to read its labels.

    Attributes:
        name: of `deformops.nets.segmentation.networks()`.
        class_names: of the classes 0, 1, ...
        options: of the network.
        preprocessing: "caffe" or "torchvision"; None: the network's own.
        ignore: the label that said nothing in training.
    """

    name: str
    class_names: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    preprocessing: str | None = None
    ignore: int = 255

    @classmethod
    def of(cls, state: Mapping[str, Any]) -> Network:
        """As a checkpoint has it.

        Raises:
            ValueError: the checkpoint has something else.
        """
        try:
            return cls(**{**state, "class_names": tuple(state["class_names"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"the checkpoint describes no network: {error}") from error

    def state(self) -> dict[str, Any]:
        """Plain values for a checkpoint."""
        return asdict(self)

    def build(self) -> Segmenter:
        """Builds it, with weights from torch's global generator.

        Raises:
            ValueError: there is no such network, option or preprocessing.
        """
        options = dict(self.options)
        if self.preprocessing is not None:
            if self.preprocessing not in PREPROCESSINGS:
                raise ValueError(
                    f"preprocessing: expected {' or '.join(PREPROCESSINGS)}, got "
                    f"{self.preprocessing!r}"
                )
            options["preprocessing"] = PREPROCESSINGS[self.preprocessing]
        return build_segmenter(self.name, len(self.class_names), **options)
