"""Load a state into a module tree, as `Module.load_state_dict` does or by sounder rules. Partner of `_read`.

Theory of operation. Parameters and buffers to be loaded are collected (`Slots`) during the walk of the tree and passed to
the host in batches: before foreign code runs (a hook, an overridden loader, `set_extra_state`), which may look at what was
loaded before, and at the end. Under EXACT rules this has PyTorch's effects in PyTorch's order. Under SOUND rules the host
decides first, and the caller's judge is called before the last batch is written; what foreign code may change is recorded
beforehand, so a refused load changes nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import compress
from typing import Any

from statedict.errors import LoadError, NotAStateError
from statedict.state import check_names, raw_values

from ._host import EXACT, SOUND, Host, Outcome, Rules, Slots
from ._loading import ASSIGN, Loading, metadata_at
from ._read import LOADING, survey

Judge = Callable[[Outcome], object]


def write(
    host: Host,
    module: Any,
    state: Mapping[str, Any],
    *,
    strict: bool = True,
    assign: bool = False,
    rules: Rules = SOUND,
    judge: Judge | None = None,
) -> Outcome:
    """Load the values of `state` into the tree below `module`; return what was done.

    `judge(outcome)` is called when everything is known; it raises to refuse the load. Under sound rules nothing is final
    before it is called, and everything is rolled back if it raises; under exact rules the load is complete by then. Without
    a judge, LoadError with PyTorch's text is raised if PyTorch would raise.
    """
    if not isinstance(state, Mapping):
        raise NotAStateError(f"Expected state_dict to be dict-like, got {type(state)}.")
    raw = raw_values(state)
    values = raw if isinstance(raw, dict) and type(raw) in (dict, OrderedDict) else OrderedDict(raw)
    metadata = getattr(state, "_metadata", None)
    loading = Loading(host, module, metadata, Outcome(strict), rules, assign)
    ask = judge or refuse(type(module).__name__)
    try:
        if not _load_plain(loading, module, values):
            if rules.sound:
                check_names(values)
            loading.load_all(values)
        loading.finish(ask)
    except BaseException:
        loading.roll_back()
        raise
    return loading.outcome


def refuse(module: str) -> Judge:
    """A judge that raises LoadError if PyTorch would raise for a module of class `module`."""

    def judge(outcome: Outcome) -> None:
        text = outcome.refusal(module)
        if text is not None:
            raise LoadError(text, report=outcome)

    return judge


def _load_plain(loading: Loading, root: Any, values: dict[str, Any]) -> bool:
    """Collect all slots, if the tree has neither hooks nor loaders and the state has no unexpected names.

    Returns False, without having changed anything, if that is not so.
    """
    host, metadata = loading.host, loading.metadata
    if metadata and not loading.rules.sound and any(ASSIGN in entry for entry in metadata.values()):
        return False

    def admits(module: Any, prefix: str) -> bool:
        return host.adds_nothing(module, values, prefix, metadata_at(metadata, prefix))

    plain = survey(host.module, root, "", LOADING, admits)
    if plain is None:
        return False
    keys, current, places = plain.keys, plain.values, plain.places() if loading.assign else []
    absent: list[tuple[str, Any, tuple[Any, str]]] = []
    try:
        found = list(values.values() if keys == list(values) else map(values.__getitem__, keys))
    except KeyError:
        columns: tuple[list[Any], ...] = (keys, current, plain.places())
        there = [key in values for key in keys]
        absent = [slot for slot, present in zip(zip(*columns), there) if not present]
        keys, current, places = (list(compress(column, there)) for column in columns)
        found = [values[key] for key in keys]
    if len(found) != len(values):
        return False
    loading.slots = Slots(keys, current, found, bool(loading.assign), places if loading.assign else [])
    loading.absent = absent
    loading.outcome.missing += [key for key, _, _ in absent]
    if loading.assign and metadata and not loading.rules.sound:
        for prefix in plain.prefixes:
            metadata_at(metadata, prefix)[ASSIGN] = loading.assign
    return True


def write_own(
    host: Host,
    module: Any,
    state: dict[str, Any],
    prefix: str,
    metadata: dict[str, Any],
    strict: bool,
    missing: list[str],
    unexpected: list[str],
    errors: list[str],
) -> None:
    """Implement a host's own `_load_from_state_dict`: load one module without its children, at once and by exact rules.

    Loaders that override it call it with `super()`. Appends to the lists; to the first two only if `strict`.
    """
    found = Outcome(True, missing, unexpected, errors) if strict else Outcome(False, errors=errors)
    loading = Loading(host, module, None, found, EXACT, False)
    loading.load_own(module, state, prefix, metadata)
    loading.flush()
