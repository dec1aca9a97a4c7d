"""Where convolutions look: receptive fields, sampling points, effective dilation.

These functions compute places, not values: nothing here reads an image or runs a layer.
"""

from deformops.analysis.receptive_field import ReceptiveField, Window, receptive_field
from deformops.analysis.sampling import effective_dilation, sampling_points

__all__ = [
    "ReceptiveField",
    "Window",
    "effective_dilation",
    "receptive_field",
    "sampling_points",
]
