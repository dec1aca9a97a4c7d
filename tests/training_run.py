"""A training in processes of its own, to be killed, or to be shared by several.

    python -m tests.training_run PHOTOS CHECKPOINT ITERATIONS PARTS [SECONDS]

Goes on from the checkpoint if there is one, writes it after each step, and says so. SECONDS: how
long to wait after that. Under torchrun, or with its environment variables, processes share it.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import torch

from deformops.training import Augmentation, LabelledPhotos, Processes, Recipe, Trainer
from deformops.training.checkpoint import load, save
from tests.training_net import TinyNet


def recipe(iterations: int, parts: int) -> Recipe:
    augmentation = Augmentation(scales=(0.75, 1.0, 1.5), crop=(20, 20))
    return Recipe(iterations, batch=4, parts=parts, lr=0.05, augmentation=augmentation)


def main() -> None:
    folder, file = Path(sys.argv[1]), Path(sys.argv[2])
    iterations, parts = int(sys.argv[3]), int(sys.argv[4])
    pause = float(sys.argv[5]) if len(sys.argv) > 5 else 0.0
    torch.manual_seed(0)
    torch.set_num_threads(1)
    processes = Processes.join("cpu")
    photos = LabelledPhotos.of(folder, classes=3)
    trainer = Trainer(TinyNet(dropout=0.3), photos, recipe(iterations, parts), processes=processes)
    if file.exists():
        trainer.resume(load(file))
    while not trainer.done:
        loss, _ = trainer.step()
        if processes.first:
            save(file, {"network": {}, **trainer.state()})
            print(trainer.iteration, loss, flush=True)
        time.sleep(pause)
    processes.leave()


if __name__ == "__main__":
    main()
