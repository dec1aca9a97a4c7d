"""Where networks look, and how well labels agree.

what an output can depend on     receptive_field, trace_receptive_fields; DeepLab's field_of_view
what weighs something in it      effective_receptive_field, uniform_std
where deformable layers look     sampling_points, stack_points, look_at, displaced_parts,
                                 effective_dilation
how well labels agree            mean_iou
"""

from deformops.analysis.dilation import (
    Spread,
    effective_dilation,
    effective_dilation_by_size,
)
from deformops.analysis.effective import (
    EffectiveField,
    effective_field,
    effective_receptive_field,
)
from deformops.analysis.footprint import Footprint, Mark
from deformops.analysis.looks import Look, look_at
from deformops.analysis.overlap import mean_iou
from deformops.analysis.parts import displaced_parts
from deformops.analysis.receptive_field import (
    ReceptiveField,
    field_of_view,
    receptive_field,
    uniform_std,
)
from deformops.analysis.sampling import sampling_points
from deformops.analysis.stacks import stack_points
from deformops.analysis.tracing import DeformableCall, TracedFields, trace_receptive_fields
from deformops.analysis.windows import Window, window_of, windows_of

__all__ = [
    "DeformableCall",
    "EffectiveField",
    "Footprint",
    "Look",
    "Mark",
    "ReceptiveField",
    "Spread",
    "TracedFields",
    "Window",
    "displaced_parts",
    "effective_dilation",
    "effective_dilation_by_size",
    "effective_field",
    "effective_receptive_field",
    "field_of_view",
    "look_at",
    "mean_iou",
    "receptive_field",
    "sampling_points",
    "stack_points",
    "trace_receptive_fields",
    "uniform_std",
    "window_of",
    "windows_of",
]
