"""Networks of checkpoints, for the commands that use them."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

from torch import nn

from deformops.training.checkpoint import load
from deformops.training.network import NetworkDescription

Described = TypeVar("Described", bound=NetworkDescription)


def trained(
    file: Path, kind: type[Described], command: str
) -> tuple[Described, nn.Module, dict[str, Any]]:
    """The network of a checkpoint with its weights.

    Args:
        file: the checkpoint.
        kind: of network that is expected,
        command: which the command writes that trains them.

    Returns:
        What the network is, the network, and everything else that the checkpoint has.

    Raises:
        ValueError: the file is no checkpoint, or one of another kind.
        OSError: it cannot be read.
    """
    state = load(file)
    try:
        network = kind.of(state["network"])
    except ValueError as error:
        raise ValueError(
            f"{file}: expected a checkpoint of {command}, got another one: {error}"
        ) from error
    net = network.build()
    try:
        net.load_state_dict(state["model"])
    except RuntimeError as error:
        raise ValueError(f"{file} does not fit its network: {error}") from error
    return network, net, state
