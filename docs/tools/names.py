"""The public names of the package, and where each of them is defined."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from typing import Any

MODULES = (
    "deformops.ops",
    "deformops.nn",
    "deformops.nets",
    "deformops.nets.detection",
    "deformops.training",
    "deformops.training.detection",
    "deformops.analysis",
    "deformops.testing",
    "deformops.onnx",
)
"""The modules that the manual describes."""


def public(module: str) -> Iterator[str]:
    """The names of a module's functions and classes: `__all__`, or what it defines itself."""
    contents = vars(importlib.import_module(module))
    for name in contents.get("__all__", contents):
        if not name.startswith("_") and _is_described(contents[name], module, contents):
            yield name


def place(module: str, name: str) -> str:
    """Where a public name of a module is defined, as `package.module.name`."""
    value = getattr(importlib.import_module(module), name)
    return f"{value.__module__}.{value.__qualname__}"


def _is_described(value: Any, module: str, contents: dict[str, Any]) -> bool:
    own = "__all__" in contents or getattr(value, "__module__", None) == module
    return own and hasattr(value, "__qualname__") and value.__module__.startswith("deformops")


def places() -> dict[str, str]:
    """The place of each name that a text may have: in full, and alone where it is no plain word."""
    found: dict[str, str] = {}
    for module in MODULES:
        for name in public(module):
            found[f"{module}.{name}"] = place(module, name)
            if module == "deformops.ops":
                found[f"deformops.{name}"] = place(module, name)
            if module in ("deformops.ops", "deformops.nn") or name.lower() != name or "_" in name:
                found.setdefault(name, place(module, name))
    return found
