"""Layers: parameters, their initialisation, and one call into `deformops.ops`."""

from deformops.nn.atrous_conv2d import AtrousConv2d
from deformops.nn.deform_conv2d import DeformConv2d, DeformConv2dPack, ModulatedDeformConv2dPack

__all__ = ["AtrousConv2d", "DeformConv2d", "DeformConv2dPack", "ModulatedDeformConv2dPack"]
