"""The disk edge: one file for each format, a table of them told by their bytes, and pickles as inert data."""

from collections.abc import Callable
from typing import Any

from ._limits import LIMITS as LIMITS
from ._limits import Limits as Limits
from ._pickle import Import as Import
from ._pickle import Pair as Pair
from ._pickle import Size as Size
from ._pickle import TorchConstant as TorchConstant
from ._pickle import TypedStorage as TypedStorage
from ._table import open as open
from ._table import write as write
from .checkpoint._checkpoint import Checkpoint as Checkpoint
from .checkpoint._checkpoint import Finding as Finding
from .checkpoint._choose_root import choose_part as choose_part
from .checkpoint._choose_root import choose_root as choose_root
from .checkpoint._roots import find_roots as find_roots
from .checkpoint._walk import leaves as leaves
from .checkpoint._walk import tensors as tensors
from .many_files._byte_count import byte_count as byte_count

__all__ = [
    "LIMITS",
    "Checkpoint",
    "Finding",
    "Import",
    "Limits",
    "Pair",
    "Size",
    "TorchConstant",
    "TypedStorage",
    "byte_count",
    "choose_part",
    "choose_root",
    "find_roots",
    "leaves",
    "open",
    "tensors",
    "unloadable",
    "write",
]


def unloadable(obj: Any, substitute: Callable[[Any], Any] = lambda value: value) -> str | None:
    """Why `obj`, once it is saved in a torch file, could not be loaded again, with the path in it; None where it could.

    `substitute`: see `write`.
    """
    from .torch_files._closed import unloadable as reason

    return reason(obj, substitute)
