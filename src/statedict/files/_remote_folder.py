"""The directory behind a URL as a Folder: a repository on the Hugging Face Hub, a prefix in an object store …"""

from __future__ import annotations

from ._attempts import attempt, file_system, inside
from ._folder import Entries, Folder, is_plain_name
from ._open import redacted
from ._remote import LONGEST, RemoteFile


def remote_folder(url: str) -> Folder:
    """Return the Folder of the directory behind a URL. Each folder in it is listed once, when it is needed.

    Reading its `entries` or a file raises the errors of RemoteFile.
    """

    def entries(within: str) -> Entries:
        return _entries(inside(url, within) if within else url)

    return Folder(redacted(url).rstrip("/"), lambda name: RemoteFile(inside(url, name)), entries)


def _entries(url: str) -> Entries:
    fs, path = file_system(url)
    limit = {"timeout": LONGEST} if getattr(fs, "async_impl", False) else {}
    found = attempt(lambda: fs.ls(path, detail=True, **limit), url)
    kinds: dict[str, str] = {}
    for entry in found:
        place = entry["name"].rstrip("/")
        name = place.rpartition("/")[2]
        # Object stores list the folder itself, too.
        if place != path.rstrip("/") and is_plain_name(name):
            kinds[name] = entry["type"]
    names = sorted(kinds)
    return Entries(*([name for name in names if kinds[name] == kind] for kind in ("file", "directory")))
