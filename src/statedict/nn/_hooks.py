"""Hooks are functions kept in a module's ordered dictionaries by number; a handle takes its own out again."""

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
    """Put a hook into a store, and its number into each of `marks`; the handle takes it out of all of them.

    Numbers grow through the life of the process, but a store that came out of a pickle may hold any: none is reused.
    """
    number = next(n for n in _numbers if n not in store)
    store[number] = hook
    for mark in marks:
        mark[number] = True
    if prepend:
        store.move_to_end(number, last=False)
    return RemovableHandle(number, store, *marks)


class RemovableHandle:
    """What registering a hook returns: `remove()` takes the hook out; as a context manager, on leaving.

    It does not keep the module alive.
    """

    def __init__(self, number: int, *stores: Hooks) -> None:
        self.id = number
        self._stores = tuple(weakref.ref(store) for store in stores)

    def remove(self) -> None:
        """Take the hook out; nothing where that was done before, or the module is gone."""
        for reference in self._stores:
            store = reference()
            if store is not None:
                store.pop(self.id, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


class BoundHook:
    """A hook that is given its module first, without keeping it alive; a copied module's hook is given the copy."""

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
