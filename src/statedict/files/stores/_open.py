"""Which Bucket a URL is in."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SaveError
from .._open import redacted
from ._bucket import Bucket
from ._credentials import AZURE, GOOGLE, S3
from ._memory import MemoryBucket
from ._obstore import ObstoreBucket

SCHEMES: dict[str, Callable[[str], Bucket]] = {
    **dict.fromkeys((*S3, *GOOGLE, *AZURE), ObstoreBucket),
    "memory": MemoryBucket,
}


def is_in_store(url: str) -> bool:
    """Return whether obstore reads a URL; those of other schemes are read through fsspec."""
    return SCHEMES.get(_scheme(url)) is ObstoreBucket


def open_bucket(url: str) -> Bucket:
    """Return the Bucket of the objects below a URL; raise SaveError if its scheme is not that of a store."""
    return _kind(url)(url)


def open_object(url: str) -> tuple[Bucket, str]:
    """Return the Bucket of the folder of an object, and the object's key in it; raise what `open_bucket` raises."""
    kind = _kind(url)
    folder, key = split(url)
    if "://" not in folder:
        raise SaveError(
            f"{redacted(url)} is a bucket: pass the URL of an object in it, such as {redacted(url)}/model.pt"
        )
    return kind(folder), key


def _kind(url: str) -> Callable[[str], Bucket]:
    kind = SCHEMES.get(_scheme(url))
    if kind is None and _scheme(url) == "file":
        raise SaveError(
            f"{url} names another machine: pass a path, or file:// with an absolute path (file:///tmp/a.pt)"
        )
    if kind is None:
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise SaveError(
            f"{redacted(url)}: {_scheme(url)}:// can only be read; save to a local path, to one of {known}, or to a file "
            "object: with fsspec.open(url, 'wb') as file: statedict.save(state, file)"
        )
    return kind


def split(url: str) -> tuple[str, str]:
    """Return the URL of the folder of an object, and its key in it.

    >>> split("s3://bucket/run/model.pt")
    ('s3://bucket/run', 'model.pt')
    """
    folder, _, key = url.rpartition("/")
    return folder, key


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()
