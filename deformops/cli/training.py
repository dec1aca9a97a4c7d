"""What `deformops train-seg` does: reads, builds, learns, writes, scores."""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn

from deformops.cli.evaluation import table
from deformops.cli.progress import ProgressLine
from deformops.nets.transplant import transplant
from deformops.nets.weights import load_weights
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
from deformops.training.checkpoint import load, save
from deformops.training.network import Network

# Photos that the principal components of colours are taken from.
MOST_FOR_COLORS = 100
# Options of networks, each handed on where it is given.
OPTIONS = ("width", "norm", "style", "output_stride", "deformable_layers", "pad")


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
    processes = Processes.join(arguments.device)
    try:
        return _train(arguments, processes)
    finally:
        processes.leave()


def _train(arguments: argparse.Namespace, processes: Processes) -> int:
    def say(text: str) -> None:
        if processes.first:
            print(text, flush=True)

    photos, network = _photos(arguments)
    recipe = _recipe(arguments, photos, processes)
    say(f"{len(photos)} photos, {photos.classes} classes: {', '.join(network.class_names)}")
    torch.manual_seed(recipe.seed)
    net = network.build()
    learned = sum(one.numel() for one in net.parameters() if one.requires_grad)
    say(f"{network.name}: {learned:,} parameters to learn")

    going_on = arguments.resume and arguments.output.exists()
    if arguments.weights is not None and not going_on:
        say(f"{arguments.weights}: {_transplanted(net, arguments.weights)}")
    trainer = Trainer(net, photos, recipe, processes=processes, workers=arguments.workers)
    if going_on:
        state = load(arguments.output)
        if Network.of(state["network"]) != network:
            raise ValueError(
                f"{arguments.output} has another network: {Network.of(state['network'])}; asked "
                f"for is {network}"
            )
        trainer.resume(state)
        say(f"{arguments.output}: going on from iteration {trainer.iteration}")

    def write() -> None:
        if processes.first:
            save(arguments.output, {"network": network.state(), **trainer.state()})

    if not _learn(trainer, arguments, say, write):
        say(f"stopped after iteration {trainer.iteration}: --resume goes on from there")
        return 130
    say(f"wrote {arguments.output}")
    _score(arguments, trainer, network, say)
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
    given = {name: getattr(arguments, name) for name in OPTIONS}
    return photos, Network(
        arguments.net,
        tuple(names),
        {name: value for name, value in given.items() if value is not None},
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
        head_factor=arguments.head_factor,
        loss=arguments.loss,
        seed=arguments.seed,
        augmentation=augmentation,
    )


def _transplanted(net: nn.Module, file: Path) -> str:
    try:
        return str(transplant(net, load_weights(file)))
    except RuntimeError as error:
        raise ValueError(f"{file}: expected weights, got what torch refuses: {error}") from error


def _learn(
    trainer: Trainer,
    arguments: argparse.Namespace,
    say: Callable[[str], None],
    write: Callable[[], None],
) -> bool:
    """Does the steps; returns whether all are done, and not interrupted."""
    line = ProgressLine(quiet=not trainer.processes.first)
    steps = trainer.recipe.iterations
    start, first = time.perf_counter(), trainer.iteration
    losses: list[float] = []
    with _Stop() as stop:
        while not trainer.done:
            loss, stopped = trainer.step(stop.asked)
            losses.append(loss)
            done = trainer.iteration
            pace = (time.perf_counter() - start) / (done - first)
            left = _duration(pace * (steps - done))
            line.show(f"step {done} of {steps}, loss {loss:.4f}, {left} left", done, steps)
            if done % arguments.report_every == 0 or trainer.done:
                line.clear()
                mean = sum(losses) / len(losses)
                say(f"step {done}: loss {mean:.4f}, {pace:.3f} s a step, {left} left")
                losses.clear()
            if stopped or trainer.done or done % arguments.save_every == 0:
                write()
            if stopped and not trainer.done:
                line.clear()
                return False
    line.clear()
    return True


def _score(
    arguments: argparse.Namespace,
    trainer: Trainer,
    network: Network,
    say: Callable[[str], None],
) -> None:
    """Scores the network on the other photos, if there are some."""
    folder = arguments.data / arguments.val
    if not (folder / "images").is_dir():
        return
    photos = LabelledPhotos.of(folder, len(network.class_names), network.ignore)
    predictor = Predictor(trainer.net, trainer.recipe.augmentation.reduce)
    line = ProgressLine(quiet=not trainer.processes.first)
    counts = evaluate(
        predictor,
        photos,
        processes=trainer.processes,
        on_photo=lambda number, of: line.show(f"photo {number} of {of}", number, of),
    )
    line.clear()
    say(f"{len(photos)} photos of {folder}")
    say(table(network.class_names, {name: found[0] for name, found in counts.items()}))


class _Stop:
    """Ctrl-C and SIGTERM ask for an end after the step; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> _Stop:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        if self.asked and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.asked = True
        if sys.stderr.isatty():
            print("\nfinishing the step; once more to end at once", file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"
