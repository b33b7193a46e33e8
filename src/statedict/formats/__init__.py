"""Read and write checkpoint files: recognised by their content, with pickles treated as inert data.

The way of a tensor from the file to the parameter, for a `.pt` file of torch.save:

1. Recognise the format. `open` (`_table.py`) gets a File from `statedict.files` (local, remote, or a file object), looks at
   its first 512 bytes and calls the reader of the first matching format. A zip may be one of several formats,
   distinguished by their members; a directory is recognised by the names in it.
2. Check the container. `zip/_archive.py` opens the archive: the end records, the central directory and the local headers
   must agree. Each member is then a name, an offset, a length and a CRC. (safetensors: `safetensors/_header.py`.)
3. Parse the description. `_pickle/reading` interprets `data.pkl` without importing anything. Each tensor record
   becomes a Leaf: a spec (dtype, shape, strides) and a storage. `torch_files/_storages.py` maps each storage key to an
   Extent, the byte range of a member (`storages/_extent.py`). The result is a Checkpoint (`checkpoint/_checkpoint.py`): an
   inert tree. No tensor data has been read yet.
4. Choose the state dict. `checkpoint/_roots.py` finds the candidates in the tree, `checkpoint/_choose_root.py` selects one.
   Outside of this package, `statedict.plan` matches its names with those of the model.
5. Read the bytes. `statedict.torch.modules._read_into` passes the memory of the parameters to `FileSource.read_into`
   (`storages/_file_source.py`), in one call for many tensors. `statedict.files` plans the system calls (`_file.py`), reads
   straight into that memory (`_open.py`) and computes the checksums (`_checksum.py`), which are compared with the file's.
   (`load` without a model reads into new arrays: `statedict.state.tensors._materialize`.)

The way out, from the parameter to the file:

1. Collect the leaves. `statedict.tree._read` makes a StateDict whose leaves share the memory of the parameters. `write`
   (`_write.py`) selects the writer by `format`, or by the suffix.
2. Write the description. `_pickle/writing/_write.py` produces the pickle. For each tensor it asks for the storage to refer
   to. A pickle with other values than names and tensors is read back at once (`torch_files/_loadable.py`), so that nothing
   is saved that could not be loaded.
3. Decide which bytes are written. `storages/_pack.py` reduces each storage to the elements that its tensors use, and keeps
   tied tensors tied. It returns views of memory, not copies.
4. Lay out the file. `torch_files/_write.py` lists the members, `zip/_layout.py` computes all offsets, and `zip/_write.py`
   returns the file as Parts of known length.
5. Write the bytes. `statedict.files` (`_write.py`, `_atomic.py`) writes the parts to a temporary file, computing each CRC on
   the way, and renames it over the old file.

Other formats replace steps 2 and 3: `safetensors/`, `numpy_files/`, the older formats in `torch_files/`, checkpoints of
several files in `many_files/`, and folders whose files are roots in `folders/`. The checkpoints of a run are in `runs/`,
which other packages use by its own `__init__`. Limits on what reading may cost are in `_limits.py`.

For authors of formats, in this package or in a plugin (docs/how-to/plugin.md): `Format` describes a format, and its reader
makes a `Checkpoint` of a `File` or `Folder` within `Limits`, with `FileTensors`. Its writer finds the tensors in an object
with `leaf_of` or `named_leaves`. These names, `Leaf`, `Finding`, `read_array`, `open` and `statedict.errors` are all that
a plugin needs. A format that divides tensors among ranks describes each part with `part_at` (`MeshPlacement` and `boxes_of`,
or `LocalBox` and `Box`, say which part it is) and joins them with `join_ranks`.
"""

from collections.abc import Callable, Sequence
from typing import Any

from statedict.files import File, Folder
from statedict.state import (
    Box,
    Leaf,
    LocalBox,
    MeshPlacement,
    Parts,
    boxes_of,
    leaf_of,
    part_at,
    placement_text,
    read_array,
)

from ._format import Format
from ._json import parse_json
from ._limits import LIMITS, Limits
from ._pickle import Import, Pair, Size, TorchConstant, TypedStorage
from ._table import open
from ._write import WRITERS, parts, write, writer_for
from .checkpoint._checkpoint import Checkpoint, Finding, is_damage
from .checkpoint._choose_root import candidates, choose_part, choose_root
from .checkpoint._file_tensors import FileTensors
from .checkpoint._roots import find_roots
from .checkpoint._walk import leaves, tensors
from .many_files._byte_count import byte_count
from .safetensors._torchao import entries_of_tensors, with_torchao_tensors
from .storages._named import named_leaves
from .storages._runs import runs_of

__all__ = [
    "Box", "Checkpoint", "File", "FileTensors", "Finding", "Folder", "Format", "Import", "LIMITS", "Leaf", "Limits",
    "LocalBox", "MeshPlacement", "Pair", "Parts", "Size", "TorchConstant", "TypedStorage", "WRITERS", "boxes_of",
    "byte_count", "candidates", "choose_part", "choose_root", "entries_of_tensors", "find_roots", "is_damage", "join_ranks",
    "leaf_of", "leaves", "named_leaves", "open", "parse_json", "part_at", "parts", "placement_text", "read_array", "runs_of",
    "tensors", "unloadable", "with_torchao_tensors", "write", "writer_for",
]  # fmt: skip


def join_ranks(trees: Sequence[Any], where: str) -> Any:
    """Return what several ranks saved, one tree each, as one tree: Parts are joined, and other values are those of the first
    rank that has them. `where` is the file or folder, for errors.

    A tensor of which a part is missing stays Parts: reading it raises PartError. Raises FormatError if parts contradict
    each other: in dtype or shape, or because they overlap.
    """
    from .many_files._join_ranks import join_ranks as join

    return join(trees, where)


def unloadable(obj: Any, substitute: Callable[[Any], Any] = lambda value: value) -> str | None:
    """Return why `obj`, saved in a torch file, could not be loaded again, with the path in the tree; None if it could.

    `substitute`: see `write`.
    """
    from .torch_files._loadable import unloadable as reason

    return reason(obj, substitute)
