"""Training of detectors: what photos become, and what a checkpoint says of the network."""

from __future__ import annotations

import pytest
import torch

from deformops.nets.detection import RFCN_SETTINGS
from deformops.nets.preprocessing import TORCHVISION_RGB
from deformops.training.detection.augmentation import fitting_scale, resized, side_by_side
from deformops.training.detection.network import DetectionNetwork


def test_fitting_scale() -> None:
    """The shorter side unless the longer one is in the way, as py-faster-rcnn has it."""
    assert fitting_scale((480, 640), 600, 1000) == 1.25
    assert fitting_scale((375, 500), 600, 1000) == 1.6
    assert fitting_scale((333, 1000), 600, 1000) == 1.0
    assert fitting_scale((480, 640), 240, 320) == 0.5
    photo, scale = resized(torch.zeros(3, 90, 41, dtype=torch.uint8), 20, 40)
    assert (photo.shape, photo.dtype, scale) == ((3, 40, 18), torch.uint8, 40 / 90)


def test_side_by_side() -> None:
    """Zeros surround what is prepared: the mean colour, not black."""
    photos = [torch.full((3, 4, 6), 200, dtype=torch.uint8), torch.zeros(3, 5, 3)]
    images, sizes = side_by_side(photos, TORCHVISION_RGB)
    assert sizes.tolist() == [[4, 6], [5, 3]]
    assert images.shape == (2, 3, 5, 6)
    for image, photo in zip(images, photos, strict=True):
        height, width = photo.shape[1:]
        assert torch.equal(image[:, :height, :width], TORCHVISION_RGB(photo))
        assert not image[:, height:].any()
        assert not image[:, :, width:].any()


def test_description() -> None:
    """What a checkpoint says is what is built: a class more, other settings and colours."""
    chosen = {"width": 0.05, "norm": "batch"}
    network = DetectionNetwork(
        "rfcn-resnet50", ("cell", "wheel"), chosen, "torchvision", (240, 400), {"min_size": 4.0}
    )
    assert DetectionNetwork.of(network.state()) == network
    net = network.build()
    assert (net.classes, net.preprocessing) == (3, TORCHVISION_RGB)
    assert (net.settings.min_size, net.settings.hard_rois) == (4.0, RFCN_SETTINGS.hard_rois)
    with pytest.raises(ValueError, match="describes no DetectionNetwork"):
        DetectionNetwork.of({**network.state(), "ignore": 255})
    with pytest.raises(ValueError, match=r"settings: expected some of anchors, .* got 'anchor'"):
        DetectionNetwork("rfcn-zf", ("cell",), settings={"anchor": 1}).build()
    with pytest.raises(ValueError, match="size: expected the shorter side"):
        DetectionNetwork("rfcn-zf", ("cell",), size=(600, 500))
