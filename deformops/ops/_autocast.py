"""What the raw ops do inside `torch.autocast`: the common type their tensors are brought to.

The kernels want one type for all tensors, and half types hold coordinates badly: an offset between
4 and 8 pixels has steps of 1/32 pixel in bfloat16. So autocast never rounds an offset. Where the
offset has autocast's type already, since a layer under autocast predicted it, the convolution runs
in that type, as torch's convolutions do; where it comes in float32, in float32.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import torch
from torch import Tensor

Choice = Callable[[Mapping[str, Tensor], torch.dtype], torch.dtype]


def widest(tensors: Mapping[str, Tensor], _: torch.dtype) -> torch.dtype:
    """The type that holds all others: the rule of ops that only move and add numbers."""
    return reduce(torch.promote_types, (tensor.dtype for tensor in tensors.values()))


def like_convolution(tensors: Mapping[str, Tensor], autocast: torch.dtype) -> torch.dtype:
    """Autocast's type, unless that would round the offset."""
    if "offset" not in tensors:
        return autocast
    return torch.promote_types(tensors["offset"].dtype, autocast)


def register_autocast(
    library: torch.library.Library, name: str, choose: Choice, kept: Sequence[str] = ()
) -> None:
    """Registers the rule of a raw op on CPU and CUDA.

    Args:
        library: where the op is registered.
        name: the op's name.
        choose: takes the tensors by name and autocast's type, returns the type to run in. Where a
            tensor is float64, nothing is changed; so does torch.
        kept: tensors that keep the type they come in, and have no say.
    """
    overload = getattr(getattr(torch.ops, library.ns), name).default
    names = [argument.name for argument in overload._schema.arguments]

    def register(device: str, key: str) -> None:
        below = torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, key))

        def kernel(*args: Any, **options: Any) -> Any:
            tensors = {
                name: arg
                for name, arg in zip(names, args, strict=False)
                if isinstance(arg, Tensor) and name not in kept
            }
            if all(tensor.dtype != torch.float64 for tensor in tensors.values()):
                dtype = choose(tensors, torch.get_autocast_dtype(device))
                args = tuple(
                    arg.to(dtype) if name in tensors else arg
                    for name, arg in zip(names, args, strict=False)
                )
            with torch._C._ExcludeDispatchKeyGuard(below):
                return overload(*args, **options)

        library.impl(name, kernel, key)

    register("cpu", "AutocastCPU")
    register("cuda", "AutocastCUDA")
