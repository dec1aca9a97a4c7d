"""What commands that train do, whatever is learned: build, go on, learn, write."""

from __future__ import annotations

import argparse
import hashlib
import signal
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn

from deformops.cli.progress import ProgressLine
from deformops.nets.transplant import transplant
from deformops.nets.weights import load_weights
from deformops.training import Processes
from deformops.training.checkpoint import load, save
from deformops.training.loop import TrainingLoop
from deformops.training.network import NetworkDescription

Trainer = TrainingLoop[Any, Any]


class Session:
    """A run of a command that trains.

    Args:
        arguments: of the command, of which those of `deformops.cli.training_options` are used.
        processes: which one of them this is.
    """

    def __init__(self, arguments: argparse.Namespace, processes: Processes) -> None:
        self.arguments = arguments
        self.processes = processes
        self.stopped = False
        """Whether somebody has asked for an end."""
        self.weights: str | None = None
        """The SHA-256 of the weights that the training begins with; None: they are drawn."""

    def say(self, text: str) -> None:
        """Prints a text, once for all processes."""
        if self.processes.first:
            print(text, flush=True)

    def progress(self) -> ProgressLine:
        """A line that the first process shows."""
        return ProgressLine(quiet=not self.processes.first)

    def prepare(self, network: NetworkDescription, net: nn.Module) -> None:
        """Says what the network is, and brings the weights of a file into it, if they are wanted.

        Raises:
            ValueError: they cannot be used.
            OSError: they cannot be read.
        """
        learned = sum(one.numel() for one in net.parameters() if one.requires_grad)
        self.say(f"{network.name}: {learned:,} parameters to learn")
        file: Path | None = self.arguments.weights
        if file is not None:
            self.weights = hashlib.sha256(file.read_bytes()).hexdigest()
            self.say(f"{file}: {_transplanted(net, file)}")

    def resume(self, trainer: Trainer, network: NetworkDescription, file: Path) -> None:
        """Goes on where a file was left.

        Raises:
            ValueError: it is of another network or recipe, or began with other weights.
            OSError: it cannot be read.
        """
        state = load(file)
        before = type(network).of(state["network"])
        if before != network:
            raise ValueError(f"{file} has another network: {before}; asked for is {network}")
        begun = state.get("weights")
        if begun != self.weights:
            expected = "none" if begun is None else f"those with the SHA-256 {begun}"
            raise ValueError(
                f"--weights: expected {expected}, as {file} began with, got "
                f"{self.arguments.weights or 'none'}"
            )
        trainer.resume(state)
        self.say(f"{file}: going on from iteration {trainer.iteration}")

    def learn(self, trainer: Trainer, network: NetworkDescription, file: Path) -> bool:
        """Does the steps, those that the file has not, and writes it.

        Returns:
            Whether all are done, and not interrupted.

        Raises:
            ValueError: the file is there, and is no checkpoint of this training.
            OSError: it cannot be read or written.
        """
        if file.exists():
            self.resume(trainer, network, file)
        line = self.progress()
        steps = trainer.recipe.iterations
        start, first = time.perf_counter(), trainer.iteration
        losses: dict[str, list[float]] = {}
        with Stop() as stop:
            while not trainer.done:
                loss, self.stopped = trainer.step(stop.asked)
                for name, value in {"loss": loss, **trainer.losses}.items():
                    losses.setdefault(name, []).append(value)
                done = trainer.iteration
                pace = (time.perf_counter() - start) / (done - first)
                left = duration(pace * (steps - done))
                line.show(f"step {done} of {steps}, loss {loss:.4f}, {left} left", done, steps)
                if done % self.arguments.report_every == 0 or trainer.done:
                    line.clear()
                    self.say(f"step {done}: {means(losses)}, {pace:.3f} s a step, {left} left")
                    losses.clear()
                if self.stopped or trainer.done or done % self.arguments.save_every == 0:
                    self.write(file, trainer, network)
                if self.stopped and not trainer.done:
                    line.clear()
                    self.say(f"stopped after iteration {done}: --resume goes on from there")
                    return False
            if not self.stopped:  # asked during the last step
                self.stopped = bool(self.processes.sum([float(stop.asked)]))
        line.clear()
        self.say(f"wrote {file}" if trainer.iteration > first else "nothing is left to do")
        return True

    def write(self, file: Path, trainer: Trainer, network: NetworkDescription) -> None:
        """Writes a checkpoint, once for all processes."""
        if self.processes.first:
            save(file, {"network": network.state(), "weights": self.weights, **trainer.state()})


class Stop:
    """Ctrl-C and SIGTERM ask for an end after the step; a second Ctrl-C ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Stop:
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


def means(losses: dict[str, list[float]]) -> str:
    """The mean of the first of some losses, and of the others, if they are several, in brackets."""
    texts = [
        f"{name.removeprefix('loss_')} {sum(values) / len(values):.4f}"
        for name, values in losses.items()
    ]
    parts = f" ({', '.join(texts[1:])})" if len(texts) > 1 else ""
    return texts[0] + parts


def duration(seconds: float) -> str:
    """Hours, minutes and seconds."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}"


def _transplanted(net: nn.Module, file: Path) -> str:
    try:
        return str(transplant(net, load_weights(file)))
    except RuntimeError as error:
        raise ValueError(f"{file}: expected weights, got what torch refuses: {error}") from error
