"""What `deformops detect` does: reads, finds, draws."""

from __future__ import annotations

import argparse
import time
from dataclasses import replace

from deformops.cli.boxes import Labelled, draw_boxes
from deformops.cli.output import save_picture
from deformops.cli.trained import trained
from deformops.nets.detection import Detector
from deformops.pictures import class_colors, size_of
from deformops.training import Processes
from deformops.training.data import read_tensor
from deformops.training.detection import DetectionNetwork, DetectionPredictor


def detector(
    arguments: argparse.Namespace, processes: Processes
) -> tuple[DetectionNetwork, DetectionPredictor]:
    """The detector of a checkpoint.

    Raises:
        ValueError: the file is no checkpoint of one.
        OSError: it cannot be read.
    """
    network, net, _ = trained(arguments.weights, DetectionNetwork, "train-det")
    assert isinstance(net, Detector)
    return network, DetectionPredictor(net.to(processes.device), network.size)


def detect(arguments: argparse.Namespace) -> int:
    """Finds what a photo shows, prints it and draws it.

    Args:
        arguments: of the command.

    Returns:
        0.

    Raises:
        ValueError: a file or an option cannot be used.
        OSError: likewise.
    """
    processes = Processes.join(arguments.device)
    photo = read_tensor(arguments.photo)
    network, predictor = detector(arguments, processes)
    predictor.net.settings = replace(
        predictor.net.settings, min_score=arguments.min_score, detections=arguments.top
    )
    start = time.perf_counter()
    found = predictor.detections(photo)
    seconds = time.perf_counter() - start
    count = len(found["labels"])
    print(
        f"{arguments.photo}: {size_of(photo.shape[1:])} pixels, {seconds:.1f} s, {count} "
        f"{'object' if count == 1 else 'objects'} above {arguments.min_score:.0%}"
    )
    colors = class_colors(network.class_names).tolist()
    boxes = []
    for box, label, score in zip(*(found[name].tolist() for name in KEYS), strict=True):
        name, color = network.class_names[label - 1], colors[label - 1]
        print(f"  {name:<22}{score:>8.1%}   {' '.join(f'{side:>5.0f}' for side in box)}")
        boxes.append(Labelled(box, f"{name} {score:.0%}", tuple(color)))
    save_picture(draw_boxes(photo.permute(1, 2, 0).numpy(), boxes), arguments.output)
    return 0


KEYS = ("boxes", "labels", "scores")
