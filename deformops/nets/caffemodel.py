"""Reader of Caffe's files of weights: the few fields of its protocol buffers that they need.

    NetParameter      layers 2 (V1LayerParameter), layer 100 (LayerParameter)
    LayerParameter    name 1, type 2 (a word), blobs 7
    V1LayerParameter  name 4, type 5 (a number), blobs 6
    BlobProto         num, channels, height, width 1 to 4, data 5, shape 7, double_data 8
    BlobShape         dim 1

Source: caffe.proto; the encoding of protocol buffers.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
#: Numbers of V1LayerParameter.type whose blobs are (1, 1, O, C) there and (O, C) today.
_INNER_PRODUCT = 14


def read_caffemodel(path: str | Path) -> dict[str, Tensor]:
    """Reads a `.caffemodel`, of the first or the second format.

    The blobs of a layer are called "<layer>.weight" and "<layer>.bias"; those of a BatchNorm layer
    "<layer>.running_mean" and "<layer>.running_var", divided by the factor that is the third blob.

    Args:
        path: of the file.

    Returns:
        Tensors with today's shapes: biases are [O], fully connected weights [O, C].

    Raises:
        ValueError: the file is no such file.
        OSError: it cannot be read.
    """
    weights: dict[str, Tensor] = {}
    try:
        for field, message in _fields(memoryview(Path(path).read_bytes())):
            if field in (2, 100) and isinstance(message, memoryview):
                weights.update(_layer(message, *((4, 5, 6) if field == 2 else (1, 2, 7))))
    except (IndexError, UnicodeDecodeError, ValueError) as error:
        raise ValueError(
            f"path: expected a file of Caffe, got {Path(path).name}: {error}"
        ) from error
    if not weights:
        raise ValueError(f"path: expected a file of Caffe, got {Path(path).name} without weights")
    return weights


def _layer(message: memoryview, name: int, kind: int, blobs: int) -> dict[str, Tensor]:
    """The blobs of a layer by name, given the numbers of its fields."""
    called, layer_type, tensors = "", "", []
    for field, value in _fields(message):
        if field == name:
            called = bytes(value).decode()
        elif field == kind:
            layer_type = str(value) if isinstance(value, int) else bytes(value).decode()
        elif field == blobs:
            tensors.append(_blob(value))  # type: ignore[arg-type]
    if layer_type == "BatchNorm" and len(tensors) == 3:
        factor = tensors[2].item()
        mean, var = (tensor.flatten() / factor if factor else tensor for tensor in tensors[:2])
        return {f"{called}.running_mean": mean, f"{called}.running_var": var}
    if layer_type in ("InnerProduct", str(_INNER_PRODUCT)) and tensors:
        tensors[0] = tensors[0].reshape(tensors[0].shape[-2:])
    if len(tensors) > 1:
        tensors[1] = tensors[1].flatten()
    return {
        f"{called}.{entry}": tensor
        for entry, tensor in zip(("weight", "bias"), tensors, strict=False)
    }


def _blob(message: memoryview) -> Tensor:
    """An array of floats with its shape."""
    legacy, shape = [1, 1, 1, 1], None
    data: list[np.ndarray] = []
    for field, value in _fields(message):
        if 1 <= field <= 4:
            legacy[field - 1] = int(value)
        elif field in (5, 8):
            kind = np.dtype("<f4" if field == 5 else "<f8")
            data.append(np.frombuffer(value, kind).astype(np.float32))  # type: ignore[arg-type]
        elif field == 7:
            shape = list(_dims(value))  # type: ignore[arg-type]
    values = np.concatenate(data) if data else np.empty(0, np.float32)
    sizes = legacy if shape is None else shape
    if math.prod(sizes) != values.size:
        raise ValueError(f"a blob of shape {sizes} has {values.size} values")
    return torch.from_numpy(values).reshape(sizes)


def _dims(message: memoryview) -> Iterator[int]:
    """The numbers of a BlobShape, one by one or packed."""
    for field, value in _fields(message):
        if field == 1 and isinstance(value, int):
            yield value
        elif field == 1 and isinstance(value, memoryview):
            at = 0
            while at < len(value):
                number, at = _varint(value, at)
                yield number


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Number and content of each field: a number, or bytes."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        field, wire = key >> 3, key & 7
        if wire == _VARINT:
            value, at = _varint(message, at)
            yield field, value
            continue
        if wire == _BYTES:
            size, at = _varint(message, at)
        elif wire in (_FIXED32, _FIXED64):
            size = 4 if wire == _FIXED32 else 8
        else:
            raise ValueError(f"a field of unknown type {wire}")
        if at + size > len(message):
            raise ValueError("it ends too early")
        yield field, message[at : at + size]
        at += size


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """A number of seven bits a byte, the lowest first, and the place behind it."""
    number = shift = 0
    while True:
        byte = message[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
        shift += 7
