"""Write files of torch.save: the same members in the same order as torch 2.13, readable since torch 1.6.

Equal content gives equal bytes, whatever the name of the file: the folder inside is always `archive` (PyTorch uses the
file's name), and the serialization id is a digest of the members' checksums.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from statedict.files import Part
from statedict.state import COMPUTED, Leaf, Table, require_in_proportion

from ...errors import FormatError, SaveError
from .._pickle import Placement, emit
from ..storages._named import check_metadata
from ..storages._pack import Packed, Packing
from ..zip._directory import check_case
from ..zip._layout import ALIGNMENT
from ..zip._write import LastMember, Record, TensorRun, check_members, zip_parts
from ._read import DIGITS, EXTRA, LONGEST_EXTRA, SERIALIZATION_ID, serialization_id

FOLDER = "archive/"


def torch_parts(
    obj: Any, metadata: Mapping[str, str] | None = None, substitute: Callable[[Any], Any] = lambda value: value
) -> list[Part]:
    """Return the parts of a file that torch.load reads as `obj`. `metadata` becomes members below `extra/`, which
    PyTorch ignores. `substitute`: see `formats.write`. Raises SaveError for what could not be loaded again.
    """
    check_metadata(metadata or {})
    extras = [_small(FOLDER + _extra(name), text.encode()) for name, text in (metadata or {}).items()]
    _check_case([record.name for record in extras])
    for record in extras:
        if record.nbytes > LONGEST_EXTRA:
            raise SaveError(
                f"the metadata {record.name!r} has {record.nbytes:,} bytes; at most {LONGEST_EXTRA:,} are read back"
            )
    pickled, packed = _pickled(obj, substitute)
    members = [*_members(packed), *extras]
    check_members(members)
    return archive_parts(pickled, members)


def archive_parts(
    pickled: bytes,
    records: Sequence[Record | TensorRun],
    *,
    folder: str = FOLDER,
    late_byteorder: bool = False,
    alignment: int = ALIGNMENT,
    checked: bool = True,
) -> list[Part]:
    """Return the parts of the file with a pickle and its records, whose names begin with `folder`, and PyTorch's own
    facts.

    `late_byteorder`: write the byte order last, as PyTorch's writer does for files not written by torch.save.
    """
    byteorder = [_small(f"{folder}byteorder", b"little")]
    members = [
        _small(f"{folder}data.pkl", pickled),
        _small(f"{folder}.format_version", b"1"),
        _small(f"{folder}.storage_alignment", str(alignment).encode()),
        *([] if late_byteorder else byteorder),
        *records,
        _small(f"{folder}version", b"3\n"),
        *(byteorder if late_byteorder else []),
    ]
    last = LastMember(folder + SERIALIZATION_ID, DIGITS, serialization_id)
    return zip_parts(members, last, alignment=alignment, checked=checked)


def _pickled(obj: Any, substitute: Callable[[Any], Any]) -> tuple[bytes, list[Packed | Table]]:
    packing = Packing()
    pickled = _emitted(obj, packing, substitute)
    if not packing.settled:
        packing = packing.again()
        pickled = _emitted(obj, packing, substitute)
    return pickled, packing.packed


def _emitted(obj: Any, packing: Packing, substitute: Callable[[Any], Any]) -> bytes:
    # A view is written dense; a leaf computed from others needs as much memory as its elements.
    computed: list[Leaf] = []

    def store(leaf: Leaf) -> Placement:
        if leaf.storage.source is COMPUTED:
            computed.append(leaf)
        packed, spec = packing.place(leaf)
        return Placement(str(packed.number), leaf.storage.location, packed.nbytes, spec)

    def check(pickled: bytes, doubtful: Sequence[Any] | None) -> None:
        from ._loadable import check_loadable

        if packing.settled:
            check_loadable(obj, pickled, doubtful, substitute)

    pickled = emit(obj, store, packing.place_all, substitute=substitute, check=check)
    require_in_proportion(computed)
    return pickled


def _members(storages: Sequence[Packed | Table]) -> Iterator[Record | TensorRun]:
    number = 0
    for storage in storages:
        if isinstance(storage, Table):
            rows = range(number, number + len(storage))
            yield TensorRun([f"{FOLDER}data/{row}" for row in rows], storage)
            number = rows.stop
        else:
            yield Record(f"{FOLDER}data/{storage.number}", storage.nbytes, storage.views, of=storage.of)
            number += 1


def _small(name: str, content: bytes) -> Record:
    return Record(name, len(content), (memoryview(content),).__iter__)


def _check_case(names: Sequence[str]) -> None:
    try:
        check_case("\n".join(names), "")
    except FormatError as error:
        raise SaveError(f"keys of the metadata of a torch file must be valid file names: {error.reason}") from error


def _extra(name: str) -> str:
    if not name or name != name.strip("/") or any(step in ("", ".", "..") for step in name.split("/")):
        raise SaveError(f"keys of the metadata of a torch file must be valid file names, not {name!r}")
    return EXTRA + name
