"""The unpickler for torch.load: the restricted one, or the Unpickler of a pickle module.

The latter runs any code that the pickle names, which is PyTorch's contract for `weights_only=False`.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple

from torch.serialization import StorageType

from ._load_restricted import Restricted

Identify = Callable[[Any], Any]
# Modules whose classes have moved since they were pickled: old → new name.
MOVED = {"torch.tensor": "torch._tensor"}


class UnpicklerChoice(NamedTuple):
    """The unpickler to use: that of a pickle module, with arguments, or (without a module) the restricted one.

    Attributes:
        module: the pickle module, or None.
        arguments: keyword arguments of the Unpickler.
    """

    module: ModuleType | None
    arguments: Mapping[str, Any]

    @property
    def is_usual(self) -> bool:
        """Whether it reads a pickle of plain values like the default unpickler."""
        return self.module in (None, pickle) and self.arguments == {"encoding": "utf-8"}

    def read(self, file: Any) -> Any:
        """Read the next pickle of the file, which refers to no storages."""
        if self.module is None:
            return Restricted(file, **self.arguments).load()
        return self.module.load(file, **self.arguments)

    def read_object(self, file: Any, identify: Identify, moved: Mapping[str, str] = MOVED) -> Any:
        """Read the object's pickle, which comes next; `identify` resolves its persistent ids."""
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
