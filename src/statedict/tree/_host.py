"""Host: what the engine does not know of a module system.

All module systems that the engine walks keep PyTorch's private names, so the walk is the same for each. On every module:

    _parameters, _buffers, _modules               name to value (or None), in registration order
    _non_persistent_buffers_set                   names of buffers that are not saved
    _version                                      what `_metadata` says of the module's class
    _state_dict_pre_hooks, _state_dict_hooks      id to hook, as are the next two
    _load_state_dict_pre_hooks, _load_state_dict_post_hooks
    state_dict, _save_to_state_dict, _load_from_state_dict, get_extra_state, set_extra_state
                                                  methods that a subclass may override

The engine does the work of those methods itself where they are the host's own, and calls them where they are not. The
host's `_save_to_state_dict` and `_load_from_state_dict`, which overriding ones call with `super()`, are the engine's
`read_own` and `write_own`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from statedict.state import ArrayLibrary

from ._outcome import Cast
from ._rules import Rules


@dataclass(slots=True)
class Slots:
    """Places of a model and the values that are to go there, in columns: 32,000 objects would cost as much as the walk.

    Attributes:
        keys: full names.
        current: what is registered there now.
        values: what the state has for each: an array, a Leaf or Compound that has not been read, or anything else.
        assign: the values themselves are to take the places, rather than their elements.
        places: where each is registered, as (module, name); empty unless `assign`.
        ties: notes of the host, passed on from batch to batch of one load.
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
    """What a host decided about some slots.

    Attributes:
        errors: what cannot be done, in words, in the order of the slots.
        casts: the dtype changes that `act` makes.
        empty: names that would stay without elements, because the place has no memory (a meta tensor).
        failed: indices of the slots that `act` leaves alone.
        act: does the rest. Where the rules are sound it either does all of it or raises and has done nothing; otherwise it
            returns what went wrong, in words, in the order of the slots.
    """

    act: Callable[[], Sequence[str]]
    errors: list[str] = field(default_factory=list)
    casts: list[Cast] = field(default_factory=list)
    empty: list[str] = field(default_factory=list)
    failed: set[int] = field(default_factory=set)


class Host(Protocol):
    """A module system, as far as the engine must know it. This is its whole surface.

    Attributes:
        module: the class that all modules derive from.
        library: what makes arrays of leaves, for loaders and hooks that look at values.
        incompatible: makes what post-hooks are given, of the lists of missing and unexpected names.
        detach: gives what a state holds for a parameter or buffer: an alias that no gradient flows through. None where each
            has a method of that name, which is called directly: a fifth of the time of a small module's state.
    """

    module: type[Any]
    library: ArrayLibrary
    incompatible: Callable[[list[str], list[str]], Any]
    detach: Callable[[Any], Any] | None

    def fit(self, slots: Slots, rules: Rules) -> Fit:
        """Decide what becomes of each slot; where the rules are sound, change nothing yet."""

    def keep(self, arrays: Iterable[Any]) -> Callable[[], None]:
        """Remember the elements and the nature of arrays; calling what is returned puts them back, bit for bit."""

    def confined(self, code: Any) -> bool:
        """Whether a loader or hook is known to change nothing but the module that it belongs to."""

    def adds_nothing(self, module: Any, state: Mapping[str, Any], prefix: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the module's own `_load_from_state_dict` would do, for this state, just what the inherited one does."""


def detached(host: Host, value: Any) -> Any:
    """What a state holds for a parameter or buffer."""
    return value.detach() if host.detach is None else host.detach(value)
