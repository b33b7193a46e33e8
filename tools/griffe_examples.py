"""A Griffe extension for the API pages: the examples of docstrings (`>>> …`) become blocks of code.

Markdown would read `>>>` as nested quotations.
"""

from __future__ import annotations

import inspect
import re
from typing import Any

import griffe

# From a line with a prompt to the next empty line.
EXAMPLE = re.compile(r"^>>> .*(?:\n.+)*", re.MULTILINE)


class FencedExamples(griffe.Extension):
    """Put each example of a docstring into a fenced block."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = fenced(obj.docstring.value)


def fenced(docstring: str) -> str:
    """Return the docstring with each example in a fenced block.

    >>> print(fenced("Add.\\n\\n>>> 1 + 1\\n2\\n").replace("`", "'"))
    Add.
    <BLANKLINE>
    '''pycon
    >>> 1 + 1
    2
    '''
    """
    return EXAMPLE.sub(lambda found: f"```pycon\n{found[0]}\n```", inspect.cleandoc(docstring))
