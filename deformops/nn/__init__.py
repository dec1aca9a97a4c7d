"""Layers: parameters, their initialisation, and one call into `deformops.ops`."""

from deformops.nn.aspp import ASPP
from deformops.nn.atrous_conv2d import AtrousConv2d
from deformops.nn.bilinear_deconv2d import BilinearDeconv2d, bilinear_filter
from deformops.nn.caffe_pooling import CaffeAvgPool2d, CaffeMaxPool2d
from deformops.nn.deform_conv2d import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2dPack
from deformops.nn.dense_crf import DenseCRF
from deformops.nn.dropout import Dropout
from deformops.nn.frozen_batch_norm2d import FrozenBatchNorm2d
from deformops.nn.interp import Interp, interp
from deformops.nn.linear_chain_crf import LinearChainCRF
from deformops.nn.local_response_norm import LocalResponseNorm
from deformops.nn.roi_pooling import (
    DeformPSRoIPool,
    DeformRoIPool,
    DeformRoIPoolPack,
    PSRoIAlign,
    PSRoIPool,
    RoIAlign,
    RoIPool,
)

__all__ = [
    "ASPP",
    "AtrousConv2d",
    "BilinearDeconv2d",
    "CaffeAvgPool2d",
    "CaffeMaxPool2d",
    "DeformConv2d",
    "DeformConv2dPack",
    "DeformPSRoIPool",
    "DeformRoIPool",
    "DeformRoIPoolPack",
    "DenseCRF",
    "Dropout",
    "FrozenBatchNorm2d",
    "Interp",
    "LinearChainCRF",
    "LocalResponseNorm",
    "ModulatedDeformConv2dPack",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
    "bilinear_filter",
    "interp",
]
