"""State to module tree, as PyTorch's `Module.load_state_dict` or by sounder rules. Partner of `_read`.

Theory of operation. Parameters and buffers that are simply to be filled are collected (`Slots`) while the tree is
walked, and handed to the host in one batch: before any code runs that is not the engine's (a hook, a loader of a module's
own, `set_extra_state`), because it may look at what came before, and at the end. Under EXACT rules that gives PyTorch's
effects in PyTorch's order. Under SOUND ones the host decides first and the caller's judge is asked before the last batch
is written; what foreign code may change is remembered beforehand, so that a refused load leaves no trace.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from itertools import compress
from typing import Any

from statedict.errors import LoadError, NotAStateError
from statedict.state import raw_values

from ._host import Host, Slots
from ._loading import ASSIGN, Loading, metadata_at
from ._outcome import Outcome
from ._rules import EXACT, SOUND, Rules
from ._survey import LOADING, survey

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
    """Put the values of `state` into the tree below `module`, and tell what came of it.

    `judge(outcome)` is called when all is known: it raises, or returns and the load stands. Under sound rules nothing is
    final before it is asked, and everything is put back where it raises; under exact ones all is done by then. Without
    one, a load that PyTorch would refuse raises LoadError with PyTorch's text.
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
            _check_names(values, rules)
            loading.load_all(values)
        loading.finish(ask)
    except BaseException:
        loading.put_back()
        raise
    return loading.outcome


def refuse(module: str) -> Judge:
    """The judge that raises LoadError wherever PyTorch would raise for a module of class `module`."""

    def judge(outcome: Outcome) -> None:
        text = outcome.refusal(module)
        if text is not None:
            raise LoadError(text, report=outcome)

    return judge


def _check_names(values: Mapping[str, Any], rules: Rules) -> None:
    if rules.sound:
        for name in values:
            if not isinstance(name, str):
                raise NotAStateError(
                    f"the names in a state dict must be strings, but this one has {name!r} ({type(name).__name__})"
                )


def _load_plain(loading: Loading, root: Any, values: dict[str, Any]) -> bool:
    """Collect the slots of a tree without hooks or loaders, for a state without unexpected names; false where it is none.

    Nothing is changed where it is false.
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
    """What a host's own `_load_from_state_dict` does: load one module, not its children, at once and by exact rules.

    Loaders that override it reach it with `super()`. The lists are added to; `strict` says whether the first two are.
    """
    found = Outcome(True, missing, unexpected, errors) if strict else Outcome(False, errors=errors)
    loading = Loading(host, module, None, found, EXACT, False)
    loading.load_own(module, state, prefix, metadata)
    loading.flush()
