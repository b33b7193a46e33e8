"""How an object's pickle is read for torch.load: by the restricted machine, or by a pickle module's Unpickler.

The second runs whatever the pickle names: PyTorch's contract for `weights_only=False`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from torch.serialization import StorageType

from ._load_restricted import Restricted

Identify = Callable[[Any], Any]
# Where classes have moved to since they were pickled.
MOVED = {"torch.tensor": "torch._tensor"}


class Reading(NamedTuple):
    """How pickles are read: with a module's Unpickler and its arguments; without a module, restricted.

    Attributes:
        module: the pickle module, or None.
        arguments: keyword arguments of the Unpickler.
    """

    module: ModuleType | None
    arguments: Mapping[str, Any]

    @property
    def is_usual(self) -> bool:
        """Whether a pickle of plain values is read as anybody would read it."""
        return self.module in (None, pickle) and self.arguments == {"encoding": "utf-8"}

    def read(self, file: Any) -> Any:
        """The next pickle of the file, one that names no storages."""
        if self.module is None:
            return Restricted(file, **self.arguments).load()
        return self.module.load(file, **self.arguments)

    def read_object(self, file: Any, identify: Identify, moved: Mapping[str, str] = MOVED) -> Any:
        """The object whose pickle is next; `identify` gives what its persistent ids stand for."""
        if self.module is None:
            return Restricted(file, identify, **self.arguments).load()

        class Unpickler(self.module.Unpickler):  # type: ignore[name-defined, misc]
            def find_class(self, module: str, name: str) -> Any:
                if type(name) is str and "Storage" in name:
                    try:
                        return StorageType(name)  # type: ignore[no-untyped-call]
                    except KeyError:
                        pass
                return super().find_class(moved.get(module, module), name)

        unpickler = Unpickler(file, **self.arguments)
        unpickler.persistent_load = identify
        return unpickler.load()
