"""One load: the full walk of the module tree, with hooks and loaders, and its conclusion."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property
from typing import Any

from statedict.state import Compound, Leaf, leaf_of, materialize

from ._host import Host, Outcome, Rules, Slots, detached
from ._local import Below, Local, Watched, raw_value
from ._read import EXTRA_STATE, overrides, persistent
from ._rollback import Rollback

# PyTorch passes `assign` to loaders in this entry of their metadata.
ASSIGN = "assign_to_params_buffers"


class Loading:
    """The state of a load. The lists in `outcome` are the ones passed to loaders and hooks."""

    def __init__(self, host: Host, root: Any, metadata: Any, outcome: Outcome, rules: Rules, assign: bool) -> None:
        self.host = host
        self.root = root
        self.metadata = metadata
        self.outcome = outcome
        self.rules = rules
        self.assign = assign
        self.slots = Slots(assign=bool(assign))
        self.absent: list[tuple[str, Any, tuple[Any, str]]] = []
        self._written: list[Slots] = []
        self._watching = rules.sound
        self._dotted = False

    @cached_property
    def _rollback(self) -> Rollback:
        return Rollback(self.host, self.root)

    # the walk

    def load_all(self, values: Mapping[str, Any]) -> None:
        """Load the tree, calling all hooks and loaders."""
        local = OrderedDict(values)
        self._watching = self.rules.sound or any(isinstance(value, (Leaf, Compound)) for value in local.values())
        if self.metadata is not None:
            if self.rules.sound:
                self.metadata = _without_assign(self.metadata)
            local._metadata = self.metadata  # type: ignore[attr-defined]
        try:
            self._load(self.root, local, "")
        finally:
            if not self.rules.sound:
                self.flush()

    def _load(self, module: Any, local: Local, prefix: str) -> None:
        metadata = metadata_at(self.metadata, prefix)
        if self.assign:
            metadata[ASSIGN] = self.assign
        if self._loads_itself(module, local, prefix, metadata):
            local = self._run_loader(module, local, prefix, metadata)
        else:
            local = self.load_own(module, local, prefix, metadata)
        if module._modules:
            below = Below(local, prefix)
            for name, child in module._modules.items():
                if child is not None:
                    self._dotted |= "." in name
                    self._load(child, below.of(prefix, name), f"{prefix}{name}.")
        for hook in module._load_state_dict_post_hooks.values():
            self._before(module, hook)
            given = hook(module, self.host.incompatible(self.outcome.missing, self.outcome.unexpected))
            if given is not None:
                raise AssertionError(
                    "Hooks registered with ``register_load_state_dict_post_hook`` are not "
                    "expected to return new values, if incompatible_keys need to be modified, "
                    "it should be done inplace."
                )

    def load_own(self, module: Any, local: Local, prefix: str, metadata: dict[str, Any]) -> Local:
        """Do what the base class's `_load_from_state_dict` does; return the state as the pre-hooks left it."""
        outcome = self.outcome
        for hook in module._load_state_dict_pre_hooks.values():
            self._before(module, hook)
            local = self._watched(local)
            hook(local, prefix, metadata, True, outcome.missing, outcome.unexpected, outcome.errors)
        # Exact loads take `assign` from the metadata, which loaders can change.
        assign = bool(self.assign if self.rules.sound else metadata.get(ASSIGN, False))
        if assign != self.slots.assign:
            self.flush()
            self.slots.assign = assign
        own = persistent(module)
        self._collect(module, own, local, prefix)
        extra = prefix + EXTRA_STATE
        if overrides(type(module), self.host.module, "set_extra_state"):
            if extra in local:
                self._before(module, type(module).set_extra_state)
                if self.rules.sound:
                    self._rollback.keep_extra_state(module)
                outcome.loaded.append(extra)
                module.set_extra_state(self._look(raw_value(local, extra)))
            else:
                outcome.missing.append(extra)
        elif extra in local:
            outcome.unexpected.append(extra)
        outcome.unexpected += self._unexpected(module, own, local, prefix)
        return local

    def _collect(self, module: Any, own: dict[str, Any], local: Local, prefix: str) -> None:
        for name, current in own.items():
            key = prefix + name
            if key in local:
                self.slots.add(key, current, raw_value(local, key), (module, name))
            else:
                self.outcome.missing.append(key)
                self.absent.append((key, current, (module, name)))

    def _unexpected(self, module: Any, own: dict[str, Any], local: Local, prefix: str) -> list[str]:
        """Return the names below the module that are neither its own nor below one of its children."""
        # PyTorch expects names below a child that is None.
        children = {name for name, child in module._modules.items() if not (self.rules.sound and child is None)}
        mine, size, found = {*own, EXTRA_STATE}, len(prefix), []
        for key in local:
            if key.startswith(prefix):
                end = key.find(".", size)
                if key[size:] not in mine if end < 0 else key[size:end] not in children:
                    found.append(key)
        return found

    # foreign code

    def _loads_itself(self, module: Any, local: Local, prefix: str, metadata: dict[str, Any]) -> bool:
        if "_load_from_state_dict" in vars(module):
            return True
        if not overrides(type(module), self.host.module, "_load_from_state_dict"):
            return False
        return not self.host.adds_nothing(module, local, prefix, metadata)

    def _run_loader(self, module: Any, local: Local, prefix: str, metadata: dict[str, Any]) -> Local:
        outcome = self.outcome
        self._before(module, module._load_from_state_dict)
        local = self._watched(local)
        own = [key for key in local if key.startswith(prefix) and "." not in key[len(prefix) :]]
        before = len(outcome.unexpected)
        module._load_from_state_dict(local, prefix, metadata, True, outcome.missing, outcome.unexpected, outcome.errors)
        refused = set(outcome.unexpected[before:])
        outcome.loaded += [key for key in own if key not in refused]
        return local

    def _before(self, module: Any, code: Any) -> None:
        """Prepare to run foreign `code` of `module`: flush pending writes, and record what is needed to undo it."""
        if not self.rules.sound:
            self.flush()
            return
        reach = self.host.reach(code)
        if reach == "module":
            self._rollback.keep_module(module)
        elif reach == "tree":
            self._rollback.keep_everything()
            self.flush()

    def _watched(self, local: Local) -> Local:
        if not self._watching or isinstance(local, Watched):
            return local
        watched = Watched(local, self._look)
        if hasattr(local, "_metadata"):
            watched._metadata = local._metadata  # type: ignore[attr-defined]
        return watched

    def _look(self, value: Any) -> Any:
        """A value as foreign code receives it: read if it was not yet, and recorded if it can be changed."""
        if isinstance(value, (Leaf, Compound)):
            return materialize([value], self.host.library, verify=self.rules.verify)[0]
        if not self.rules.sound or leaf_of(value) is None:
            return value
        if self._rollback.everything:
            self._rollback.keep_array(value)
        # Code may set `requires_grad` on a Parameter that it assigns; an alias protects the caller's tensor.
        return detached(self.host, value) if self.assign else value

    # the end

    def flush(self) -> None:
        """Write the slots collected so far."""
        slots = self.slots
        if slots.keys:
            self.slots = Slots(assign=slots.assign, ties=slots.ties)
            self._written.append(slots)
            self._fit(slots, self.rules.alone())()

    def finish(self, judge: Callable[[Outcome], object]) -> None:
        """Decide about the last slots, call `judge`, and write them."""
        if not self.rules.sound:
            self.flush()
            judge(self.outcome)
            return
        self._resolve_ties()
        if self._dotted:
            # PyTorch reports names below a child with dots in its own name as unexpected, although it loads them.
            arrived = {key for slots in (*self._written, self.slots) for key in slots.keys}
            self.outcome.unexpected[:] = [key for key in self.outcome.unexpected if key not in arrived]
        recorded = self.__dict__.get("_rollback")
        single = not self._written if recorded is None else recorded.everything
        act = self._fit(self.slots, replace(self.rules, may_complete=single))
        judge(self.outcome)
        act()

    def roll_back(self) -> None:
        """Undo the changes of foreign code and of earlier batches."""
        self._rollback.roll_back()

    def _fit(self, slots: Slots, rules: Rules) -> Callable[[], None]:
        outcome = self.outcome
        fit = self.host.fit(slots, rules)
        outcome.errors += fit.errors
        outcome.casts += fit.casts
        outcome.missing += fit.empty

        def act() -> None:
            outcome.errors += fit.act()
            if not self.rules.sound:
                outcome.loaded += fitting()

        def fitting() -> list[str]:
            failed = fit.failed
            return [key for index, key in enumerate(slots.keys) if index not in failed] if failed else slots.keys

        if self.rules.sound:
            outcome.loaded += fitting()
        return act

    def _resolve_ties(self) -> None:
        """A name that the state lacks is not missing if its tensor is loaded under another name."""
        if not self.absent:
            return
        arrived = {
            id(current): (key, value)
            for slots in (*self._written, self.slots)
            for key, current, value in zip(slots.keys, slots.current, slots.values)
        }
        missing = set(self.outcome.missing)
        for key, current, place in self.absent:
            if id(current) in arrived and key in missing:
                self.outcome.tied[key], value = arrived[id(current)]
                self.slots.add(key, current, value, place)
        if self.outcome.tied:
            self.outcome.missing[:] = [key for key in self.outcome.missing if key not in self.outcome.tied]


def metadata_at(metadata: Any, prefix: str) -> dict[str, Any]:
    """The metadata of the module at `prefix`; a new empty dict if it has no entry."""
    return {} if metadata is None else metadata.get(prefix[:-1], {})


def _without_assign(metadata: Mapping[str, Any]) -> OrderedDict[str, Any]:
    """A copy of the metadata for foreign code, without the ASSIGN entries that another load may have left."""
    return OrderedDict(
        (path, {key: value for key, value in entry.items() if key != ASSIGN} if isinstance(entry, dict) else entry)
        for path, entry in metadata.items()
    )
