"""Deformable convolution, RoI pooling, NMS and dense CRFs for PyTorch: kernels for CPU and CUDA.

The functions of `deformops.ops` are here under their names; `deformops.nn` has them as layers,
`deformops.nets` networks made of these, and `deformops.testing` checks them on the machine at hand.
"""

from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from deformops._library import load_library

__version__ = "0.1.0"

load_library(__version__)

from deformops import nn, ops  # noqa: E402  (what they define needs the library)
from deformops.ops import (  # noqa: E402
    Bilateral,
    FeatureKernel,
    Gaussian,
    LinearChain,
    PermutohedralLattice,
    atrous_conv2d,
    batched_nms,
    box_iou,
    crf_energy,
    deform_conv2d,
    deform_ps_roi_pool,
    deform_roi_pool,
    dense_crf,
    gather_columns,
    gaussian_filter,
    grid_energy,
    insert_holes,
    nms,
    nms_padded,
    permutohedral_filter,
    ps_roi_align,
    ps_roi_pool,
    roi_align,
    roi_pool,
    scatter_columns,
    soft_nms,
    unary_from_labels,
    unary_from_probabilities,
)

if TYPE_CHECKING:
    from deformops import nets


def __getattr__(name: str) -> Any:
    """Imports the reference networks when somebody asks for them."""
    if name == "nets":
        return import_module("deformops.nets")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


#: For CMake's `-DCMAKE_PREFIX_PATH`, so that a C++ project finds `find_package(deformops)`.
cmake_prefix_path = str(Path(__file__).parent)

__all__ = [
    "Bilateral",
    "FeatureKernel",
    "Gaussian",
    "LinearChain",
    "PermutohedralLattice",
    "__version__",
    "atrous_conv2d",
    "batched_nms",
    "box_iou",
    "cmake_prefix_path",
    "crf_energy",
    "deform_conv2d",
    "deform_ps_roi_pool",
    "deform_roi_pool",
    "dense_crf",
    "gather_columns",
    "gaussian_filter",
    "grid_energy",
    "insert_holes",
    "nets",
    "nms",
    "nms_padded",
    "nn",
    "ops",
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
