"""Zip archives as mappings from names to contents: unpack one, change it, and pack it as Python's zipfile does."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path


def unpacked(archive: bytes | Path) -> dict[str, bytes]:
    """Return the members of an archive, in order."""
    with zipfile.ZipFile(io.BytesIO(archive) if isinstance(archive, bytes) else archive) as opened:
        return {name: opened.read(name) for name in opened.namelist()}


def packed(members: Mapping[str, bytes | str], method: int = zipfile.ZIP_STORED) -> bytes:
    """Return an archive of these members."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return out.getvalue()


def deflated(archive: bytes | Path) -> bytes:
    """Return the archive as a tool that compresses packs it again."""
    return packed(unpacked(archive), zipfile.ZIP_DEFLATED)
