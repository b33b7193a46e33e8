"""Host: the operations that differ between module systems.

All supported module systems use PyTorch's private attributes, so the engine walks all of them alike. Every module has:

    _parameters, _buffers, _modules               name to value (or None), in registration order
    _non_persistent_buffers_set                   names of buffers that are not saved
    _version                                      the class version that `_metadata` records
    _state_dict_pre_hooks, _state_dict_hooks      id to hook, as are the next two
    _load_state_dict_pre_hooks, _load_state_dict_post_hooks
    state_dict, _save_to_state_dict, _load_from_state_dict, get_extra_state, set_extra_state
                                                  methods that a subclass may override

The engine does the work of these methods itself unless a subclass overrides them; then it calls them. The host implements
its own `_save_to_state_dict` and `_load_from_state_dict`, which overriding methods call with `super()`, with the engine's
`read_own` and `write_own`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, Protocol

from statedict.state import ArrayLibrary, Cast, CastKind, Storage

LOSSY: frozenset[CastKind] = frozenset({"truncation", "imaginary", "overflow"})


@dataclass(frozen=True, slots=True)
class Rules:
    """The rules for loading a state into a module tree.

    Attributes:
        sound: all or nothing. Everything is decided before anything is written; if the load is refused, changes by modules'
            own code and hooks are undone; the caller's state is never modified. Names under a child that is None are
            unexpected; a tensor that stays on the meta device is missing; a name whose tensor is loaded under another name
            (tied) is not missing; two values for one tensor are an error; ties survive `assign`.
            False: the effects of PyTorch's `load_state_dict`, in its order.
        refused: the kinds of cast that are errors (only if `sound`).
        verify: check the checksums of values from files before writing anything (only if `sound`).
        together: the joint load of several processes (only if `sound`). The last `act` of the load calls its `agree`
            exactly once, between what can fail and what cannot be undone, and undoes everything if it raises.
        may_complete: if the load is interrupted (KeyboardInterrupt), it may be completed before the exception is passed on,
            instead of being undone: nothing else was changed that would be undone then.
    """

    sound: bool
    refused: frozenset[CastKind] = LOSSY
    verify: bool = True
    together: JointLoad | None = None
    may_complete: bool = False

    def allowing(self, *kinds: CastKind) -> Rules:
        """The same rules, but allow these kinds of cast; they are still reported.

        >>> "overflow" in SOUND.allowing("overflow").refused
        False
        """
        return self if not kinds else replace(self, refused=self.refused - set(kinds))

    def alone(self) -> Rules:
        """Return the same rules for values that are written before the last ones, without asking other processes."""
        return self if self.together is None else replace(self, together=None)


EXACT = Rules(sound=False, refused=frozenset(), verify=False)
SOUND = Rules(sound=True)


@dataclass
class Outcome:
    """The result of a load, or of a load that `judge` has refused.

    Attributes:
        strict: the caller's argument.
        missing, unexpected: names, in PyTorch's order. Hooks may have edited them.
        errors: other errors, with PyTorch's text if it has one; these are errors also if not strict.
        loaded: names whose values were loaded.
        casts: loaded tensors whose dtype was converted.
        tied: names that the state lacks → the name whose value they share.
    """

    strict: bool
    missing: list[str] = field(default_factory=list)
    unexpected: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    loaded: list[str] = field(default_factory=list)
    casts: list[Cast] = field(default_factory=list)
    tied: dict[str, str] = field(default_factory=dict)

    def refusal(self, module: str) -> str | None:
        """PyTorch's error text for a failed load into a module of class `module`; None if the load succeeded."""
        problems = list(self.errors)
        if self.strict and self.unexpected:
            problems.insert(0, f"Unexpected key(s) in state_dict: {_quoted(self.unexpected)}. ")
        if self.strict and self.missing:
            problems.insert(0, f"Missing key(s) in state_dict: {_quoted(self.missing)}. ")
        if not problems:
            return None
        return f"Error(s) in loading state_dict for {module}:\n\t" + "\n\t".join(problems)


