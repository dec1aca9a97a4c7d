"""What a trained detector finds on photos, and how right it is."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from deformops.nets.detection import Detector, clip_boxes
from deformops.training.detection.augmentation import resized, side_by_side
from deformops.training.detection.data import AnnotatedPhotos
from deformops.training.detection.scores import DetectionScores
from deformops.training.processes import Processes


class DetectionPredictor:
    """A detector of objects on photos of any size.

    Args:
        net: it is put into eval mode.
        size: photos are made so large: pixels of the shorter side, and of the longer one at most.
    """

    def __init__(self, net: Detector, size: tuple[int, int] = (600, 1000)) -> None:
        self.net = net.eval()
        self.size = size

    @torch.no_grad()
    def detections(self, photo: Tensor) -> dict[str, Tensor]:
        """The objects that a photo shows.

        Args:
            photo: [3, H, W] uint8.

        Returns:
            "boxes" [L, 4] as (x1, y1, x2, y2), in pixels of the photo, "scores" [L] and "labels"
            int64 [L], classes from 1, by falling score; on the CPU.
        """
        device = next(self.net.parameters()).device
        image, scale = resized(photo.to(device), *self.size)
        images, sizes = side_by_side([image], self.net.preprocessing)
        scales = torch.tensor([scale], device=device)
        found = self.net(images, sizes, image_scales=scales)[0]
        own_size = torch.tensor([photo.shape[-2:]], device=device)
        boxes = clip_boxes(found["boxes"][None] / scale, own_size)[0]
        return {name: value.cpu() for name, value in {**found, "boxes": boxes}.items()}


def evaluate_detector(
    predictor: DetectionPredictor,
    photos: AnnotatedPhotos,
    *,
    processes: Processes | None = None,
    on_photo: Callable[[int, int], None] | None = None,
) -> DetectionScores:
    """Scores a detector on photos with boxes.

    Args:
        predictor: the detector.
        photos: and the objects on them.
        processes: the photos are shared by them; each gets the whole result.
        on_photo: called after each photo with its number, from 1 on, and how many this process has.

    Returns:
        What was found, and how right it is.
    """
    together = processes or Processes()
    own = range(together.rank, len(photos), together.count)
    found: dict[int, dict[str, Tensor]] = {}
    for number, which in enumerate(own, 1):
        photo, _ = photos[which]
        found[which] = predictor.detections(photo)
        if on_photo is not None:
            on_photo(number, len(own))
    scores = DetectionScores(photos)
    for part in together.gather(found):
        for which, detections in part.items():
            scores.add(which, detections)
    return scores
