"""A pickle that runs code if it is unpickled: it then leaves a trace in RAN."""

from __future__ import annotations

import pickle

# Not empty once the pickle was executed.
RAN: list[str] = []
TRACE = f"__import__({__name__!r}, fromlist=['RAN']).RAN.append('ran')"


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return eval, (TRACE,)


def evil_pickle() -> bytes:
    """Return a pickle (protocol 2, as in torch's files) that calls `eval`."""
    return pickle.dumps({"weight": _Evil()}, 2)
