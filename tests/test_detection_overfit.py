"""Slim detectors learn two photos by heart, in a few steps on one core."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from torch import Tensor

from deformops import box_iou
from deformops.nets.detection import Detector, DetectorSettings, build_detector

BCCD = Path(__file__).resolve().parents[2] / "shared" / "data" / "bccd"
BLOOD = ("WBC", "RBC", "Platelets")
CORNERS = ("xmin", "ymin", "xmax", "ymax")

FEW = DetectorSettings(proposals=(200, 100), proposals_before=(1000, 1000), rois=64)
FEW_ANCHORS = DetectorSettings(anchors=32, positive_anchors=16)

Objects = dict[str, Tensor]


def squares() -> tuple[Tensor, list[Objects]]:
    """Two noisy pictures with three squares each, of two colours."""
    colours = torch.tensor([[60.0, -40, 20], [-50, 50, -50]])
    places = [[(12, 20, 40, 1), (80, 10, 56, 2), (40, 76, 44, 2)]]
    places += [[(90, 60, 48, 1), (10, 50, 60, 2), (100, 8, 40, 1)]]
    images = torch.randn(2, 3, 128, 160, generator=torch.Generator().manual_seed(0)) * 8
    targets = []
    for image, placed in zip(images, places, strict=True):
        for x, y, size, label in placed:
            image[:, y : y + size, x : x + size] += colours[label - 1, :, None, None]
        boxes = [[x, y, x + size - 1, y + size - 1] for x, y, size, _ in placed]
        labels = torch.tensor([label for *_, label in placed])
        targets.append({"boxes": torch.tensor(boxes).float(), "labels": labels})
    return images, targets


def blood(net: Detector) -> tuple[Tensor, list[Objects]]:
    """Two photos of blood cells at half size."""
    image_file = pytest.importorskip("PIL.Image")
    images, targets = [], []
    for name in ("BloodImage_00001", "BloodImage_00010"):
        photo = image_file.open(BCCD / "JPEGImages" / f"{name}.jpg").resize((320, 240))
        pixels = torch.from_numpy(np.array(photo.convert("RGB")))
        images.append(net.preprocessing(pixels.permute(2, 0, 1)))
        boxes, labels = [], []
        for found in ElementTree.parse(BCCD / "Annotations" / f"{name}.xml").iter("object"):
            corners = [float(found.findtext(f"bndbox/{corner}", "")) for corner in CORNERS]
            boxes.append([(corner - 1) / 2 for corner in corners])
            labels.append(BLOOD.index(str(found.findtext("name"))) + 1)
        targets.append({"boxes": torch.tensor(boxes), "labels": torch.tensor(labels)})
    return torch.stack(images), targets


def learn(net: Detector, images: Tensor, targets: list[Objects], steps: int) -> list[float]:
    """Trains all layers, the last quarter more slowly; returns the loss of each step."""
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, steps * 3 // 4, gamma=0.2)
    history = []
    for _ in range(steps):
        losses = net.train()(images, None, targets)
        total = torch.stack(list(losses.values())).sum()
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        schedule.step()
        history.append(total.item())
    return history


def found_again(net: Detector, images: Tensor, targets: list[Objects]) -> list[bool]:
    """Whether each object has a detection of its class above 0.5 that overlaps it by half."""
    result = []
    with torch.no_grad():
        for found, target in zip(net.eval()(images), targets, strict=True):
            sure = found["scores"] > 0.5
            overlaps = box_iou(target["boxes"], found["boxes"][sure])
            same = target["labels"][:, None] == found["labels"][sure]
            result += (overlaps * same > 0.5).any(1).tolist()
    return result


NETS: list[tuple[str, dict[str, Any]]] = [
    ("faster-rcnn-vgg16", {"dropout": 0.0, "settings": FEW}),
    ("rfcn-vgg16", {"deformable_rois": True, "settings": FEW}),
    ("class-aware-rpn-vgg16", {"settings": FEW_ANCHORS}),
]


@pytest.mark.parametrize(("name", "chosen"), NETS, ids=[name for name, _ in NETS])
def test_squares(name: str, chosen: dict[str, Any]) -> None:
    """The loss falls to a half at least, and at least four of the six squares are found again."""
    torch.manual_seed(0)
    net = build_detector(name, 3, width=1 / 8, scales=(2, 4), **chosen)
    images, targets = squares()
    history = learn(net, images, targets, 80)
    assert sum(history[-5:]) < 0.5 * sum(history[:5])
    assert sum(found_again(net, images, targets)) >= 4


def test_photos() -> None:
    """Two photos of blood cells, 37 objects: the loss falls from above 2 to below 1.1."""
    if not BCCD.is_dir():
        pytest.skip("photos with boxes are not at ../shared/data/bccd")
    torch.manual_seed(0)
    options: dict[str, Any] = {"dropout": 0.0, "scales": (1, 2, 4, 8), "settings": FEW}
    net = build_detector("faster-rcnn-vgg16", 4, width=1 / 8, **options)
    images, targets = blood(net)
    history = learn(net, images, targets, 80)
    assert history[0] > 2
    assert sum(history[-5:]) / 5 < 1.1
    found = found_again(net, images, targets)
    assert len(found) == 37
    assert sum(found) >= 8
