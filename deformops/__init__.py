"""Deformable and atrous convolution for PyTorch, as hand-written kernels for CPU and CUDA."""

from deformops._library import load_library

__version__ = "0.1.0"

load_library(__version__)
