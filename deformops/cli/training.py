"""What `deformops train-seg` does: reads, builds, learns, writes, scores."""

from __future__ import annotations

import argparse

import torch

from deformops.cli.evaluation import table
from deformops.cli.session import Session
from deformops.cli.training_options import COMMON, chosen
from deformops.training import (
    Augmentation,
    LabelledPhotos,
    Predictor,
    Processes,
    Recipe,
    Trainer,
    class_names,
    color_components,
    evaluate,
    find_split,
)
from deformops.training.network import Network

# Photos that the principal components of colours are taken from.
MOST_FOR_COLORS = 100


def train(arguments: argparse.Namespace) -> int:
    """Trains a network.

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
    photos, network = _photos(arguments)
    recipe = _recipe(arguments, photos, session.processes)
    names = ", ".join(network.class_names)
    session.say(f"{len(photos)} photos, {photos.classes} classes: {names}")
    torch.manual_seed(recipe.seed)
    net = network.build()
    session.prepare(network, net)
    trainer = Trainer(net, photos, recipe, processes=session.processes, workers=arguments.workers)
    if not session.learn(trainer, network, arguments.output):
        return 130
    _score(arguments, session, network, trainer)
    return 0


def _photos(arguments: argparse.Namespace) -> tuple[LabelledPhotos, Network]:
    """The photos to learn from, and the network to be built."""
    names: list[str] = []
    file = arguments.names or arguments.data / "classes.txt"
    if arguments.names is not None or file.exists():
        names = class_names(file)
    classes = arguments.classes or len(names) or None
    if names and classes != len(names):
        raise ValueError(f"--classes: expected {len(names)}, as {file} has, got {classes}")
    folder = find_split(arguments.data, arguments.split)
    photos = LabelledPhotos.of(folder, classes, arguments.ignore)
    if photos.classes < 1:
        raise ValueError(f"{folder / 'labels'}: expected labels, got none but {photos.ignore}")
    names = names or [f"class {number}" for number in range(photos.classes)]
    return photos, Network(
        arguments.net,
        tuple(names),
        chosen(arguments, (*COMMON, "output_stride", "pad", "align_corners")),
        arguments.preprocessing,
        arguments.ignore,
    )


def _recipe(arguments: argparse.Namespace, photos: LabelledPhotos, processes: Processes) -> Recipe:
    components: tuple[tuple[float, ...], ...] = ()
    if arguments.lighting > 0:
        every = -(-len(photos) // MOST_FOR_COLORS)
        found = color_components(photos[number][0] for number in range(0, len(photos), every))
        components = tuple(tuple(row) for row in found.tolist())
    height, width = arguments.crop[0], arguments.crop[-1]
    augmentation = Augmentation(
        reduce=arguments.reduce,
        scales=tuple(arguments.scales),
        crop=(height, width) if height or width else None,
        mirror=not arguments.no_mirror,
        lighting=arguments.lighting,
        components=components,
        ignore=arguments.ignore,
    )
    return Recipe(
        iterations=arguments.iterations,
        batch=arguments.batch,
        parts=arguments.parts or processes.count,
        lr=arguments.lr,
        power=arguments.power,
        momentum=arguments.momentum,
        weight_decay=arguments.weight_decay,
        clip=arguments.clip,
        head_factor=arguments.head_factor,
        loss=arguments.loss,
        seed=arguments.seed,
        augmentation=augmentation,
    )


def _score(
    arguments: argparse.Namespace, session: Session, network: Network, trainer: Trainer
) -> None:
    """Scores the network on the other photos, if there are some."""
    folder = arguments.data / arguments.val
    if not (folder / "images").is_dir():
        return
    photos = LabelledPhotos.of(folder, len(network.class_names), network.ignore)
    predictor = Predictor(trainer.net, trainer.recipe.augmentation.reduce)
    with session.progress().counting("photo") as on_photo:
        counts = evaluate(predictor, photos, processes=session.processes, on_photo=on_photo)
    session.say(f"{len(photos)} photos of {folder}")
    session.say(table(network.class_names, {name: found[0] for name, found in counts.items()}))
