"""FCN: fully convolutional networks with fixed bilinear deconvolution."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from deformops.nets import alexnet, vgg
from deformops.nets._width import scaled
from deformops.nets.alexnet import AlexNetFeatures
from deformops.nets.grid import Grid, add_where_both, cut
from deformops.nets.preprocessing import CAFFE_BGR, Preprocessing
from deformops.nets.segmenter import Segmenter
from deformops.nets.vgg import VGG16Features
from deformops.nn import BilinearDeconv2d, Dropout
from deformops.nn import _initial as initial


class FCN(Segmenter):
    """FCN-32s, FCN-16s and FCN-8s on VGG-16.

        layer        what                                   cell i lies at pixel
        conv1_1      3x3, padding 100                       i - 99
        pool3        score_pool3: 1x1, classes              8 i - 95.5
        pool4        score_pool4: 1x1, classes              16 i - 91.5
        pool5                                               32 i - 83.5
        fc6, fc7     7x7 and 1x1, 4096, ReLU, dropout       32 i + 12.5
        score_fr     1x1, classes                           32 i + 12.5

        32s   upscore        k 64, stride 32, cut from 19 on
        16s   upscore2       k 4, stride 2, + score_pool4 cut from 5 on
              upscore        k 32, stride 16, cut from 27 on
        8s    upscore2       k 4, stride 2, + score_pool4 cut from 5 on
              upscore_pool4  k 4, stride 2, + score_pool3 cut from 9 on
              upscore        k 16, stride 8, cut from 31 on

    The cuts follow from where the cells lie, which is exactly on each other. Parameters at 21
    classes, without the deconvolutions: 134,346,581, 134,357,354 and 134,362,751; with them, as
    densely as Caffe keeps them, 136,152,917, 134,815,994 and 134,489,759. Scores start at zero,
    fc6 and fc7 as He's; a finer network is trained from the weights of the coarser one.

    Args:
        classes: C.
        stride: of the finest map that is scored: 32, 16 or 8.
        at_once: all strides learn from the start, with pool4 scaled by 0.01 and pool3 by 0.0001.
        width: fraction of all channels but the classes.
        pad: of conv1_1; published 100, and at least 81, 73 and 69 for 32s, 16s and 8s. With 1, fc6
            is padded by 3 instead: the same places without the cells that see padding only, at a
            fraction of the cost.
        dropout: the probability that a value of fc6 and fc7 is left out.
        dense_deconv: keep the deconvolutions as densely as Caffe does.
        preprocessing: what was done to the images.

    Shapes: images [N, 3, H, W] from 1 x 1 on, scores [N, C, H, W].

    Raises:
        ValueError: an argument does not fit.

    Source: Long, Shelhamer and Darrell, Fully Convolutional Networks for Semantic Segmentation
    (2015; 2017 for all strides at once).
    """

    def __init__(
        self,
        classes: int = 21,
        *,
        stride: int = 8,
        at_once: bool = False,
        width: float = 1.0,
        pad: int = 100,
        dropout: float = 0.5,
        dense_deconv: bool = False,
        preprocessing: Preprocessing = CAFFE_BGR,
    ) -> None:
        super().__init__()
        if stride not in (8, 16, 32):
            raise ValueError(f"stride: expected 8, 16 or 32, got {stride}")
        self.classes = classes
        self.stride = stride
        self.preprocessing = preprocessing
        self.scale_pool4, self.scale_pool3 = (0.01, 0.0001) if at_once else (1.0, 1.0)

        self.features = VGG16Features(width, padding=pad)
        *_, pool3, pool4, pool5 = self.features.channels
        hidden = scaled(4096, width)
        self.fc6 = nn.Conv2d(pool5, hidden, 7, padding=3 if pad == 1 else 0)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.score_fr = nn.Conv2d(hidden, classes, 1)
        self.relu = nn.ReLU(inplace=True)
        self.drop = Dropout(dropout)
        *_, at_pool3, at_pool4, at_pool5 = self.features.grids()
        at = at_pool5.after([self.fc6])
        if stride <= 16:
            self.upscore2 = BilinearDeconv2d(classes, 4, 2, dense=dense_deconv)
            self.score_pool4 = nn.Conv2d(pool4, classes, 1)
            at = at.after([self.upscore2])
            self.crop_pool4 = at_pool4.shift(onto=at)
            at = at if self.crop_pool4 >= 0 else at_pool4
        if stride == 8:
            self.upscore_pool4 = BilinearDeconv2d(classes, 4, 2, dense=dense_deconv)
            self.score_pool3 = nn.Conv2d(pool3, classes, 1)
            at = at.after([self.upscore_pool4])
            self.crop_pool3 = at_pool3.shift(onto=at)
            at = at if self.crop_pool3 >= 0 else at_pool3
        self.upscore = BilinearDeconv2d(classes, 2 * stride, stride, dense=dense_deconv)
        try:
            self.crop = at.after([self.upscore]).crop(onto=Grid())
        except ValueError as error:
            raise ValueError(f"pad: expected 1, or enough for every pixel, got {pad}") from error

        for fc in (self.fc6, self.fc7):
            initial.he(fc)
        for score in self.head():
            initial.zero(score)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H, W]."""
        *_, pool3, pool4, pool5 = self.features.pools(images)
        fc6 = self.drop(self.relu(self.fc6(pool5)))
        fc7 = self.drop(self.relu(self.fc7(fc6)))
        score = self.score_fr(fc7)
        if self.stride <= 16:
            score_pool4 = self.score_pool4(self.scale_pool4 * pool4)
            score = add_where_both(self.upscore2(score), score_pool4, self.crop_pool4)
        if self.stride == 8:
            score_pool3 = self.score_pool3(self.scale_pool3 * pool3)
            score = add_where_both(self.upscore_pool4(score), score_pool3, self.crop_pool3)
        return cut(self.upscore(score), self.crop, images.shape[-2:])

    def head(self) -> Iterator[nn.Conv2d]:
        """The layers that no classifier has."""
        yield self.score_fr
        if self.stride <= 16:
            yield self.score_pool4
        if self.stride == 8:
            yield self.score_pool3

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers: Caffe's names, and those of classifiers."""
        return {
            **vgg.caffe_names("features."),
            "fc6": ("classifier.0",),
            "fc7": ("classifier.3",),
            "score_fr": ("fc8", "classifier.6"),
        }


