"""Roll back a refused load after foreign code (hooks, overridden methods) has run.

Loaders and hooks may change anything: elements, registered entries, plain attributes, the contents of lists and dicts.
Before one runs, everything that it may change is recorded: its own module if the host knows that it changes only that, else
the whole tree, which needs the memory of another copy of the model during the load.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from copy import deepcopy
from functools import partial
from typing import Any

from statedict.state import collector_paused, library_of

from ._host import Host
from ._read import overrides

Restore = Callable[[], object]


class Rollback:
    """A record of the tree below `root`, and how to restore it."""

    def __init__(self, host: Host, root: Any) -> None:
        self._host = host
        self._root = root
        self._restores: list[Restore] = []
        # By id. The references prevent an id from being reused.
        self._kept: dict[int, Any] = {}
        self.everything = False

    def keep_module(self, module: Any) -> None:
        """Record one module: its attributes, their contents, and all arrays among them."""
        self._keep([module])

    def keep_everything(self) -> None:
        """Record every module of the tree."""
        if not self.everything:
            with collector_paused():
                self._keep(list(_modules(self._root)))
            self.everything = True

    def keep_array(self, array: Any) -> None:
        """Record an array that does not belong to the tree."""
        if id(array) not in self._kept:
            self._kept[id(array)] = array
            self._restores.append(self._host.keep([array]))

    def keep_extra_state(self, module: Any) -> None:
        """Record the extra state that `set_extra_state` is about to replace, if the module can return it."""
        if overrides(type(module), self._host.module, "get_extra_state"):
            try:
                before = deepcopy(module.get_extra_state())
            except Exception:  # noqa: BLE001  # the module's own code; without a result nothing is recorded
                return

            def restore() -> None:
                # Attributes are restored afterwards, even if this raises.
                with suppress(Exception):
                    module.set_extra_state(before)

            self._restores.append(restore)

    def roll_back(self) -> None:
        """Restore everything that was recorded, the latest first."""
        while self._restores:
            self._restores.pop()()

    def _keep(self, modules: list[Any]) -> None:
        arrays: list[Any] = []
        contents: list[tuple[Any, Any]] = []
        for module in modules:
            if id(module) not in self._kept:
                self._kept[id(module)] = module
                self._restores.append(partial(_set_class, module, type(module)))
                self._record(vars(module), contents, arrays)
        self._restores.append(self._host.keep(arrays))
        self._restores.append(lambda: _refill(contents))

    def _record(self, container: Any, contents: list[tuple[Any, Any]], arrays: list[Any]) -> None:
        """Record the contents of a container and of containers in it; collect the arrays."""
        self._kept[id(container)] = container
        # A module has a dozen registries, most of them empty.
        contents.append((container, container.copy() if container else None))
        for value in container.values() if isinstance(container, dict) else container:
            if type(value) in _CONTAINERS:
                if id(value) not in self._kept:
                    self._record(value, contents, arrays)
            elif library_of(value) is not None and id(value) not in self._kept:
                self._kept[id(value)] = value
                arrays.append(value)


def _modules(root: Any) -> Iterator[Any]:
    stack, seen = [root], set()
    while stack:
        module = stack.pop()
        if id(module) not in seen:
            seen.add(id(module))
            yield module
            stack += [child for child in module._modules.values() if child is not None]


def _set_class(module: Any, kind: type) -> None:
    if type(module) is not kind:
        module.__class__ = kind


def _refill(contents: list[tuple[Any, Any]]) -> None:
    for container, saved in contents:
        container.clear()
        if saved is not None:
            (container.extend if isinstance(container, (list, deque)) else container.update)(saved)


_CONTAINERS = frozenset({dict, OrderedDict, defaultdict, Counter, set, list, deque})
