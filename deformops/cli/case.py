"""What `deformops check` asks of an op."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from deformops.testing import CHECKS


@dataclass(frozen=True)
class Case:
    """The arguments of `check_op` for one op."""

    op: str
    function: Callable[..., Tensor]
    reference: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    batch_inputs: tuple[int, ...]
    raw_calls: Sequence[tuple[Any, tuple[Any, ...]]] = ()
    checks: tuple[str, ...] = CHECKS
