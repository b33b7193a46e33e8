"""The page: one HTML file with everything in it, that opens from a disk and asks nothing of a network.

Theory of operation. The page's own style and scripts stand in it as they are in `page/`, one after the other. The charting
library and the content are gzip in base64, which the browser unpacks: so the page weighs 2 MB instead of 5, and nothing out
of a file (tensor names are written by whoever made it) is ever part of the markup. The policy in the page's head forbids the
browser every connection, and every script but those whose hash it names: ours, and the library's.
"""

from __future__ import annotations

import gzip
import json
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from html import escape
from importlib.resources import files as resources
from string import Template
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError, printable
from ._content import File, content

if TYPE_CHECKING:
    from statedict.plan import Diff

# In this order they are one module; each begins with what it is for.
SCRIPTS = (
    "unpack.js",
    "elements.js",
    "words.js",
    "nodes.js",
    "charts.js",
    "tree.js",
    "treemap.js",
    "tensor.js",
    "changes.js",
    "about.js",
    "main.js",
)
# The page begins so: what begins otherwise is not ours to replace.
MARK = b"<!doctype html><!-- statedict view -->"

ALLOWED = "style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def page(files: Sequence[File], diff: Diff | None = None) -> bytes:
    """The page for a file, or for two and the `diff` between them, as UTF-8.

    Raises MissingDependencyError where the charting library is not installed.

    >>> b"model.pt" in page([File("model.pt", "torch", "unknown", 0, {})])
    True
    """
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
    """The charting library's source: plotly.js, as the package plotly brings it."""
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise MissingDependencyError("plotly", needed_for="statedict view", extra="view") from error
    return str(get_plotlyjs())


@cache
def _packed_charting() -> str:
    return _packed(charting().encode())


def _policy(*scripts: str) -> str:
    """A Content-Security-Policy: no connection, no other script. Charts set styles of their own, and are drawn as images."""
    hashes = " ".join(f"'sha256-{b64encode(sha256(script.encode()).digest()).decode()}'" for script in scripts)
    return f"default-src 'none'; script-src {hashes}; {ALLOWED}"


def _packed(data: bytes) -> str:
    """gzip in base64, the same for the same bytes."""
    return b64encode(gzip.compress(data, 6, mtime=0)).decode()


def _read(name: str) -> str:
    return (resources("statedict.report") / "page" / name).read_text("utf-8")
