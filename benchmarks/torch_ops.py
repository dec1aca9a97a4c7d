"""Functions of tensors as competitors: inference, or forward and backward."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from .case import SAMENESS, Competitor, Entry
from .place import Place

Tensors = Mapping[str, Tensor]
Function = Callable[[Tensors], Tensor]


def entry(
    tensors: Callable[[], Tensors],
    function: Callable[[], Function],
    *,
    constants: Callable[[], Tensors] = dict,
    backward: bool = False,
    channels_last: bool = False,
    landmark: bool = False,
    tolerance: float = SAMENESS,
    slow: bool = False,
) -> Entry:
    """Makes an entry of a function.

    Args:
        tensors: makes the arguments, all of which need a gradient in training.
        function: imports and returns the function of the arguments.
        constants: makes arguments that have no gradient.
        backward: two steps, "forward" and "backward", in place of "forward" alone.
        channels_last: whether the argument called ``input`` is stored so.
        landmark: see `Entry`.
        tolerance: see `Entry`.
        slow: see `Entry`.
    """

    def factory(place: Place) -> Competitor:
        arguments, fixed = (
            {name: tensor.to(place.device) for name, tensor in made().items()}
            for made in (tensors, constants)
        )
        if channels_last:
            arguments["input"] = arguments["input"].contiguous(memory_format=torch.channels_last)
        of_all, called = function(), (training if backward else inference)
        return called(lambda of: of_all({**of, **fixed}), arguments)

    return Entry(factory, landmark, tolerance, slow)


def inference(function: Function, tensors: Tensors) -> Competitor:
    """One step, "forward", that records nothing for a backward."""

    def forward() -> Tensor:
        with torch.no_grad():
            return function(tensors)

    return Competitor(steps={"forward": forward}, results=lambda: {"output": forward()})


def training(function: Function, tensors: Tensors) -> Competitor:
    """Two steps: "forward", and "backward" with the gradients of all tensors.

    The gradient of the output is random, the same for everybody, and in the output's own layout.
    """
    leaves = {name: tensor.detach().requires_grad_() for name, tensor in tensors.items()}
    pending: list[Tensor] = []
    grad_output = _random_like(function(leaves).detach())

    def forward() -> Tensor:
        pending[:] = [function(leaves)]
        return pending[0]

    def backward() -> tuple[Any, ...]:
        return torch.autograd.grad(
            pending.pop(), list(leaves.values()), grad_output, allow_unused=True
        )

    def results() -> dict[str, Tensor]:
        output = forward().detach()
        grads = zip(leaves, backward(), strict=True)
        return {"output": output} | {f"grad_{name}": grad for name, grad in grads}

    return Competitor(steps={"forward": forward, "backward": backward}, results=results)


def _random_like(output: Tensor) -> Tensor:
    random = torch.Generator().manual_seed(1)
    values = torch.randn(output.shape, generator=random)
    return torch.empty_like(output).copy_(values)
