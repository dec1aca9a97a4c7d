"""The ops: functions that take and return tensors.

Every function is differentiable to any order, backwards and forwards, and works under `torch.func`,
`torch.compile`, `torch.export` and autocast.
"""

from torch.library import Library

from deformops.ops import _columns, _convolution
from deformops.ops.atrous_conv2d import atrous_conv2d
from deformops.ops.deform_conv2d import deform_conv2d
from deformops.ops.gather_columns import gather_columns
from deformops.ops.insert_holes import insert_holes
from deformops.ops.scatter_columns import scatter_columns

__all__ = ["atrous_conv2d", "deform_conv2d", "gather_columns", "insert_holes", "scatter_columns"]

_LIBRARIES: dict[str, Library] = {}


def register(namespace: str) -> None:
    """Gives the raw ops in `torch.ops.<namespace>` all they have in Python: derivatives and such.

    Once for every library of kernels, after it is loaded.
    """
    if namespace not in _LIBRARIES:
        library = _LIBRARIES[namespace] = Library(namespace, "FRAGMENT")
        _columns.register(library)
        _convolution.register(library)


register("deformops")
