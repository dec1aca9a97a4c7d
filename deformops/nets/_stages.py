"""What residual networks of four stages share."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from torch import Tensor, nn

from deformops.nets._width import scaled
from deformops.nn import FrozenBatchNorm2d

Norm = Literal["batch", "frozen"]


def batch_norm(norm: str) -> type[nn.BatchNorm2d]:
    """Batch normalisation that learns ("batch") or not ("frozen").

    Raises:
        ValueError: it is called otherwise.
    """
    norms = {"batch": nn.BatchNorm2d, "frozen": FrozenBatchNorm2d}
    if norm not in norms:
        raise ValueError(f"norm: expected one of {tuple(norms)}, got {norm!r}")
    return norms[norm]


class StagedNetwork(nn.Module):
    """A 7x7 of stride 2 and a pooling, then stages of blocks: `layer1` to `layer4`.

    Args:
        width: fraction of the 64 channels of the first layer.
        norm: see `batch_norm`.
        pool: halves the map once more.
    """

    channels: int
    """Of the last stage."""

    def __init__(self, width: float, norm: Norm, pool: nn.Module) -> None:
        super().__init__()
        self.channels = scaled(64, width)
        self.conv1 = nn.Conv2d(3, self.channels, 7, 2, 3, bias=False)
        self.bn1 = batch_norm(norm)(self.channels)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = pool

    def stages(self) -> Iterator[nn.Sequential]:
        """The four stages; those of ResNets are called res2 to res5."""
        for stage in range(1, 5):
            yield self.get_submodule(f"layer{stage}")  # type: ignore[misc]

    def maps(self, images: Tensor) -> Iterator[Tensor]:
        """The outputs of the four stages."""
        values = self.maxpool(self.relu(self.bn1(self.conv1(images))))
        for stage in self.stages():
            values = stage(values)
            yield values

    def forward(self, images: Tensor) -> Tensor:
        """The output of the last stage."""
        *_, last = self.maps(images)
        return last
