"""What `deformops train-det --schedule alternate` does: four steps, each with a file of its own."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from deformops.cli.session import Session
from deformops.cli.train_det import beside
from deformops.nets.detection import Detector, TwoStageDetector
from deformops.training.checkpoint import load, save
from deformops.training.detection import (
    AnnotatedPhotos,
    DetectionNetwork,
    DetectionRecipe,
    DetectionTrainer,
    Scenes,
    beginning,
    box_statistics,
    four_steps,
    make_proposals,
)


def alternate(
    arguments: argparse.Namespace,
    session: Session,
    photos: AnnotatedPhotos,
    network: DetectionNetwork,
    net: Detector,
    recipe: DetectionRecipe,
) -> Detector | None:
    """Does the four steps, those that are not done yet.

    Args:
        arguments: of the command.
        session: the run of it.
        photos: what is learned.
        network: what the network is.
        net: as it begins.
        recipe: of the first step.

    Returns:
        The network after the last; None after an interruption.

    Raises:
        ValueError: a file or an option cannot be used.
        OSError: likewise.
    """
    initial = {name: value.clone() for name, value in net.state_dict().items()}
    before: dict[str, Tensor] = {}
    proposals: list[Tensor] | None = None
    for step, own in enumerate(four_steps(recipe), 1):
        scenes = Scenes(photos, proposals)
        # A head that begins as another one was left keeps its code, too.
        new_head = step == 2 or (step == 4 and arguments.step4 != "matlab")
        if arguments.box_code == "measured" and new_head:
            code = box_statistics(scenes, net.settings, mirror=own.variation.mirror)
            network = replace(network, box_code=code)
        net = network.build()
        net.load_state_dict(beginning(step, initial, before, net, arguments.step4))
        trainer = DetectionTrainer(
            net,
            scenes,
            own,
            processes=session.processes,
            workers=arguments.workers,
        )
        session.say(f"step {step} of 4: {own.stage}{', convolutions kept' * own.keep_shared}")
        file = beside(arguments.output, f"step{step}")
        if not session.learn(trainer, network, file):
            return None
        if session.stopped and step < 4:
            session.say(f"stopped after step {step}: --resume goes on from there")
            return None
        before = net.state_dict()
        if own.stage == "proposals":
            assert isinstance(net, TwoStageDetector)
            file = beside(arguments.output, f"proposals{step}")
            proposals = _proposals(session, net, network, photos, file)
        else:
            proposals = None
    session.write(arguments.output, trainer, network)
    session.say(f"wrote {arguments.output}")
    return net


def _proposals(
    session: Session,
    net: TwoStageDetector,
    network: DetectionNetwork,
    photos: AnnotatedPhotos,
    file: Path,
) -> list[Tensor]:
    """Those of a file, if it is there; else they are made, and the file is written."""
    if file.exists():
        kept: Any = load(file).get("proposals")
        if not isinstance(kept, list) or len(kept) != len(photos):
            raise ValueError(f"{file}: expected the proposals of {len(photos)} photos")
        return kept
    with session.progress().counting("photo") as on_photo:
        made = make_proposals(
            net, photos, network.size, processes=session.processes, on_photo=on_photo
        )
    if session.processes.first:
        save(file, {"network": network.state(), "proposals": made})
    session.say(f"{sum(map(len, made)) / len(made):.0f} proposals for each photo: wrote {file}")
    return made
