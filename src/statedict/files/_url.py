"""Paths that are URLs: how they are told, and how they are shown: without what is secret in them.

A user's name and password stand before the host, signatures and tokens in the query; a path is shown as it is.
"""

from __future__ import annotations

import re
from typing import Any

# `https://host/file`; several may be chained, as fsspec has it: `simplecache::s3://bucket/file`.
BEGINS = re.compile(r"(?:[A-Za-z][\w+.-]*::)*[A-Za-z][\w+.-]*://")
LINK = re.compile(r"(?P<scheme>[A-Za-z][\w+.-]*://)(?P<user>[^/?#\s'\"]*@)?(?P<path>[^?\s'\"]*)(?P<query>\?[^\s'\"]*)?")
HIDDEN = "***"


def is_url(path: Any) -> bool:
    """Whether a path is a URL, or a chain of them, and no name on this machine's disks."""
    return isinstance(path, str) and BEGINS.match(path) is not None


def redacted(text: str) -> str:
    """The URL, or the text with URLs in it, as it may be shown.

    >>> redacted("https://me:secret@host/model.pt?X-Amz-Signature=0123abcd")
    'https://***@host/model.pt?***'
    """
    return LINK.sub(_hide, text)


def _hide(found: re.Match[str]) -> str:
    user = f"{HIDDEN}@" if found["user"] else ""
    query = f"?{HIDDEN}" if found["query"] else ""
    return f"{found['scheme']}{user}{found['path']}{query}"
