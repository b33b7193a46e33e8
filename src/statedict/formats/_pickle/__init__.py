"""Pickles as inert data, both ways.

    parse(data, *, storage, rows=None, persistent=None, nested=None, file=None, member=None, limits=LIMITS, start=0,
          whole=True, paid=None)
    emit(obj, store, store_all=None, *, arrays="values")

**parse** reads one pickle (protocols 0 to 5) out of `data` (bytes or a mmap), beginning at `start`, into a Parsed. Nothing
that it names is imported or called. `Parsed.value` is the tree: dict, OrderedDict (with the attribute `_metadata` where
torch saved one), list, tuple, set, numbers, str, bytes, datetimes …, NumPy arrays and scalars. Tensors are Leaf or Compound;
`torch.Size`, dtypes, devices … are Size, DType, TorchConstant; bare storages are TypedStorage; all else is Opaque.
`Parsed.globals` is every import with its risk: `parse` never raises for a dangerous one, its caller does (UnsafeFileError,
from `load`). `Parsed.end` is the offset after STOP; `whole=True` refuses bytes after it, `whole=False` lets stacked pickles
be read one after the other. Any failure is a FormatError with file, member and the byte offset in `data`.

* `paid`: bytes of the file that the pickle lies in, by which its cost is measured (a pickle can be inflated, and is then
  larger than what it lies in); None: `data` is the file.
* `storage(id: StorageId) -> TypedStorage` is asked for every storage that the pickle names. It checks `id.numel` (times the
  itemsize) and `id.view` against the bytes that exist, and raises a FormatError where they do not fit or there is no such
  storage. Every view into what it returns is bounds-checked here.
* `rows: RowMaker` makes leaves of many tensors at once, as rows of a table. It is used only where NumPy is imported
  already, or worth importing.
* `persistent(id) -> object` gets persistent ids of any other form (the integers of the oldest, tar, files); None: they are
  refused. Legacy `("module", class, file, source)` ids are understood here: they are the class.
* `nested(data: bytes) -> Parsed` reads a whole legacy torch.save file inside the pickle, which is how plain `pickle.dump`
  writes a tensor's storage; its value is a TypedStorage, usually, and its globals become this pickle's too. None: such
  values become Opaque, and count as dangerous.

**emit** writes a tree (live arrays, leaves, inert values, any picklable object) as torch.save's `data.pkl`, byte for byte.
`store(leaf: Leaf) -> Placement` is called once for each tensor, in the order in which torch numbers storages; it gives keys
("0", "1" … in first-seen order, one for each storage). `store_all(wholes: Wholes) -> int | None` gives the first of
their keys for many tensors at once, where each has a storage that is new and all its own.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._values import Import as Import
from ._values import Pair as Pair
from ._values import Parsed as Parsed
from ._values import Placement as Placement
from ._values import Records as Records
from ._values import Risk as Risk
from ._values import RowMaker as RowMaker
from ._values import Size as Size
from ._values import StorageId as StorageId
from ._values import TorchConstant as TorchConstant
from ._values import TypedStorage as TypedStorage

if TYPE_CHECKING:
    from ._names import storage_dtype as storage_dtype
    from .reading._parse import parse as parse
    from .reading._views import spec_in as spec_in
    from .writing._write import emit as emit

__all__ = [
    "Import",
    "Pair",
    "Parsed",
    "Placement",
    "Records",
    "Risk",
    "RowMaker",
    "Size",
    "StorageId",
    "TorchConstant",
    "TypedStorage",
    "emit",
    "parse",
    "spec_in",
    "storage_dtype",
]

# What is imported when it is first named: reading needs no writer, and a safetensors file neither of them.
_LATER = {
    "emit": ".writing._write",
    "parse": ".reading._parse",
    "spec_in": ".reading._views",
    "storage_dtype": "._names",
}

if not TYPE_CHECKING:  # to which any name would be one that is there

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LATER[name], __name__), name)
