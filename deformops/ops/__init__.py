"""The ops: functions that take and return tensors.

Every function is differentiable to any order, backwards and forwards, and works under `torch.func`,
`torch.compile`, `torch.export` and autocast; those that return indices have no derivatives.
"""

from torch.library import Library

from deformops.ops import (
    _columns,
    _convolution,
    _gaussian,
    _lattice,
    _roi_average,
    _roi_maximum,
    _suppression,
)
from deformops.ops.atrous_conv2d import atrous_conv2d
from deformops.ops.batched_nms import batched_nms
from deformops.ops.box_iou import box_iou
from deformops.ops.crf_energy import crf_energy
from deformops.ops.deform_conv2d import deform_conv2d
from deformops.ops.deform_ps_roi_pool import deform_ps_roi_pool
from deformops.ops.deform_roi_pool import deform_roi_pool
from deformops.ops.dense_crf import dense_crf
from deformops.ops.gather_columns import gather_columns
from deformops.ops.gaussian_filter import gaussian_filter
from deformops.ops.grid_energy import grid_energy
from deformops.ops.insert_holes import insert_holes
from deformops.ops.linear_chain import LinearChain
from deformops.ops.nms import nms
from deformops.ops.nms_padded import nms_padded
from deformops.ops.pairwise import DEEPLAB, Bilateral, FeatureKernel, Gaussian
from deformops.ops.permutohedral_filter import PermutohedralLattice, permutohedral_filter
from deformops.ops.ps_roi_align import ps_roi_align
from deformops.ops.ps_roi_pool import ps_roi_pool
from deformops.ops.roi_align import roi_align
from deformops.ops.roi_pool import roi_pool
from deformops.ops.scatter_columns import scatter_columns
from deformops.ops.soft_nms import soft_nms
from deformops.ops.unaries import unary_from_labels, unary_from_probabilities

__all__ = [
    "DEEPLAB",
    "Bilateral",
    "FeatureKernel",
    "Gaussian",
    "LinearChain",
    "PermutohedralLattice",
    "atrous_conv2d",
    "batched_nms",
    "box_iou",
    "crf_energy",
    "deform_conv2d",
    "deform_ps_roi_pool",
    "deform_roi_pool",
    "dense_crf",
    "gather_columns",
    "gaussian_filter",
    "grid_energy",
    "insert_holes",
    "nms",
    "nms_padded",
    "permutohedral_filter",
    "ps_roi_align",
    "ps_roi_pool",
    "roi_align",
    "roi_pool",
    "scatter_columns",
    "soft_nms",
    "unary_from_labels",
    "unary_from_probabilities",
]

_LIBRARIES: dict[str, Library] = {}


def register(namespace: str) -> None:
    """Gives the raw ops in `torch.ops.<namespace>` all they have in Python: derivatives and such.

    Once for every library of kernels, after it is loaded.
    """
    if namespace not in _LIBRARIES:
        library = _LIBRARIES[namespace] = Library(namespace, "FRAGMENT")
        _columns.register(library)
        _convolution.register(library)
        _lattice.register(library)
        _roi_average.register(library)
        _roi_maximum.register(library)
        _suppression.register(library)


register("deformops")
_gaussian.register(_LIBRARIES["deformops"])  # composed of torch's own ops: no kernel to simulate
