"""Files of weights: torch's, numpy's and Caffe's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from deformops.nets.caffemodel import read_caffemodel

_TORCH = (".pth", ".pt", ".pkl", ".bin")


def load_weights(path: str | Path) -> dict[str, Tensor]:
    """Reads names and tensors from a file; what kind of file it is, its name says.

    - `.pth`, `.pt`, `.pkl`, `.bin`: saved by torch: a state_dict, or a dictionary with one as its
      "state_dict" or "model"; nothing but tensors is unpickled, and the prefix "module." of a
      parallel wrapper falls away;
    - `.npz`: numpy arrays;
    - `.caffemodel`: see `read_caffemodel`.

    Args:
        path: of the file.

    Returns:
        Tensors on the CPU, in the file's order.

    Raises:
        ValueError: the name has another ending, or the file holds no weights.
        OSError: it cannot be read.
    """
    path = Path(path)
    if path.suffix == ".caffemodel":
        return read_caffemodel(path)
    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as arrays:
            return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
    if path.suffix not in _TORCH:
        endings = ", ".join([".caffemodel", ".npz", *_TORCH])
        raise ValueError(f"path: expected a file that ends in {endings}, got {path.name}")
    content = torch.load(path, map_location="cpu", weights_only=True)
    for key in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    tensors = content.items() if isinstance(content, Mapping) else ()
    weights = {
        str(name).removeprefix("module."): tensor
        for name, tensor in tensors
        if isinstance(tensor, Tensor)
    }
    if not weights:
        raise ValueError(f"path: expected a file of names and tensors, got {path.name}")
    return weights
