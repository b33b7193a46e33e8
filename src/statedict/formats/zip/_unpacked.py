"""A folder into which an archive was unpacked, as that archive. The checksums are lost."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress

from statedict.files import FileChain, Folder

from .._limits import Limits
from ._archive import Archive
from ._directory import STORED, check_names
from ._members import Member

DEEPEST = 32
UNCHECKED = "the archive was unpacked, which drops the checksums: damage to its content cannot be detected"


def unpacked(folder: Folder, limits: Limits, top: str) -> Archive:
    """Return the archive whose members are the files in `folder`, as if they were in the folder `top` of it."""
    sizes: dict[str, int] = {}
    for name in _names(folder):
        # A link can lead to a missing file.
        with suppress(FileNotFoundError):
            sizes[name] = folder.size(name)
        if len(sizes) > limits.zip_members:
            raise limits.exceeded("zip_members", f"a folder of {len(sizes):,} files").located(file=folder.path)
    check_names(list(sizes), limits, folder.path)
    chain = FileChain(folder, sizes)
    members = {
        top + name: Member(top + name, start, size, size, STORED, 0)
        for (name, size), start in zip(sizes.items(), chain.starts)
    }
    return Archive(chain, members, [UNCHECKED], False, top=top)


def _names(folder: Folder, above: str = "", depth: int = 0) -> Iterator[str]:
    """Yield the names of the files in a folder and the folders in it, without folders that are links."""
    yield from (above + name for name in folder.files)
    for name in folder.folders if depth < DEEPEST else ():
        if not os.path.islink(folder.path_of(name)):
            yield from _names(folder.folder(name), f"{above}{name}/", depth + 1)
