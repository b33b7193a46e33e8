"""URLs: recognise them, and hide their secrets.

User name and password precede the host, signatures and tokens are in the query; the path is shown unchanged.
"""

from __future__ import annotations

import re
from typing import Any

# `https://host/file`; fsspec allows chains: `simplecache::s3://bucket/file`.
BEGINS = re.compile(r"(?:[A-Za-z][\w+.-]*::)*[A-Za-z][\w+.-]*://")
LINK = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^/?#\s'\"]*@)?(?P<path>[^?\s'\"]*)(?P<query>\?[^\s'\"]*)?")
HIDDEN = "***"


def is_url(path: Any) -> bool:
    """Return whether a path is a URL or a chain of URLs, as opposed to a local path."""
    return isinstance(path, str) and BEGINS.match(path) is not None


def redacted(text: str) -> str:
    """Return the URL, or a text with URLs in it, without secrets.

    >>> redacted("https://me:secret@host/model.pt?X-Amz-Signature=0123abcd")
    'https://***@host/model.pt?***'
    """
    return LINK.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    user = f"{HIDDEN}@" if found["user"] else ""
    query = f"?{HIDDEN}" if found["query"] else ""
    return f"{found['scheme']}{user}{found['path']}{query}"
