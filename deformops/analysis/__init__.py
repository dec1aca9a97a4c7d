"""Where convolutions look, and how well labels agree.

These functions compute places and scores: nothing here reads an image or runs a layer.
"""

from deformops.analysis.overlap import mean_iou
from deformops.analysis.receptive_field import ReceptiveField, Window, receptive_field
from deformops.analysis.sampling import effective_dilation, sampling_points

__all__ = [
    "ReceptiveField",
    "Window",
    "effective_dilation",
    "mean_iou",
    "receptive_field",
    "sampling_points",
]
