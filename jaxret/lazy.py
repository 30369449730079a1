"""Names of a package that are imported when they are first used (PEP 562)."""

import importlib
import sys
from collections.abc import Callable, Collection, Mapping
from typing import Any


def getter(
    package: str, homes: Mapping[str, Collection[str]], modules: Collection[str] = ()
) -> Callable[[str], Any]:
    """Return what a package's `__getattr__` is.

    Args:
        package: its name.
        homes: the module below it that names come from -> these names.
        modules: modules below it that are names of it themselves.

    Returns:
        name -> value, which is from then on an attribute of the package.
    """
    home = {name: module for module, names in homes.items() for name in names}

    def get(name: str) -> Any:
        if name in home:
            value = getattr(importlib.import_module(f"{package}.{home[name]}"), name)
        elif name in modules:
            value = importlib.import_module(f"{package}.{name}")
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)
        return value

    return get