class FCNAlexNet(Segmenter):
    """FCN-AlexNet: FCN-32s on the convolutions of CaffeNet.

        layer        what                                   cell i lies at pixel
        conv1        11x11, stride 4, padding 100           4 i - 95
        pool5                                               32 i - 67
        fc6, fc7     6x6 and 1x1, 4096, ReLU, dropout       32 i + 13
        score_fr     1x1, classes                           32 i + 13
        upscore      k 63, stride 32, cut from 18 on

    Its deconvolution has 63 taps, since with 64 the cut would be 18.5. Parameters at 21 classes:
    56,954,261 without and 58,704,590 with the dense deconvolution. Scores start at zero.

    Args:
        classes: C.
        width: fraction of all channels but the classes.
        pad: of conv1, at least 82.
        dropout: the probability that a value of fc6 and fc7 is left out.
        dense_deconv: keep the deconvolution as densely as Caffe does.
        preprocessing: what was done to the images.

    Shapes: images [N, 3, H, W] from 1 x 1 on, scores [N, C, H, W].

    Raises:
        ValueError: an argument does not fit.

    Source: Long, Shelhamer and Darrell (2015).
    """

    def __init__(
        self,
        classes: int = 21,
        *,
        width: float = 1.0,
        pad: int = 100,
        dropout: float = 0.5,
        dense_deconv: bool = False,
        preprocessing: Preprocessing = CAFFE_BGR,
    ) -> None:
        super().__init__()
        self.classes = classes
        self.preprocessing = preprocessing
        self.features = AlexNetFeatures(width, padding=pad, pool_first=True)
        hidden = scaled(4096, width)
        self.fc6 = nn.Conv2d(self.features.channels, hidden, 6)
        self.fc7 = nn.Conv2d(hidden, hidden, 1)
        self.score_fr = nn.Conv2d(hidden, classes, 1)
        self.relu = nn.ReLU(inplace=True)
        self.drop = Dropout(dropout)
        self.upscore = BilinearDeconv2d(classes, 63, 32, dense=dense_deconv)
        try:
            at = Grid().after([*self.features, self.fc6, self.upscore])
            self.crop = at.crop(onto=Grid())
        except ValueError as error:
            raise ValueError(f"pad: expected enough for every pixel, got {pad}") from error
        for fc in (self.fc6, self.fc7):
            initial.he(fc)
        initial.zero(self.score_fr)

    def forward(self, images: Tensor) -> Tensor:
        """[N, 3, H, W] to [N, C, H, W]."""
        pool5 = self.features(images)
        fc6 = self.drop(self.relu(self.fc6(pool5)))
        fc7 = self.drop(self.relu(self.fc7(fc6)))
        return cut(self.upscore(self.score_fr(fc7)), self.crop, images.shape[-2:])

    def head(self) -> Iterator[nn.Conv2d]:
        """The layer that no classifier has."""
        yield self.score_fr

    def published_names(self) -> dict[str, tuple[str, ...]]:
        """What files of weights call the layers."""
        return {**alexnet.caffe_names("features."), "score_fr": ("fc8",)}
