"""Read and write pickles as inert data.

    parse(data, *, storage, rows=None, persistent=None, nested=None, file=None, member=None, limits=LIMITS, start=0,
          whole=True, paid=None)
    emit(obj, store, store_all=None, *, …)

**parse** reads one pickle (protocols 0 to 5) from `data` (bytes or a mmap), beginning at `start`, into a Parsed.
Nothing that it names is imported or called. `Parsed.value` is the tree: dict, OrderedDict (with the attribute
`_metadata` if torch saved one), list, tuple, set, numbers, str, bytes, datetimes …, NumPy arrays and scalars. Tensors
are Leaf or Compound; `torch.Size`, dtypes, devices … are Size, DType, TorchConstant; bare storages are TypedStorage;
everything else is Opaque. `Parsed.globals` is every import with its risk: `parse` never raises for a dangerous one, its
caller does (UnsafeFileError, from `load`). `Parsed.end` is the offset after STOP; `whole=True` refuses bytes after it,
`whole=False` allows pickles that follow each other. Any failure is a FormatError with file, member and the byte offset
in `data`.

* `paid`: the size of the file in bytes, by which the cost of the pickle is judged (a decompressed pickle can be larger
  than its file); None: `data` is the file.
* `storage(id: StorageId) -> TypedStorage` is called for every storage that the pickle names. It compares `id.numel` (times
  the itemsize) and `id.view` with the bytes that exist, and raises a FormatError if they do not fit or the storage does not
  exist. Views into the result are bounds-checked here.
* `rows: RowMaker` makes leaves of many tensors at once, as rows of a table, if NumPy is imported already or worth
  importing; and it gets the leaves that are read one by one.
* `persistent(id) -> object` receives persistent ids of any other form (the integers in the oldest files, tar); None: they
  are refused. Legacy `("module", class, file, source)` ids are handled here: their value is the class.
* `nested(data: bytes) -> Parsed` reads a whole legacy torch.save file inside the pickle, the form in which plain
  `pickle.dump` writes the storage of a tensor; its value is usually a TypedStorage, and its globals are added to those of
  this pickle. None: such values become Opaque, and count as dangerous.

**emit** writes a tree (live arrays, leaves, inert values, any picklable object) as torch.save's `data.pkl`, byte for byte.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from ._values import Import, Pair, Parsed, Placement, Risk, RowMaker, Size, StorageId, TorchConstant, TypedStorage

if TYPE_CHECKING:
    from ._names import storage_dtype as storage_dtype
    from .reading import parse as parse
    from .reading._tensors import spec_in as spec_in
    from .writing._write import emit as emit

__all__ = [
    "Import", "Pair", "Parsed", "Placement", "Risk", "RowMaker", "Size", "StorageId", "TorchConstant", "TypedStorage",
    "emit", "parse", "spec_in", "storage_dtype",
]  # fmt: skip

# Imported on first use: reading does not need the writer, and safetensors files need neither.
_LATER = {
    "emit": ".writing._write",
    "parse": ".reading",
    "spec_in": ".reading._tensors",
    "storage_dtype": "._names",
}

if not TYPE_CHECKING:  # hidden from type checkers, for which any name would exist

    def __getattr__(name: str) -> Any:
        if name not in _LATER:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_LATER[name], __name__), name)
