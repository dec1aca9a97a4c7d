"""Slow and obvious float64 references, written from the formulas with numpy alone.

Nothing here imports ``deformops`` or torch. Interpolation is a dense matrix over all pixels of an
axis, a gather is a product with it and a scatter is the product with its transpose, so that there
is no index arithmetic to get wrong in the same way as a kernel would.
"""

from tests.reference.columns import (
    Geometry,
    contract_columns,
    gather_columns,
    output_size,
    scatter_columns,
)
from tests.reference.convolution import (
    atrous_conv2d,
    deform_conv2d,
    deform_conv2d_backward,
    insert_holes,
)
from tests.reference.interpolation import axis_weights
from tests.reference.roi_pooling import (
    Pooling,
    gather_maxima,
    roi_average,
    roi_average_backward,
    roi_pool,
    sample_points,
    scatter_maxima,
)

__all__ = [
    "Geometry",
    "Pooling",
    "atrous_conv2d",
    "axis_weights",
    "contract_columns",
    "deform_conv2d",
    "deform_conv2d_backward",
    "gather_columns",
    "gather_maxima",
    "insert_holes",
    "output_size",
    "roi_average",
    "roi_average_backward",
    "roi_pool",
    "sample_points",
    "scatter_columns",
    "scatter_maxima",
]
