"""The notebook view of a Checkpoint: format, folded state dicts and notes, from headers only."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from statedict.state import Section, Short, as_html, listed, state_shown

if TYPE_CHECKING:
    from ._checkpoint import Checkpoint

# The first ROOTS state dicts are shown with this many lines each; the others with their size only.
ROOTS = 3
LINES = 25
FEW = 8


def checkpoint_html(checkpoint: Checkpoint) -> str:
    """Return the checkpoint as an HTML fragment."""
    first = f"{os.path.basename(checkpoint.path)}: {checkpoint.format}, {checkpoint.size:,} bytes"
    first += "" if checkpoint.producer == "unknown" else f", written by {checkpoint.producer}"
    sections = [listed("would run code if unpickled (nothing was run)", checkpoint.dangerous, FEW)]
    roots = list(checkpoint.roots.items())
    for path, state in roots[:ROOTS]:
        counts, shown = state_shown(state, f"root {path!r}: tensors" if path else "tensors", LINES)
        sections += [listed(f"root {path!r}" if path else "the file", [counts], 1), *shown]
    others = (f"{path!r}: {len(state):,} entries" for path, state in roots[ROOTS:])
    return as_html(first, [*sections, listed("further roots", others, FEW), *_rest(checkpoint)])


def _rest(checkpoint: Checkpoint) -> list[Section]:
    """Return the sections after the state dicts: other content, shortened; unknown classes; notes."""
    content = checkpoint.object if isinstance(checkpoint.object, Mapping) and "" not in checkpoint.roots else {}
    roots = {path.partition("/")[0] for path in checkpoint.roots}
    others = (f"{key}: {SHORT.repr(value)}" for key, value in content.items() if str(key) not in roots)
    unknown = (named.path for named in checkpoint.globals if named.risk == "unknown")
    return [
        listed("other content", others, LINES),
        listed("unknown classes and functions (not imported)", unknown, FEW),
        listed("cannot be read", [f"{root}: {error}" for root, error in checkpoint.unopened.items()], FEW),
        listed("notes", checkpoint.notes, FEW),
    ]


SHORT = Short()
SHORT.maxlevel = 2
