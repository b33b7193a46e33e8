"""Import the names of a package when they are first used.

Importing every layer takes as long as importing half of NumPy, but a small model uses only three. Cloud functions and
command lines start faster if they import only these.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, files: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any]]:
    """Return `__all__` and `__getattr__` of `package`, whose `files` define names: {"_file": "Name Other"}.

    A file without names is itself offered as a module. After its first lookup, a name is an attribute of the package.
    """
    places = {name: file for file, names in files.items() for name in (names.split() or [file])}

    def get(name: str) -> Any:
        if name not in places:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        module = import_module(f"{package}.{places[name]}")
        found = module if places[name] == name else getattr(module, name)
        setattr(sys.modules[package], name, found)
        return found

    return sorted(places), get
