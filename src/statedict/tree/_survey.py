"""Collect the names and values of a module tree quickly, if it has neither hooks nor overridden methods.

Most trees are like that, and for them the walk is most of the cost of reading or loading a state. If a module is special,
the survey returns None without having changed anything, and the full walk (`_read`, `_loading`) is used instead.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import repeat
from operator import is_
from typing import Any, NamedTuple

EXTRA_STATE = "_extra_state"
# A deeper tree probably contains itself; it is left to the recursive walk, which raises RecursionError.
_DEEPEST = 2000
# From this number on, the parameters of one module are added in one operation.
_LONG = 64


class Side(NamedTuple):
    """What makes a module special when reading, or when loading.

    Attributes:
        overridden: whether a class overrides a method of the base class.
        public, private: names of instance attributes that would hide such a method.
        before, after: registries of hooks.
        names: names that PyTorch treats as unexpected (with dots, or equal to the extra state's) are special, too.
    """

    overridden: Callable[[Any, Any], bool]
    public: str
    private: str
    before: str
    after: str
    names: bool


class Survey(NamedTuple):
    """A tree without special modules, in PyTorch's order.

    Stored column-wise: several hundred thousand objects would slow down the garbage collector.

    Attributes:
        keys, values: every parameter and persistent buffer.
        prefixes, modules: every module, and its path with a trailing dot.
    """

    keys: list[str]
    values: list[Any]
    prefixes: list[str]
    modules: list[Any]

    def places(self) -> list[tuple[Any, str]]:
        """Where each value is registered: (module, name)."""
        return [(module, name) for module in self.modules for name in persistent(module)]


def persistent(module: Any) -> dict[str, Any]:
    """The module's own parameters and persistent buffers, in PyTorch's order, without those that are None."""
    own = {name: value for name, value in module._parameters.items() if value is not None}
    if buffers := module._buffers:
        passing = module._non_persistent_buffers_set
        own |= {name: value for name, value in buffers.items() if value is not None and name not in passing}
    return own


def overrides(kind: type[Any], base: type[Any], method: str) -> bool:
    """Whether the class overrides a method of `base`."""
    return getattr(kind, method, None) is not getattr(base, method)


def survey(
    base: type[Any], root: Any, prefix: str, side: Side, admits: Callable[[Any, str], bool] | None = None
) -> Survey | None:
    """Survey the tree below `root`; None if a module is special.

    `admits(module, prefix)` is called for modules whose class overrides a method; if it returns true, they are not special.
    """
    overridden, public, private, before, after, names = side
    keys, values, prefixes, modules = found = Survey([], [], [], [])
    special: dict[type[Any], bool] = {}
    seen: set[str] = set()
    # One iterator per level of the walk. Modules without children need only one iteration of the inner loop.
    levels: list[Iterator[tuple[str, Any]]] = [iter([(prefix, root)])]
    try:
        while levels:
            for prefix, module in levels[-1]:
                if module is None:
                    continue
                state, kind = module.__dict__, type(module)
                odd = special.get(kind)
                if odd is None:
                    odd = special[kind] = overridden(kind, base)
                if state[before] or state[after] or private in state or public in state:
                    return None
                if odd and not (admits and admits(module, prefix)):
                    return None
                parameters, buffers, children = state["_parameters"], state["_buffers"], state["_modules"]
                if names:
                    seen.update(parameters, buffers, children)
                prefixes.append(prefix)
                modules.append(module)
                if len(parameters) >= _LONG and not any(map(is_, parameters.values(), repeat(None))):
                    keys += map(prefix.__add__, parameters)
                    values += parameters.values()
                else:
                    for name, value in parameters.items():
                        if value is not None:
                            keys.append(prefix + name)
                            values.append(value)
                if buffers:
                    passing = state["_non_persistent_buffers_set"]
                    saved = {k: v for k, v in buffers.items() if v is not None and k not in passing}
                    keys += map(prefix.__add__, saved)
                    values += saved.values()
                if children:
                    levels.append(zip([f"{prefix}{name}." for name in children], children.values()))
                    break
            else:
                levels.pop()
            if len(levels) > _DEEPEST:
                return None
    except (KeyError, TypeError):
        # `Module.__init__` was not called, or the module was pickled by an old version: the full walk raises or copes. Or
        # its registries are not dicts (TorchScript).
        return None
    return None if "." in "".join(seen) or EXTRA_STATE in seen else found


def _saves(kind: Any, base: Any) -> bool:
    return (
        kind.state_dict is not base.state_dict
        or kind._save_to_state_dict is not base._save_to_state_dict
        or kind.get_extra_state is not base.get_extra_state
    )


def _loads(kind: Any, base: Any) -> bool:
    return (
        kind._load_from_state_dict is not base._load_from_state_dict or kind.set_extra_state is not base.set_extra_state
    )


SAVING = Side(_saves, "state_dict", "_save_to_state_dict", "_state_dict_pre_hooks", "_state_dict_hooks", names=False)
LOADING = Side(
    _loads,
    "_load_from_state_dict",
    "_load_from_state_dict",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
    names=True,
)
