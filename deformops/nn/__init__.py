"""Layers: parameters, their initialisation, and one call into `deformops.ops`."""

from deformops.nn.atrous_conv2d import AtrousConv2d
from deformops.nn.deform_conv2d import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2dPack
from deformops.nn.dense_crf import DenseCRF
from deformops.nn.linear_chain_crf import LinearChainCRF
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
    "AtrousConv2d",
    "DeformConv2d",
    "DeformConv2dPack",
    "DeformPSRoIPool",
    "DeformRoIPool",
    "DeformRoIPoolPack",
    "DenseCRF",
    "LinearChainCRF",
    "ModulatedDeformConv2dPack",
    "PSRoIAlign",
    "PSRoIPool",
    "RoIAlign",
    "RoIPool",
]
