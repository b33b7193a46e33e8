"""Check that what is about to be saved can be loaded again, by reading it.

Names, tensors and small values can always be read. Each other value is read once more before anything is written. So the
writer cannot accept what the reader's limits refuse, or what would be loaded as inert data; and inert values that name
code are never written.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, cast

from statedict.state import PLAIN, Compound, Leaf, Opaque, Storage, raw_values, tensors_of

from ...errors import FormatError, SaveError
from .._pickle import Import, Parsed, Placement, StorageId, TypedStorage, emit, parse
from .._pickle._names import canonical
from .._pickle._recipe import WRAPPER, classes_of
from .._pickle.reading._tensors import NOWHERE
from ..checkpoint._allowed import is_made
from ..storages._named import ON_META

# The number of path steps shown in a message.
STEPS = 12


def unloadable(obj: Any, substitute: Callable[[Any], Any] = lambda value: value) -> str | None:
    """Return why `obj`, saved in a torch file, could not be loaded again; None if it could.

    The text says where in the tree (steps joined by `/`), and what to do. `substitute`: see `write`.

    >>> unloadable({"step": 3}) is None
    True
    >>> print(unloadable({"loss": {"function": len}}))
    loss/function: a class or function (builtins.len) would be loaded as inert data: save its name as text
    """
    try:
        _try(obj, partial(check_loadable, obj, substitute=substitute), substitute)
    except SaveError as error:
        return str(error)
    return None


def _try(obj: Any, check: Callable[[bytes, Any], None], substitute: Callable[[Any], Any] = lambda value: value) -> None:
    """Create the pickle that would be written and discard it; raise what `check` raises."""
    numbers: dict[Hashable, int] = {}

    def store(leaf: Leaf) -> Placement:
        number = numbers.setdefault((leaf.storage.key, leaf.spec.dtype), len(numbers))
        return Placement(str(number), leaf.storage.location, leaf.storage.nbytes, leaf.spec)

    emit(obj, store, substitute=substitute, check=check)


def check_loadable(
    obj: Any,
    pickled: bytes,
    doubtful: Sequence[Any] | None = None,
    substitute: Callable[[Any], Any] = lambda value: value,
) -> None:
    """Raise SaveError if the pickle of `obj` exceeds the default limits when it is read, or contains inert values.

    `doubtful`: all values in it that a reader might refuse; None: not known.
    """
    if doubtful is not None and _can_be_read(doubtful, substitute):
        return
    try:
        parsed = _parsed(pickled)
    except FormatError as error:
        where = _where(_path_to_refused(obj))
        raise SaveError(
            f"{where}this value could not be loaded again: {error.reason}; save it in smaller parts"
        ) from error
    refused = _refused(parsed)
    for path, value in _inert(parsed.value):
        raise SaveError(_where(path) + _advice(value, _dangerous(parsed.globals)))
    if refused:
        # The result of that call is discarded.
        raise SaveError(
            f"the value is rebuilt by {refused[0].path}, which loading does not call; save what it contains as plain values"
        )


def _can_be_read(values: Sequence[Any], substitute: Callable[[Any], Any]) -> bool:
    """Return whether values can be read, in a pickle of their own that may not cost more than the smallest file may."""

    def check(pickled: bytes, _: Any) -> None:
        parsed = parse(pickled, storage=_claimed, paid=0)
        if _refused(parsed) or any(_inert(parsed.value)):
            raise FormatError("not all values are loaded as they were saved")

    try:
        _try(list(values), check, substitute)
    except (FormatError, SaveError):
        return False
    return True


def _refused(parsed: Parsed) -> list[Import]:
    """Return the imports that loading does not call."""
    refused = [named for named in parsed.globals if named.risk != "safe" and not is_made(_named(named))]
    if not refused:
        return []
    # A tensor that wraps others is data if its class is not allowed.
    compounds = [value for value in tensors_of(parsed.value) if isinstance(value, Compound)]
    described = {path for value in compounds if value.layout == WRAPPER for path in classes_of(value)}
    return [named for named in refused if named.risk == "dangerous" or named.path not in described]


def _where(path: str) -> str:
    return f"{path}: " if path else ""


def _named(named: Import) -> Opaque:
    return Opaque(named.module, named.name)


def _dangerous(globals: Iterable[Import]) -> list[str]:
    return [named.path for named in globals if named.risk == "dangerous" and not is_made(_named(named))]


def _advice(value: Any, dangerous: Sequence[str]) -> str:
    if isinstance(value, Compound) and value.layout == "meta":
        return ON_META
    if not isinstance(value, Opaque):
        path = value.traits.subclass
        loss = f"a tensor of the class {path} would be loaded as a plain tensor"
        return f"{loss}: convert it first with as_subclass(torch.Tensor), {_allow(path)}"
    path = ".".join(canonical(value.module, value.name))
    if value.path in dangerous:
        return (
            f"{path} would run code when the file is loaded, so it is not saved: save what it contains as plain values"
        )
    of = next((part for part in (value.args or ())[1:2] if isinstance(part, Opaque)), None)
    if path.endswith("._rebuild_from_type_v2") and of is not None:
        if of.name == "DTensor":
            return "the local tensor of this DTensor cannot be saved as a part of a whole: save value.full_tensor()"
        return (
            f"a tensor of the class {of.path} would not be loaded again: "
            f"save its parts as plain tensors, {_allow(of.path)}"
        )
    if value.args is None:
        return f"a class or function ({path}) would be loaded as inert data: save its name as text"
    if path.endswith(".multiarray._reconstruct"):
        return "an array of Python objects would be loaded as inert data: save its elements as a list"
    return (
        f"a value made by {path} would be loaded as inert data: save what it contains as plain values, {_allow(path)}"
    )


def _allow(path: str) -> str:
    name = path.rpartition(".")[2]
    return f"or allow the class both here and where the file is loaded: torch.serialization.add_safe_globals([{name}])"


def _path_to_refused(obj: Any) -> str:
    """Return the path to the innermost part of a live tree that the reader refuses by itself."""
    steps: list[str] = []
    while len(steps) < STEPS:
        for step, part in _inside(obj):
            if _is_unreadable(part):
                steps.append(str(step)[:100])
                obj = part
                break
        else:
            break
    return "/".join(steps)


def _is_unreadable(obj: Any) -> bool:
    try:
        _try(obj, lambda pickled, _: cast(None, _parsed(pickled)))
    except FormatError:
        return True
    except SaveError:
        return False
    return False


def _inside(obj: Any) -> Iterable[tuple[Any, Any]]:
    if isinstance(obj, Mapping):
        return list(raw_values(obj).items())
    return enumerate(obj) if isinstance(obj, (list, tuple)) else []


def _parsed(pickled: bytes) -> Parsed:
    return parse(pickled, storage=_claimed)


def _claimed(wanted: StorageId) -> TypedStorage:
    """Return a storage of the length that the pickle claims."""
    nbytes = wanted.numel * (wanted.dtype.itemsize if wanted.dtype else 1)
    return TypedStorage(Storage(NOWHERE.source, wanted.key, nbytes), wanted.dtype, wanted.numel)


def _inert(tree: Any) -> Iterator[tuple[str, Any]]:
    """Yield the inert values of a tree that was read, with their paths; also tensors of other classes, or without
    elements.
    """
    waiting: deque[tuple[str, Any]] = deque([("", tree)])
    seen: set[int] = set()
    while waiting:
        path, value = waiting.popleft()
        if type(value) is Leaf and value.traits is PLAIN:
            continue
        if id(value) in seen or isinstance(value, (str, bytes, int, float)):
            continue
        seen.add(id(value))
        if not _comes_back(value):
            yield path, value
        waiting.extend((f"{path}/{step}" if path else str(step), part) for step, part in _parts(value))


def _comes_back(value: Any) -> bool:
    if isinstance(value, Opaque):
        return is_made(value)
    if isinstance(value, (Leaf, Compound)):
        path = value.traits.subclass
        module, _, name = (path or "").rpartition(".")
        return (path is None or is_made(Opaque(module, name))) and getattr(value, "layout", "") != "meta"
    return True


def _parts(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yield the parts of a value, including keys and attributes."""
    if isinstance(value, Mapping):
        for key, part in raw_values(value).items():
            if not isinstance(key, (str, int)):
                yield f"the key {str(key)[:100]}", key
            yield key, part
        yield from getattr(value, "__dict__", {}).items()
    elif isinstance(value, (list, tuple, set, frozenset, deque)):
        yield from enumerate(value)
    elif isinstance(value, Opaque):
        inside = value.attributes() or {"its state": value.state}
        yield from (*inside.items(), *enumerate(value.args or ()), *value.kwargs.items(), *enumerate(value.items))
    elif isinstance(value, (Leaf, Compound)):
        yield from (value.traits.attributes or {}).items()
