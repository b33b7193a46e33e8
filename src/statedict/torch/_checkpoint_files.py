"""The files that torch.distributed.checkpoint writes, created by a function of ours: on a disk, or in an object store."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from torch.distributed.checkpoint.filesystem import FileSystemBase, FileSystemWriter

# The suffix of the metadata until it is renamed. A checkpoint is not visible before it is complete, so it needs none.
TEMPORARY = ".tmp"


def writer(create: Callable[[str], AbstractContextManager[Any]], folder: str) -> FileSystemWriter:
    """Return a StorageWriter for files in `folder`; `create` returns the context in which a file is written."""
    # Whoever completes the checkpoint flushes its files.
    made = FileSystemWriter(folder, sync_files=False)
    made.fs = _Files(create)  # type: ignore[assignment]
    return made


class _Files(FileSystemBase):
    """The file system of a FileSystemWriter, whose paths are names."""

    def __init__(self, create: Callable[[str], AbstractContextManager[Any]]) -> None:
        self._create = create

    @contextmanager
    def create_stream(self, path: str | os.PathLike[str], mode: str) -> Iterator[Any]:
        with self._create(os.fspath(path).removesuffix(TEMPORARY)) as target:
            if not isinstance(target, os.PathLike):
                yield target
                return
            with open(target, mode) as stream:
                yield stream

    def concat_path(self, path: str | os.PathLike[str], suffix: str) -> str:
        return f"{os.fspath(path)}/{suffix}"

    def init_path(self, path: str | os.PathLike[str]) -> str:
        return os.fspath(path)

    def rename(self, path: str | os.PathLike[str], new_path: str | os.PathLike[str]) -> None:
        """Do nothing: the file has its name already."""

    def mkdir(self, path: str | os.PathLike[str]) -> None:
        """Do nothing: `create` does."""

    @classmethod
    def validate_checkpoint_id(cls, checkpoint_id: str | os.PathLike[str]) -> bool:
        return True

    def exists(self, path: str | os.PathLike[str]) -> bool:
        return False

    def rm_file(self, path: str | os.PathLike[str]) -> None:
        """Do nothing: no file exists."""
