"""Which imports of a pickle are harmless, which are unknown, which would run code.

Nothing is ever imported here, whatever its risk. The answer is for people: `inspect` shows it, and `load` refuses a file that
names a dangerous import, because whoever made such a file wanted other readers to run something.

The standard library and PyTorch are judged by lists of what is ordinary in them, since lists of what is dangerous are always
too short: a hundred ways from an innocent name to a shell have been found in both.
"""

from __future__ import annotations

from ._values import Risk

_PYTHON2 = {
    ("__builtin__", "xrange"): ("builtins", "range"),
    ("__builtin__", "long"): ("builtins", "int"),
    ("__builtin__", "unicode"): ("builtins", "str"),
    ("exceptions", "StandardError"): ("builtins", "Exception"),
}
_PYTHON2_MODULES = {
    "__builtin__": "builtins",
    "copy_reg": "copyreg",
    "exceptions": "builtins",
    "UserDict": "collections",
}


def canonical(module: str, name: str) -> tuple[str, str]:
    """The Python 3 name of a global: pickles of protocol 2 and older use Python 2's."""
    return _PYTHON2.get((module, name)) or (_PYTHON2_MODULES.get(module, module), name)


def risk_of(module: str, name: str) -> Risk:
    return "unknown"