def _quoted(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' for name in names)


# What foreign code may change: nothing that a rollback would restore, only the module that it belongs to, or anything.
Reach = Literal["nothing", "module", "tree"]


@dataclass(slots=True)
class Slots:
    """Parameters and buffers to be loaded, stored column-wise: one object for each would cost as much as the walk.

    Attributes:
        keys: full names.
        current: the parameter or buffer registered now.
        values: its value in the state: an array, an unread Leaf or Compound, or any other object.
        assign: register the values themselves instead of copying their elements.
        places: where each is registered, as (module, name); empty unless `assign`.
        ties: data of the host that is passed from batch to batch of one load.
    """

    keys: list[str] = field(default_factory=list)
    current: list[Any] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)
    assign: bool = False
    places: list[tuple[Any, str]] = field(default_factory=list)
    ties: dict[Any, Any] = field(default_factory=dict)

    def add(self, key: str, current: Any, value: Any, place: tuple[Any, str]) -> None:
        self.keys.append(key)
        self.current.append(current)
        self.values.append(value)
        if self.assign:
            self.places.append(place)


@dataclass
class Fit:
    """A host's decision about a batch of Slots.

    Attributes:
        errors: messages about values that cannot be loaded, in the order of the slots.
        casts: the dtype conversions that `act` makes.
        empty: names that would stay without elements, because the parameter has no memory (a meta tensor).
        failed: indices of the slots that `act` skips.
        act: loads the values. Under sound rules it loads all of them, or raises and has changed nothing. Under exact rules
            it returns error messages, in the order of the slots.
    """

    act: Callable[[], Sequence[str]]
    errors: list[str] = field(default_factory=list)
    casts: list[Cast] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)

    def refuse(self, problems: Mapping[int, str]) -> None:
        """Add the error message of each slot that cannot be filled, by index; `act` skips these slots."""
        self.errors += [problems[index] for index in sorted(problems)]
        self.failed |= problems.keys()


class JointLoad(Protocol):
    """A load that several processes make together, as a context manager: either all of them succeed or none.

    Whatever raises inside the block on one process makes all of them raise, so no process waits for another.

    Attributes:
        ranks: the numbers of the processes, ascending.
    """

    ranks: list[int]

    def share(self, reads: Iterable[tuple[Storage, Sequence[Iterable[tuple[int, int]]]]]) -> None:
        """Verify checksums together: storages with the ranges (start, stop) that each of `ranks` reads.

        Called at most once, before reading, with the same storages in the same order by all processes.
        """

    def agree(self, payload: Any = None) -> Sequence[Any]:
        """Wait until all processes have read their values; return their payloads, or raise if one has failed.

        Called once, between what can fail and what cannot be undone.
        """

    def __enter__(self) -> JointLoad: ...

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None: ...


class Host(Protocol):
    """A module system, as the engine uses it. This is the whole interface.

    Attributes:
        module: the base class of all modules.
        library: makes arrays from leaves, for loaders and hooks that use the values.
        incompatible: makes the argument of post-hooks from the lists of missing and unexpected names.
        detach: returns an alias of a parameter or buffer that no gradient flows through. None if arrays have a method of
            that name; calling it directly is faster.
    """

    module: type[Any]
    library: ArrayLibrary
    incompatible: Callable[[list[str], list[str]], Any]
    detach: Callable[[Any], Any] | None

    def fit(self, slots: Slots, rules: Rules) -> Fit:
        """Decide what to do with each slot. Under sound rules this changes nothing."""

    def keep(self, arrays: Iterable[Any]) -> Callable[[], None]:
        """Back up arrays (elements, geometry, class); the returned function restores them bit for bit."""

    def reach(self, code: Any) -> Reach:
        """What a loader or hook may change, as far as it is known."""

    def adds_nothing(self, module: Any, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> bool:
        """Whether, for this state, the module's own `_load_from_state_dict` does the same as the inherited one."""

    def together(self, module: Any) -> JointLoad | None:
        """The joint load of a module of which other processes hold parts; None for all other modules."""


def detached(host: Host, value: Any) -> Any:
    """The value that a state contains for a parameter or buffer."""
    return value.detach() if host.detach is None else host.detach(value)
