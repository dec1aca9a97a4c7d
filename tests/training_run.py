"""A training in a process of its own, to be killed: writes its checkpoint after each step.

python -m tests.training_run PHOTOS CHECKPOINT
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from deformops.training import Augmentation, LabelledPhotos, Recipe, Trainer
from deformops.training.checkpoint import save
from tests.training_net import TinyNet

STEPS = 6


def recipe(parts: int = 1) -> Recipe:
    augmentation = Augmentation(scales=(0.75, 1.0, 1.5), crop=(20, 20))
    return Recipe(STEPS, batch=4, parts=parts, lr=0.05, augmentation=augmentation)


def main() -> None:
    folder, file = map(Path, sys.argv[1:])
    torch.manual_seed(0)
    torch.set_num_threads(1)
    trainer = Trainer(TinyNet(dropout=0.3), LabelledPhotos.of(folder, classes=3), recipe())
    while not trainer.done:
        trainer.step()
        save(file, {"network": {}, **trainer.state()})
        print(trainer.iteration, flush=True)
        time.sleep(0.2)


if __name__ == "__main__":
    main()
