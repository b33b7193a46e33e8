"""A Checkpoint as a notebook shows it: what the file is, its state dicts folded, what one should know; from headers."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from statedict.state import Section, Short, as_html, listed, state_shown

if TYPE_CHECKING:
    from ._checkpoint import Checkpoint

# The first state dicts are shown with so many lines each, of the others only how large they are.
ROOTS = 3
LINES = 25
FEW = 8


def checkpoint_html(checkpoint: Checkpoint) -> str:
    """The checkpoint as an HTML fragment."""
    first = f"{os.path.basename(checkpoint.path)}: {checkpoint.format}, {checkpoint.size:,} bytes"
    first += "" if checkpoint.producer == "unknown" else f", written by {checkpoint.producer}"
    sections = [listed("would run code under pickle (nothing of it was run)", checkpoint.dangerous, FEW)]
    roots = list(checkpoint.roots.items())
    for path, state in roots[:ROOTS]:
        counts, shown = state_shown(state, f"root {path!r}: tensors" if path else "tensors", LINES)
        sections += [listed(f"root {path!r}" if path else "the file", [counts], 1), *shown]
    others = (f"{path!r}: {len(state):,} entries" for path, state in roots[ROOTS:])
    return as_html(first, [*sections, listed("further roots", others, FEW), *_rest(checkpoint)])


def _rest(checkpoint: Checkpoint) -> list[Section]:
    """What lies beside the state dicts, shortened; classes that are not known here; notes."""
    held = checkpoint.object if isinstance(checkpoint.object, Mapping) and "" not in checkpoint.roots else {}
    roots = {path.partition("/")[0] for path in checkpoint.roots}
    others = (f"{key}: {SHORT.repr(value)}" for key, value in held.items() if str(key) not in roots)
    unknown = (named.path for named in checkpoint.globals if named.risk == "unknown")
    return [
        listed("other content", others, LINES),
        listed("classes and functions not known here (none was imported)", unknown, FEW),
        listed("notes", checkpoint.notes, FEW),
    ]


SHORT = Short()
SHORT.maxlevel = 2
