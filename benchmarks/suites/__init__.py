"""One file per suite; each defines ``SUITE``. Files are found, not listed."""

from __future__ import annotations

import importlib
import pkgutil

from ..case import Suite


def names() -> list[str]:
    """Returns the names of all suites."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if module.name[0] != "_")


def load(name: str) -> Suite:
    """Imports the suite called ``name``."""
    suite = importlib.import_module(f"{__name__}.{name}").SUITE
    assert isinstance(suite, Suite)
    return suite
