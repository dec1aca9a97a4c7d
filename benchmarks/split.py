"""Which kinds of layers take the time of a call of a network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn

from .place import Place

REST = "the rest"


class Split:
    """Seconds by kind, each without what is called inside it.

    Args:
        place: where the network computes.

    Example:
        >>> split = Split(place)
        >>> with split.of_layers(network, kind_of):
        ...     network(images)
        >>> split.seconds()
        {'convolution': 0.81, 'the rest': 0.07}
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._marks: list[tuple[str, Any]] = []  # what goes on from each point in time on
        self._open: list[str] = []

    @contextmanager
    def of_layers(self, network: nn.Module, kind_of: Callable[[nn.Module], str]) -> Iterator[None]:
        """Watches all layers of a network meanwhile; what happens between them is the rest."""
        handles = []
        for layer in network.modules():
            kind = kind_of(layer)
            handles.append(layer.register_forward_pre_hook(lambda *_, of=kind: self._enter(of)))
            handles.append(layer.register_forward_hook(lambda *_: self._leave()))
        self._enter(REST)
        try:
            yield
        finally:
            self._leave()
            for handle in handles:
                handle.remove()

    def watched(self, kind: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """Returns the function, watched like a layer of this kind."""

        def called(*arguments: Any, **options: Any) -> Any:
            self._enter(kind)
            try:
                return function(*arguments, **options)
            finally:
                self._leave()

        return called

    def seconds(self) -> dict[str, float]:
        """Returns the sum of each kind, longest first."""
        sums: dict[str, float] = {}
        for (kind, start), (_, end) in zip(self._marks, self._marks[1:], strict=False):
            sums[kind] = sums.get(kind, 0.0) + self._place.seconds(start, end)
        return dict(sorted(sums.items(), key=lambda pair: -pair[1]))

    def _enter(self, kind: str) -> None:
        self._open.append(kind)
        self._marks.append((kind, self._place.mark()))

    def _leave(self) -> None:
        self._open.pop()
        self._marks.append((self._open[-1] if self._open else "", self._place.mark()))
