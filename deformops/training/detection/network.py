"""A detection network as a checkpoint describes it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Any

from deformops.nets.detection import Detector, DetectorSettings, build_detector
from deformops.training.network import NetworkDescription

#: Settings that a description may change: numbers and pairs of them.
SETTINGS = tuple(one.name for one in fields(DetectorSettings) if not one.name.endswith("coder"))

#: Means and deviations of the codes of boxes, 4 numbers for the background and for each class.
BoxCode = tuple[tuple[tuple[float, ...], ...], tuple[tuple[float, ...], ...]]


@dataclass(frozen=True)
class DetectionNetwork(NetworkDescription):
    """A detector, one of `deformops.nets.detection.networks()`; its class 0 is the background.

    `class_names` are those of the classes 1, 2, ...

    Attributes:
        size: photos are made so large: pixels of their shorter side, and of the longer one at most.
        settings: numbers of `DetectorSettings` that are not the network's own.
        box_code: see `box_statistics`; None: the deviations of the network's own `roi_coder`.
    """

    size: tuple[int, int] = (600, 1000)
    settings: dict[str, Any] = field(default_factory=dict)
    box_code: BoxCode | None = None

    def __post_init__(self) -> None:
        """Raises ValueError for a size that is none."""
        if not 1 <= self.size[0] <= self.size[1]:
            raise ValueError(
                "size: expected the shorter side, from 1 on, and the longest that the other may "
                f"be, got {self.size}"
            )

    def build(self) -> Detector:
        """Builds it, with weights from torch's global generator.

        Raises:
            ValueError: there is no such network, option, setting or preprocessing.
        """
        preprocessing = self.chosen_preprocessing()
        for name in self.settings:
            if name not in SETTINGS:
                expected = f"expected some of {', '.join(SETTINGS)}"
                raise ValueError(f"settings: {expected}, got {name!r}")
        net = build_detector(self.name, len(self.class_names) + 1, **self.options)
        net.settings = replace(net.settings, **self.settings)
        if self.box_code is not None:
            means, stds = self.box_code
            coder = replace(net.settings.roi_coder, means=means, stds=stds)
            net.settings = replace(net.settings, roi_coder=coder)
        if preprocessing is not None:
            net.trunk.preprocessing = preprocessing
        return net
