"""Read TorchScript archives as data: the tensors of their module, under the names of its state dict.

Theory of operation. `torch.jit.save` writes a zip like torch.save's. Its `data.pkl` is one object, the module, whose
class is in the archive too, as source (`code/__torch__/….py`, mostly compressed). A class declares which of its
attributes are parameters and buffers (`__parameters__ = ["weight", "bias", ]`); every other tensor is a plain
attribute, outside of the state dict. Only these declarations are taken from the source: it is never compiled or run. A
frozen module has lost its attributes; its tensors are the constants of its code (`constants.pkl`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from statedict.files import File
from statedict.state import Compound, Leaf, Opaque

from .._limits import LIMITS, Limits
from .._pickle import Import, parse
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..zip._archive import Archive, located, open_zip, read_member, read_parsed
from ._read import PICKLE, check_members, check_version, read_facts, top_folder
from ._storages import ArchiveStorages

CONSTANTS = "constants.pkl"
CODE = "code/"
CLASS = re.compile(r"class (\w+)\(Module\):")
SLOTS = re.compile(r"__(parameters|buffers)__ = \[(.*)\]")
QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
# torch.jit wraps lists and dicts in calls of these functions to keep their element types.
TYPED = "torch.jit._pickle"
TYPING = {"build_boollist", "build_doublelist", "build_intlist", "build_tensorlist", "restore_type_tag"}

Name = tuple[str, str]  # module, class


class DeclaredAttributes(NamedTuple):
    """The attributes of a module class that are in its state dict.

    `buffers` is None if the class does not declare them: before PyTorch 1.5, every tensor other than a parameter was
    one.
    """

    parameters: frozenset[str] = frozenset()
    buffers: frozenset[str] | None = None


def read_torchscript(file: File, limits: Limits = LIMITS, archive: Archive | None = None) -> Checkpoint:
    """Open the Checkpoint in a file that torch.jit.save wrote: the module in the form of whole-module pickles, of an
    unknown class.

    Constants of its code, if there are any, are its attribute `constants.pkl`.
    """
    archive = archive or open_zip(file, limits)
    folder = top_folder(archive)
    facts = read_facts(archive, folder)
    check_version(archive, folder, facts)
    big = facts.get("byteorder") == "big"
    stores = {name: ArchiveStorages(archive, folder + name, big) for name in ("data/", "constants/")}
    for store in stores.values():
        store.source.expansion = limits.expansion
    imports: list[Import] = []

    def read(member: str, store: ArchiveStorages) -> Any:
        data = read_parsed(archive, member, limits)
        parsed = parse(
            data, storage=store.find, rows=store, file=file.name, member=member, limits=limits, paid=file.size
        )
        imports.extend(parsed.globals)
        return store.settle(parsed.value)

    module = read(folder + PICKLE, stores["data/"])
    constants = read(folder + CONSTANTS, stores["constants/"]) if folder + CONSTANTS in archive.members else ()
    arrange(module, dict(declared_slots(archive, folder + CODE, limits)))
    if constants and isinstance(module, Opaque):
        module.state = {**module.attributes(), CONSTANTS: constants}
    return Checkpoint(
        file.name,
        "torchscript",
        module,
        size=file.size,
        producer="TorchScript",
        globals=list(dict.fromkeys(map(_judged, imports))),
        notes=archive.notes,
        metadata=facts,
        checks=_checks(archive, stores["data/"]),
        close=file.close,
    )


def declared_slots(archive: Archive, prefix: str, limits: Limits) -> Iterator[tuple[Name, DeclaredAttributes]]:
    """Yield the declarations in the source of each module class in the archive."""
    files = [name for name in archive.members if name.startswith(prefix) and name.endswith(".py")]
    members = located(archive, [archive.members[name] for name in files])
    total = sum(member.nbytes for member in members)
    if total > max(limits.parsed_bytes, limits.inflated_ratio * archive.file.size):
        raise limits.exceeded("parsed_bytes", f"source code of {total:,} bytes").located(file=archive.file.name)
    for member in files:
        module = member.removeprefix(prefix).removesuffix(".py").replace("/", ".")
        source = read_member(archive, member).decode("utf-8", "replace")
        yield from (((module, name), slots) for name, slots in _classes(source))


def _classes(source: str) -> Iterator[tuple[str, DeclaredAttributes]]:
    """Yield the module classes in a source file, by matching the lines in the form that PyTorch prints."""
    name, slots = "", DeclaredAttributes()
    for line in source.splitlines():
        begins, listed = CLASS.match(line), SLOTS.match(line.strip())
        if line[:1].strip() and name:
            yield name, slots
            name = ""
        if begins:
            name, slots = begins[1], DeclaredAttributes()
        elif listed and name:
            slots = slots._replace(**{listed[1]: frozenset(QUOTED.findall(listed[2]))})
    if name:
        yield name, slots


def arrange(module: object, declared: Mapping[Name, DeclaredAttributes]) -> None:
    """Sort the attributes of a module and its submodules as torch.nn's pickles have them: `_parameters`, `_buffers`,
    `_modules`, and the rest.
    """
    seen: set[int] = set()
    waiting = [module]
    while waiting:
        value = waiting.pop()
        if not isinstance(value, Opaque) or id(value) in seen or not _is_module(value, declared):
            continue
        seen.add(id(value))
        value.state = _arranged(
            value.attributes(), declared.get((value.module, value.name), DeclaredAttributes()), declared
        )
        waiting += value.state["_modules"].values()


def _arranged(
    attributes: Mapping[str, Any], slots: DeclaredAttributes, declared: Mapping[Name, DeclaredAttributes]
) -> dict[str, Any]:
    rest: dict[str, Any] = {}
    parameters: dict[str, Any] = {}
    buffers: dict[str, Any] = {}
    modules: dict[str, Any] = {}
    for name, value in attributes.items():
        if isinstance(value, (Leaf, Compound)):
            if name in slots.parameters:
                parameters[name] = value
            elif slots.buffers is None or name in slots.buffers:
                buffers[name] = value
            else:
                rest[name] = value
        elif isinstance(value, Opaque) and _is_module(value, declared):
            modules[name] = value
        else:
            rest[name] = _untyped(value)
    return {**rest, "_parameters": parameters, "_buffers": buffers, "_modules": modules}


def _is_module(value: Opaque, declared: Mapping[Name, DeclaredAttributes]) -> bool:
    """Return whether its class is one of the archive's module classes, or may be one if the archive has no source."""
    if not declared:
        return value.module.partition(".")[0] == "__torch__" and isinstance(value.state, dict)
    return (value.module, value.name) in declared


def _untyped(value: Any) -> Any:
    """Return the list or dict inside the call that gives it its type."""
    typed = isinstance(value, Opaque) and value.module == TYPED and value.name in TYPING and value.args
    return value.args[0] if typed else value


def _judged(named: Import) -> Import:
    """Return the import, marked safe if it belongs to this format."""
    return named._replace(risk="safe") if named.module == TYPED and named.name in TYPING else named


def _checks(archive: Archive, storages: ArchiveStorages) -> Callable[[], Iterator[Finding]]:
    return lambda: check_members(archive, storages)
