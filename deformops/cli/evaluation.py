"""What `deformops eval-seg` does, and how scores are shown."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence

from deformops import training
from deformops.cli.crf import PARTS
from deformops.cli.output import columns
from deformops.cli.progress import ProgressLine
from deformops.cli.trained import trained
from deformops.nets.segmenter import Segmenter
from deformops.ops import Bilateral, Gaussian
from deformops.training import (
    Confusion,
    LabelledPhotos,
    Predictor,
    Processes,
    crf_ablation,
    find_split,
)
from deformops.training.network import Network


def segmenter(arguments: argparse.Namespace, processes: Processes) -> tuple[Network, Predictor]:
    """The network of a checkpoint.

    Raises:
        ValueError: the file is no checkpoint.
        OSError: it cannot be read.
    """
    network, net, state = trained(arguments.weights, Network, "train-seg")
    assert isinstance(net, Segmenter)
    reduce = state["recipe"]["augmentation"]["reduce"]
    return network, Predictor(net.to(processes.device), reduce)


def terms(arguments: argparse.Namespace) -> tuple[Gaussian, Bilateral]:
    """The CRF that the options ask for."""
    return Gaussian(*arguments.gaussian), Bilateral(*arguments.bilateral)


def evaluate(arguments: argparse.Namespace) -> int:
    """Scores a network and prints the table.

    Args:
        arguments: of the command.

    Returns:
        0.

    Raises:
        ValueError: a file or an option cannot be used.
        OSError: likewise.
    """
    with Processes.join(arguments.device) as processes:
        folder = find_split(arguments.data, arguments.split)
        network, predictor = segmenter(arguments, processes)
        photos = LabelledPhotos.of(folder, len(network.class_names), network.ignore)
        ways = crf_ablation(*terms(arguments), arguments.iterations)
        if not arguments.crf_ablation:
            ways = {name: ways[name] for name in ("unary", "both")[: 1 + arguments.crf]}
        with ProgressLine(quiet=not processes.first).counting("photo") as on_photo:
            counts = training.evaluate(
                predictor,
                photos,
                ways,
                widths=arguments.trimap,
                processes=processes,
                on_photo=on_photo,
            )
    if processes.first:
        print(f"{network.name}, {len(photos)} photos of {folder}")
        if len(ways) > 1:
            for name in ways:
                print(f"  {name:<10}{'the network alone' if name == 'unary' else PARTS[name]}")
        print(table(network.class_names, {name: found[0] for name, found in counts.items()}))
        if arguments.trimap:
            print("mean IoU in bands around the boundaries, by their width in pixels")
            for number, width in enumerate(arguments.trimap, 1):
                row = [found[number].mean_iou for found in counts.values()]
                print(_row(str(width), row))
    return 0


def table(names: Sequence[str], counts: Mapping[str, Confusion]) -> str:
    """IoUs of classes and the scores that summarise them, with a column for each count.

    Args:
        names: of the classes.
        counts: by what the columns are called.
    """
    found = list(counts.values())
    lines = [f"{'IoU':<24}{columns(counts)}"]
    for number, name in enumerate(names):
        lines.append(_row(name, [float(one.ious[number]) for one in found]))
    lines.append(_row("mean IoU", [one.mean_iou for one in found]))
    lines.append(_row("mean accuracy", [one.mean_accuracy for one in found]))
    lines.append(_row("pixel accuracy", [one.pixel_accuracy for one in found]))
    weighted = [one.frequency_weighted_iou for one in found]
    lines.append(_row("weighted IoU", weighted))
    return "\n".join(lines)


def _row(name: str, values: Sequence[float]) -> str:
    return f"  {name:<22}{columns(values)}"
