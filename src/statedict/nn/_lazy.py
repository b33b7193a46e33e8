"""Names of a package that are imported when they are first used.

Importing every layer takes as long as importing half of NumPy, and a small model uses three: what starts in a cloud
function or a command line pays for those only.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any


def lazily(package: str, files: Mapping[str, str]) -> tuple[list[str], Callable[[str], Any]]:
    """The `__all__` and `__getattr__` of `package`, whose `files` offer names: {"_file": "Name Other"}.

    A file that offers nothing is offered itself, as a module. A name is looked up here once, and is then the package's.
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
