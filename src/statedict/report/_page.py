"""The page: one self-contained HTML file that works offline.

Theory of operation. The page's style and scripts are the files in `page/`, concatenated. The charting library and the
content are compressed with gzip and encoded in base64, and the browser decompresses them. This makes the page smaller, and
keeps data from the checkpoint (such as tensor names) out of the markup. The Content-Security-Policy of the page forbids all
connections, and all scripts except those whose hash it lists: our own and the library.

Every command that describes a file imports this one, so the modules that only the page needs are imported in functions.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from string import Template
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError, printable
from ._content import FileContent, content

if TYPE_CHECKING:
    from statedict.plan import Diff

# Concatenated in this order, they are one module.
SCRIPTS = (
    "unpack.js",
    "elements.js",
    "words.js",
    "nodes.js",
    "addresses.js",
    "grouping.js",
    "download.js",
    "charts.js",
    "tree.js",
    "treemap.js",
    "tensor.js",
    "changes.js",
    "about.js",
    "main.js",
)
# The beginning of every page; a file that begins differently is not replaced by default.
MARK = b"<!doctype html><!-- statedict view -->"

ALLOWED = "style-src 'unsafe-inline'; img-src data: blob:; base-uri 'none'; form-action 'none'"


def page(files: Sequence[FileContent], diff: Diff | None = None) -> bytes:
    """Return the page for a file, or for two files and the `diff` between them, as UTF-8.

    Raises MissingDependencyError if the charting library is not installed.

    >>> b"model.pt" in page([FileContent("model.pt", "torch", "unknown", 0, {})])
    True
    """
    from html import escape

    values, cells = content(files, diff)
    script = "\n".join(_read(name) for name in SCRIPTS)
    title = " → ".join(printable(file.name) for file in files)
    text = Template(_read("page.html")).substitute(
        title=escape(title),
        policy=_policy(script, charting()),
        style=_read("page.css"),
        script=script,
        content=_packed(json.dumps(values, separators=(",", ":"), allow_nan=False).encode()),
        cells=_packed(cells),
        charting=_packed_charting(),
    )
    return text.encode()


@cache
def charting() -> str:
    """Return the source of the charting library: plotly.js from the package plotly."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingDependencyError("plotly", needed_for="statedict view", extra="view") from error
    return str(get_plotlyjs())


@cache
def _packed_charting() -> str:
    return _packed(charting().encode())


def _policy(*scripts: str) -> str:
    """Return a Content-Security-Policy without connections and other scripts. Charts need inline styles and
    the images that they make."""
    from hashlib import sha256

    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; {ALLOWED}"


def _packed(data: bytes) -> str:
    """Return the data as gzip in base64, deterministically."""
    import gzip

    return b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _read(name: str) -> str:
    from importlib.resources import files

    return (files("statedict.report") / "page" / name).read_text("utf-8")
