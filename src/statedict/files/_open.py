"""Open paths, URLs and file objects as a File."""

from __future__ import annotations

import os
import re
from typing import Any

from ._file import File
from ._local import LocalFile
from ._object import ObjectFile
from ._url import is_url

# The form of a model name on the Hugging Face Hub, `owner/name`, as opposed to a path with a suffix of letters.
REPOSITORY = re.compile(r"[\w-][\w.-]*/(?!.*\.[A-Za-z]+\Z)[\w-][\w.-]*")


def open(source: Any) -> File:
    """Return the File for a path, a URL, a seekable binary file object or a File.

    Raises OSError if the path or URL cannot be opened, UnknownFormatError if it is not a regular file,
    MissingDependencyError if fsspec, which opens URLs, is not installed, TypeError if `source` has another type.

    >>> import io
    >>> open(io.BytesIO(b"abc")).read(1, 2)
    b'bc'
    """
    if is_url(source):
        from ._remote import RemoteFile

        return RemoteFile(source)
    if isinstance(source, (str, os.PathLike)):
        try:
            return LocalFile(source)
        except FileNotFoundError as error:
            if isinstance(source, str) and REPOSITORY.fullmatch(source) and not os.path.isdir(os.path.dirname(source)):
                error.strerror = f"{error.strerror}; files on the Hugging Face Hub are opened as hf://{source}/FILE"
            raise
    if hasattr(source, "check_unchanged"):
        file: File = source
        return file
    if not hasattr(source, "read") or not hasattr(source, "seek") or not _seekable(source):
        raise TypeError(f"a path or a seekable binary file object is expected, not {type(source).__name__}")
    if isinstance(source.read(0), str):
        raise TypeError('the file object returns text; open it in binary mode ("rb")')
    return ObjectFile(source)


def _seekable(stream: Any) -> bool:
    return bool(stream.seekable()) if hasattr(stream, "seekable") else hasattr(stream, "tell")
