"""The payloads of a `.pt2` package: members with the bytes of a storage, and files of torch.save inside the archive.

A configuration in JSON (`_weights_config.json`) gives for each name the member, whether it is a pickle, and the tensor's
dtype, sizes, strides and offset. Several names can share a member: tied tensors, or views of one storage.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from io import BytesIO
from typing import Any, TypeVar

from statedict import files
from statedict.files import FileSlice
from statedict.state import Absent, Compound, DType, Leaf, Traits, dtype

from ...errors import FormatError
from .._json import read_json
from .._limits import Limits
from .._pickle import Import, StorageId, TypedStorage, parse, spec_in
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..storages._describe import shown
from ..zip._archive import Archive, located, path_of, read_parsed
from ..zip._directory import STORED
from ._read import read_torch_zip
from ._storages import ArchiveStorages

T = TypeVar("T")

# {config: {NAME: {tensor_meta: {sizes: [{as_expr: {hint: {as_int: 4}}}]}}}}
JSON_DEPTH = 8
OPAQUE = "opaque_obj_"
STRIDED = 7
MOST_DEVICES = 1 << 16
FIRST = "uint8 int8 int16 int32 int64 float16 float32 float64 complex32 complex64 complex128 bool bfloat16"
EIGHT_BITS = "float8_e4m3fn float8_e5m2 float8_e4m3fnuz float8_e5m2fnuz float8_e8m0fnu"
# The numbers of torch._export.serde.schema.ScalarType.
DTYPES: dict[int, str] = {
    **dict(enumerate(FIRST.split(), 1)),
    **dict(enumerate(EIGHT_BITS.split(), 29)),
    28: "uint16",
    34: "uint32",
    35: "uint64",
}


class Payloads:
    """The tensors in the members of an archive; `folder` contains the members.

    Attributes:
        globals: the imports of all pickles that were read.
        stores: the storages that are members.
    """

    def __init__(self, archive: Archive, folder: str, big_endian: bool, limits: Limits) -> None:
        self.globals: list[Import] = []
        self._archive = archive
        self._folder = folder
        self._limits = limits
        self._big_endian = big_endian
        self._stores: dict[str, ArchiveStorages] = {}
        self._inside: dict[str, Checkpoint] = {}

    @property
    def stores(self) -> list[ArchiveStorages]:
        return list(self._stores.values())

    def described(self, config: str, directory: str, prefix: str) -> dict[str, Any] | None:
        """Return the values by name that a configuration describes; None if the archive does not have it.

        `directory` contains their members; those with storages begin with `prefix`.
        """
        entries = self._json(config)
        if entries is None:
            return None
        values: dict[str, Any] = {}
        for name, entry in _typed(_typed(entries, dict, config).get("config"), dict, config).items():
            try:
                values[name] = self._value(name, _typed(entry, dict, name), directory, prefix)
            except FormatError as error:
                raise error.located(member=name) from None
        return values

    def compiled(self, config: str, directory: str) -> dict[str, Any] | None:
        """Return the weights of a compiled model by name; None if the archive does not have its configuration.

        The configuration gives the member, a file of torch.save with one tensor, and sizes, strides and offset of a view.
        """
        entries = self._json(config)
        if entries is None:
            return None
        values: dict[str, Any] = {}
        for name, entry in _typed(entries, dict, config).items():
            if type(entry) is not list or len(entry) != 4 or type(entry[0]) is not str:
                raise FormatError(f"expected [member, sizes, strides, offset], found {shown(entry)}", member=name)
            member, sizes, strides, offset = entry
            whole = self.saved(directory + member)
            if whole is None:
                values[name] = self._absent(name, directory + member)
            elif not isinstance(whole, Leaf):
                raise FormatError(f"{member} should contain a tensor, but it contains {shown(whole)}", member=name)
            else:
                of = whole.spec.dtype
                typed = TypedStorage(whole.storage, of, whole.storage.nbytes // of.itemsize)
                values[name] = Leaf(spec_in(typed, of, offset, sizes, strides, self._limits), whole.storage)
        return values

    def saved(self, name: str) -> Any:
        """Return the content of a file of torch.save that is a member; None if the archive does not have it."""
        member = self._archive.members.get(self._folder + name)
        if member is None:
            return None
        if name not in self._inside:
            if member.method == STORED:
                (member,) = located(self._archive, [member])
                file: files.File = FileSlice(
                    path_of(self._archive, member.name), lambda: self._archive.file, member.offset, member.nbytes
                )
            else:
                file = files.open(BytesIO(read_parsed(self._archive, member.name, self._limits)))
                file.name = path_of(self._archive, member.name)
            found = self._inside[name] = read_torch_zip(file, self._limits)
            self.globals += found.globals
        return self._inside[name].object

    def settle(self, tree: object) -> None:
        """Complete the storages with the tree that was read."""
        for store in self.stores:
            store.settle(tree)

    def check(self) -> Iterator[Finding]:
        """Verify files inside an archive that has no checksums itself."""
        for name, inside in self._inside.items() if not self._archive.checked else ():
            for finding in inside._checks():
                yield finding._replace(where=f"{name}/{finding.where}" if finding.where else name)

    def _json(self, name: str) -> Any:
        member = self._folder + name
        if member not in self._archive.members:
            return None
        limits = replace(self._limits, json_depth=max(self._limits.json_depth, JSON_DEPTH))
        return read_json(read_parsed(self._archive, member, limits), self._archive.file.name, limits, member)

    def _value(self, name: str, entry: Mapping[str, Any], directory: str, prefix: str) -> Any:
        """Return the value of a name; an Absent if its member is missing."""
        path = _typed(entry.get("path_name"), str, name)
        if self._folder + directory + path not in self._archive.members:
            return self._absent(name, directory + path)
        if entry.get("use_pickle") is True:
            return self._object(directory + path) if path.startswith(OPAQUE) else self.saved(directory + path)
        if not path.startswith(prefix):
            raise FormatError(f"the name of its member should begin with {prefix!r}, not {path!r}", member=name)
        return self._tensor(name, entry, self._store(directory + prefix), path.removeprefix(prefix))

    def _tensor(self, name: str, entry: Mapping[str, Any], store: ArchiveStorages, key: str) -> Leaf | Compound:
        meta = _typed(entry.get("tensor_meta"), dict, name)
        of = _dtype(meta, name)
        sizes, strides = (_numbers(meta.get(field), name) for field in ("sizes", "strides"))
        traits = Traits(parameter=entry.get("is_param") is True, requires_grad=meta.get("requires_grad") is True)
        nbytes = self._archive.members[store.prefix + key].nbytes
        if not nbytes and 0 not in sizes:
            # The model was exported with fake tensors.
            return Compound("meta", of, tuple(sizes), {}, {"strides": tuple(strides)}, traits)
        typed = store.find(StorageId(of, key, _device(meta.get("device")), nbytes // of.itemsize))
        spec = spec_in(typed, of, _number(meta.get("storage_offset"), name), sizes, strides, self._limits)
        leaf = Leaf(spec, typed.storage, traits)
        store.single.append(leaf)
        return leaf

    def _store(self, prefix: str) -> ArchiveStorages:
        store = self._stores.get(prefix)
        if store is None:
            store = self._stores[prefix] = ArchiveStorages(self._archive, self._folder + prefix, self._big_endian)
            store.source.expansion = self._limits.expansion
        return store

    def _object(self, name: str) -> Any:
        """Return the content of a member that is a pickle."""
        member = self._folder + name
        data = read_parsed(self._archive, member, self._limits)
        file = self._archive.file
        parsed = parse(data, storage=_no_storage, file=file.name, member=member, limits=self._limits, paid=file.size)
        self.globals += parsed.globals
        return parsed.value

    def _absent(self, name: str, member: str) -> Absent:
        return Absent(name, path_of(self._archive, self._folder + member))


def _typed(value: object, kind: type[T], name: str) -> T:
    if type(value) is not kind:
        raise FormatError(f"expected a {kind.__name__}, found {shown(value)}", member=name)
    return value


def _numbers(values: object, name: str) -> list[int]:
    return [_number(value, name) for value in _typed(values, list, name)]


def _number(value: object, name: str) -> int:
    """Return a number of a shape: `{"as_int": 4}`, or `{"as_expr": {"expr_str": …, "hint": {"as_int": 4}}}`."""
    found = _typed(value, dict, name)
    if type(found.get("as_expr")) is dict:
        found = _typed(found["as_expr"].get("hint"), dict, name)
    return _typed(found.get("as_int"), int, name)


def _dtype(meta: Mapping[str, Any], name: str) -> DType:
    number, layout = meta.get("dtype"), meta.get("layout")
    if type(number) is not int or number not in DTYPES:
        raise FormatError(f"its dtype has the unknown number {shown(number)}", member=name)
    if layout != STRIDED:
        raise FormatError(
            f"its layout has the number {shown(layout)}; only strided tensors ({STRIDED}) are stored as bytes",
            member=name,
        )
    return dtype(DTYPES[number])


def _device(device: object) -> str:
    """Return a device in PyTorch's form: `cuda:0` for `{"type": "cuda", "index": 0}`."""
    found = device if isinstance(device, dict) else {}
    kind, index = found.get("type"), found.get("index")
    if type(kind) is not str or not kind.isalnum():
        return "cpu"
    return f"{kind}:{index}" if type(index) is int and 0 <= index < MOST_DEVICES else kind


def _no_storage(wanted: StorageId) -> TypedStorage:
    raise FormatError(f"it refers to storage {wanted.key!r}, but an object has no storages")
