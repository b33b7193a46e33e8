"""Hooks: functions in a module's ordered dictionaries, keyed by number; a handle removes its hook."""

from __future__ import annotations

import functools
import itertools
import weakref
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Self

Hook = Callable[..., Any]
Hooks = OrderedDict[int, Any]

_numbers = itertools.count()


def add_hook(store: Hooks, hook: Hook, *marks: Hooks, prepend: bool = False) -> RemovableHandle:
    """Add a hook to a store, and its number to each of `marks`; the handle removes it from all of them.

    Numbers increase during the life of the process. A store from a pickle may hold any number, and none is reused.
    """
    number = next(n for n in _numbers if n not in store)
    store[number] = hook
    for mark in marks:
        mark[number] = True
    if prepend:
        store.move_to_end(number, last=False)
    return RemovableHandle(number, store, *marks)


class RemovableHandle:
    """The result of registering a hook. `remove()` removes the hook; so does leaving it as a context manager.

    It does not keep the module alive.
    """

    def __init__(self, number: int, *stores: Hooks) -> None:
        self.id = number
        self._stores = tuple(weakref.ref(store) for store in stores)

    def remove(self) -> None:
        """Remove the hook; does nothing if it was removed before, or the module no longer exists."""
        for reference in self._stores:
            store = reference()
            if store is not None:
                store.pop(self.id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class BoundHook:
    """A hook that gets its module as first argument, without keeping it alive; a copied module's hook gets the copy."""

    def __init__(self, hook: Hook, module: Any) -> None:
        functools.update_wrapper(self, hook)
        self._hook = hook
        self._module = weakref.ref(module)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        module = self._module()
        if module is None:
            raise RuntimeError("You are trying to call the hook of a dead Module!")
        return self._hook(module, *args, **kwargs)

    def __getstate__(self) -> dict[str, Any]:
        return {"hook": self._hook, "module": self._module()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["module"] is None:
            raise RuntimeError("You are trying to revive the hook of a dead Module!")
        functools.update_wrapper(self, state["hook"])
        self._hook = state["hook"]
        self._module = weakref.ref(state["module"])
