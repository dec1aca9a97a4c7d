"""What every segmentation network offers, and a dense CRF on top of one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping

import torch.nn.functional as F
from torch import Tensor, nn

from deformops.nets.preprocessing import Preprocessing
from deformops.nn import DenseCRF


class Segmenter(nn.Module, ABC):
    """Maps images [N, 3, H, W] to scores [N, classes, H, W].

    A network that is trained with several losses also has `all_scores(images)`, scores for each.
    """

    classes: int
    """How many kinds of things it tells apart."""

    preprocessing: Preprocessing
    """What was done to the images."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, classes, H, W]."""

    @abstractmethod
    def head(self) -> Iterator[nn.Module]:
        """The layers that no classifier has; they learn faster."""

    @abstractmethod
    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers; see `deformops.nets.transplant`."""

    def adapted(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of a classifier, under published names, with layers that are smaller here cut."""
        return weights


class WithCRF(Segmenter):
    """A segmentation network whose scores a dense CRF refines, with the photo at hand.

    Unary energies are -log softmax of the scores; the result is log Q, so that losses and the
    largest score work as before. Both learn, if they are trained together (CRF as RNN).

    Args:
        net: the network.
        crf: for as many labels; None: DeepLab's, 10 steps of mean field.

    Shapes: images [N, 3, H, W], log Q [N, classes, H, W].

    Raises:
        ValueError: the CRF has another number of labels.

    Source: Chen et al., DeepLab (2017), section 3.3; Zheng et al., Conditional Random Fields as
    Recurrent Neural Networks (2015).
    """

    def __init__(self, net: Segmenter, crf: DenseCRF | None = None) -> None:
        super().__init__()
        crf = DenseCRF(net.classes, iterations=10) if crf is None else crf
        if crf.num_labels != net.classes:
            raise ValueError(f"crf: expected {net.classes} labels, got {crf.num_labels}")
        self.net = net
        self.crf = crf
        self.classes = net.classes
        self.preprocessing = net.preprocessing

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to log Q [N, classes, H, W]."""
        unary = -F.log_softmax(self.net(images), dim=1)
        refined: Tensor = self.crf(unary, self.preprocessing.inverse(images), log=True)
        return refined

    def head(self) -> Iterator[nn.Module]:
        """The layers that no classifier has; the CRF is none of them."""
        return self.net.head()

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers."""
        return {f"net.{ours}": theirs for ours, theirs in self.net.published_names().items()}

    def adapted(self, weights: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Weights of a classifier, as the network itself adapts them."""
        return self.net.adapted(weights)
