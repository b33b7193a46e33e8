"""Read files of torch.save since 1.6: a zip with one pickle and one member for each storage.

Theory of operation. One folder, whose name does not matter, contains `data.pkl` (the object; its tensors refer to
storages by key), `data/KEY` (the bytes of each), and small facts: `version`, `byteorder`, `.format_version`,
`.storage_alignment`, `.data/serialization_id`. PyTorch does not check CRCs, nor the length when it maps the file; here
both are checked before a tensor is returned.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

from statedict.files import File
from statedict.state import few

from ...errors import FormatError
from .._limits import LIMITS, Limits
from .._pickle import parse
from ..checkpoint._checkpoint import Checkpoint, Finding
from ..zip._archive import Archive, located, open_zip, read_member, read_parsed, verify_members
from ..zip._directory import check_case
from ..zip._members import crcs_of, text_of
from ._storages import ArchiveStorages

PICKLE = "data.pkl"
EXTRA = "extra/"
LONGEST_EXTRA = 1 << 20
# torch 2.13 reads up to version 10 and writes 3.
NEWEST = 10
FACTS = ("version", "byteorder", ".format_version", ".storage_alignment")
LONGEST_FACT = 100
# Members, and folders of members, that PyTorch looks up without regard to case.
MEANINGS = (
    *(f"{name}\n" for name in (PICKLE, "constants.pkl", ".data/version", ".data/serialization_id", *FACTS)),
    *("data/", "constants/", "code/", EXTRA),
)


def read_torch_zip(file: File, limits: Limits = LIMITS, archive: Archive | None = None) -> Checkpoint:
    """Open the Checkpoint in a file that torch.save wrote; `archive` is the opened zip, if there is one already."""
    archive = archive or open_zip(file, limits)
    folder = top_folder(archive)
    if folder + PICKLE not in archive.members:
        raise FormatError(f"this archive is not a file of torch.save: it has no {folder}{PICKLE}", file=file.name)
    facts = read_facts(archive, folder)
    check_version(archive, folder, facts)
    storages = ArchiveStorages(archive, f"{folder}data/", facts.get("byteorder") == "big")
    storages.source.expansion = limits.expansion
    member = folder + PICKLE
    data = read_parsed(archive, member, limits)
    parsed = parse(
        data, storage=storages.find, rows=storages, file=file.name, member=member, limits=limits, paid=file.size
    )
    tree = storages.settle(parsed.value)
    return Checkpoint(
        file.name,
        "torch",
        tree,
        size=file.size,
        producer="statedict" if is_ours(archive, folder) else "PyTorch",
        globals=parsed.globals,
        notes=archive.notes,
        metadata=facts | read_extras(archive, folder + EXTRA, limits),
        checks=partial(check_members, archive, storages),
        close=file.close,
    )


def top_folder(archive: Archive) -> str:
    """Return the one folder that contains all members, with its slash."""
    names = text_of(archive.members)
    check_case(names, archive.file.name)
    folder = names.partition("\n")[0].partition("/")[0] + "/"
    if folder == "/" or f"\n{names}".count(f"\n{folder}") != len(archive.members):
        raise FormatError("the members of the archive are not all in one folder", file=archive.file.name)
    _check_meanings(names, folder, archive.file.name)
    return folder


def _check_meanings(names: str, folder: str, file: str) -> None:
    """Raise FormatError for names (one a line) that differ from a reserved name only in case, which PyTorch ignores."""
    folded, names = f"\n{names.lower()}\n", f"\n{names}\n"
    if folded == names:
        return
    for name in MEANINGS:
        if folded.count(f"\n{folder.lower()}{name}") != names.count(f"\n{folder}{name}"):
            raise FormatError(
                f"the name of a member differs from {name.strip()!r} only in case, and PyTorch ignores case", file=file
            )


def read_facts(archive: Archive, folder: str) -> dict[str, str]:
    """Read the small members that say how the file was written; raise FormatError for an unknown byte order."""
    facts = {}
    located(archive, [archive.members[folder + name] for name in FACTS if folder + name in archive.members])
    for name in FACTS:
        if folder + name in archive.members:
            if archive.members[folder + name].nbytes > LONGEST_FACT:
                raise FormatError(
                    f"expected a word or a number, found {archive.members[folder + name].nbytes:,} bytes",
                    file=archive.file.name,
                    member=folder + name,
                )
            text = read_member(archive, folder + name).decode("latin-1")
            facts[name] = text if name == "byteorder" else text.strip()
    order = facts.get("byteorder", "little")
    if order not in ("little", "big"):
        raise FormatError(
            f"the byte order must be 'little' or 'big', not {order!r}",
            file=archive.file.name,
            member=f"{folder}byteorder",
        )
    return facts


def check_version(archive: Archive, folder: str, facts: Mapping[str, str]) -> None:
    """Raise FormatError if the version of a file of torch.save or torch.jit.save is ambiguous or not supported."""
    if f"{folder}.data/version" in archive.members:
        raise FormatError(
            "this member is ambiguous: PyTorch reads the version here, other readers from `version`",
            file=archive.file.name,
            member=f"{folder}.data/version",
        )
    version = facts.get("version", "0")
    if not (version.isdecimal() and version.isascii() and len(version) < 10 and int(version) <= NEWEST):
        raise FormatError(
            f"unsupported version {version!r}; versions up to {NEWEST} are supported",
            file=archive.file.name,
            member=f"{folder}version",
        )


def read_extras(archive: Archive, inside: str, limits: Limits) -> dict[str, str]:
    """Return the members below the folder `inside`, texts that a program stores with the file; long ones are left out."""
    if inside not in text_of(archive.members):
        return {}
    return {
        name.removeprefix(inside): read_member(archive, name).decode("utf-8", "replace")
        for name, member in archive.members.items()
        if name.startswith(inside)
        and member.nbytes <= min(LONGEST_EXTRA, max(limits.inflated_ratio * member.packed, 1000))
    }


def check_members(archive: Archive, *stores: ArchiveStorages) -> Iterator[Finding]:
    """Yield an error for every member whose bytes do not match its CRC, and for every missing one."""
    wrong = verify_members(archive)
    names = {member: name for store in stores for member, name in store.names_of_members().items()} if wrong else {}
    for member, crc in wrong:
        yield Finding(
            "error",
            names.get(member.name, member.name),
            f"the bytes of {member.name} have changed since they were written: "
            f"CRC-32 is {crc:08x} and should be {member.crc:08x}",
        )
    for absent in (absent for store in stores for absent in store.absent.values()):
        yield Finding("error", absent.name, f"its bytes should be in {absent.file}, which is missing")
    unused = [name for store in stores for name in store.unused()]
    if unused:
        yield Finding("note", "", f"storages that no tensor uses: {few(unused)}")


SERIALIZATION_ID = ".data/serialization_id"
DIGITS = 40


def serialization_id(crcs: Sequence[int]) -> bytes:
    """Return the digits for members with these CRC-32s, in order.

    >>> serialization_id([1, 2])
    b'3604640817359706859843878024071385774900'
    """
    import hashlib

    digest = hashlib.sha256(struct.pack(f"<{len(crcs)}I", *crcs)).digest()
    return f"{int.from_bytes(digest, 'little') % 10**DIGITS:0{DIGITS}}".encode()


def is_ours(archive: Archive, folder: str) -> bool:
    """Return whether our writer made the archive, by the CRC-32 of its digits in the directory; no member is read."""
    last = archive.members.get(folder + SERIALIZATION_ID)
    if last is None or last.nbytes != DIGITS or not last.crc:
        return False
    *others, crc = crcs_of(archive.members)
    return last.name == [*archive.members][-1] and crc == zlib.crc32(serialization_id(others))
