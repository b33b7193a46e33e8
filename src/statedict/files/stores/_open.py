"""Which Bucket a URL is in."""

from __future__ import annotations

from collections.abc import Callable

from ...errors import SaveError
from .._open import is_url, redacted
from ._bucket import Bucket
from ._credentials import AZURE, GOOGLE, S3
from ._memory import MemoryBucket
from ._obstore import ObstoreBucket

SCHEMES: dict[str, Callable[[str], Bucket]] = {
    **dict.fromkeys((*S3, *GOOGLE, *AZURE), ObstoreBucket),
    "memory": MemoryBucket,
}


def is_stored(url: str) -> bool:
    """Return whether a URL is that of an object, or a prefix, in a store: those of other schemes are read through fsspec."""
    return is_url(url) and _scheme(url) in SCHEMES


def open_bucket(url: str) -> Bucket:
    """Return the Bucket of the objects below a URL; raise SaveError if its scheme is not that of a store."""
    if not is_stored(url):
        known = ", ".join(f"{name}://" for name in SCHEMES)
        raise SaveError(
            f"{redacted(url)}: {_scheme(url)}:// can only be read; save to a local path, to one of {known}, or to a file "
            "object: with fsspec.open(url, 'wb') as file: statedict.save(state, file)"
        )
    return SCHEMES[_scheme(url)](url)


def split(url: str) -> tuple[str, str]:
    """Return the URL of the folder of an object, and its key in it.

    >>> split("s3://bucket/run/model.pt")
    ('s3://bucket/run', 'model.pt')
    """
    folder, _, key = url.rpartition("/")
    return folder, key


def _scheme(url: str) -> str:
    return url.partition("://")[0].lower()
