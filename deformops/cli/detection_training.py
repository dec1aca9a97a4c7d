"""What `deformops train-det` does: reads, builds, learns, writes, scores."""

from __future__ import annotations

import argparse
from typing import Any

import torch

from deformops.cli.alternation import alternate
from deformops.cli.detection_scores import problems, table
from deformops.cli.session import Session
from deformops.cli.train_det import SETTINGS
from deformops.cli.training_options import COMMON, chosen
from deformops.nets.detection import Detector, DetectorSettings
from deformops.training import Processes, class_names
from deformops.training.detection import (
    AnnotatedPhotos,
    DetectionNetwork,
    DetectionPredictor,
    DetectionRecipe,
    DetectionTrainer,
    Scenes,
    Variation,
    evaluate_detector,
)

#: Proposals before suppression, for each that is kept, as published: 12000 for 2000.
BEFORE = 6


def train(arguments: argparse.Namespace) -> int:
    """Trains a detector.

    Args:
        arguments: of the command.

    Returns:
        0, or 130 after Ctrl-C, when the file is written.

    Raises:
        ValueError: a file or an option cannot be used.
        OSError: likewise.
        DivergedError: the loss is no number any more.
    """
    with Processes.join(arguments.device) as processes:
        return _train(arguments, Session(arguments, processes))


def _train(arguments: argparse.Namespace, session: Session) -> int:
    given = None if arguments.names is None else class_names(arguments.names)
    photos = AnnotatedPhotos.of(arguments.data, arguments.split, given)
    names = ", ".join(photos.class_names)
    session.say(f"{len(photos)} photos, {len(photos.class_names)} classes: {names}")
    for problem in problems(photos):
        session.say(problem)
    recipe = _recipe(arguments, session.processes)
    network = _network(arguments, photos.class_names)
    torch.manual_seed(recipe.seed)
    net = network.build()
    if arguments.schedule == "alternate":
        session.prepare(network, net)
        trained = alternate(arguments, session, photos, network, net, recipe)
    else:
        trained = _jointly(arguments, session, photos, network, net, recipe)
    if trained is None:
        return 130
    if arguments.val is not None:
        _score(arguments, session, network, trained)
    return 0


def _jointly(
    arguments: argparse.Namespace,
    session: Session,
    photos: AnnotatedPhotos,
    network: DetectionNetwork,
    net: Detector,
    recipe: DetectionRecipe,
) -> Detector | None:
    """Trains both stages at once; returns the network, or None after an interruption."""
    trainer = DetectionTrainer(
        net, Scenes(photos), recipe, processes=session.processes, workers=arguments.workers
    )
    session.prepare(network, net)
    return net if session.learn(trainer, network, arguments.output) else None


def _score(
    arguments: argparse.Namespace, session: Session, network: DetectionNetwork, net: Detector
) -> None:
    """Scores the network on other photos."""
    photos = AnnotatedPhotos.of(arguments.data, arguments.val, network.class_names)
    predictor = DetectionPredictor(net, network.size)
    with session.progress().counting("photo") as on_photo:
        scores = evaluate_detector(
            predictor, photos, processes=session.processes, on_photo=on_photo
        )
    session.say(f"{len(photos)} photos of {arguments.data}, {arguments.val}")
    session.say(table(scores))


def _network(arguments: argparse.Namespace, names: tuple[str, ...]) -> DetectionNetwork:
    """The network that is asked for."""
    options = chosen(arguments, (*COMMON, "deformable_rois"))
    for name in ("scales", "ratios"):
        numbers = getattr(arguments, f"anchor_{name}")
        if numbers is not None:
            options[name] = tuple(numbers)
    settings: dict[str, Any] = chosen(arguments, SETTINGS)
    for name in ("rois", "hard_rois"):
        if settings.get(name) == 0:
            settings[name] = None
    if arguments.anchors is not None:
        settings.setdefault("positive_anchors", arguments.anchors // 2)
    if arguments.proposals is not None:
        usual = DetectorSettings()
        settings["proposals"] = (arguments.proposals, usual.proposals[1])
        settings["proposals_before"] = (BEFORE * arguments.proposals, usual.proposals_before[1])
    size = (arguments.sizes[0], arguments.longest)
    return DetectionNetwork(arguments.net, names, options, arguments.preprocessing, size, settings)


def _recipe(arguments: argparse.Namespace, processes: Processes) -> DetectionRecipe:
    keep = "learn" if arguments.weights is None else "keep"
    return DetectionRecipe(
        iterations=arguments.iterations,
        batch=arguments.batch,
        parts=arguments.parts or processes.count,
        lr=arguments.lr,
        momentum=arguments.momentum,
        weight_decay=arguments.weight_decay,
        clip=arguments.clip,
        seed=arguments.seed,
        drops=tuple(arguments.drops),
        warm_up=arguments.warm_up,
        keep_first=(arguments.first_layers or keep) == "keep",
        variation=Variation(
            sizes=tuple(arguments.sizes), longest=arguments.longest, mirror=not arguments.no_mirror
        ),
    )
