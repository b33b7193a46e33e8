"""StateDict: the state that all other packages exchange.

It is an ordered mapping from dotted names to values. A value is an array of any library, a Leaf that is read on first
access, or any other object (extra state, a step count). Methods that return a StateDict return a new one and read no
tensors; `_metadata` is changed with the names.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from copy import deepcopy
from typing import Any, Self

from ...errors import CollisionError, NotAStateError, UnknownNameError, printable
from .._arguments import a, flags, mappings, maybe, texts
from ..tensors._dtype import dtype as find_dtype
from ..tensors._leaf import Leaf, Spec
from ..tensors._library import key_map, leaf_of, library, library_of
from ..tensors._materialize import materialize
from ..tensors._ties import tied
from ..tensors._values import Compound
from . import _metadata
from ._names import Patterns, check_names, each, matcher, nearest, parents, warn_of_unknown
from ._reader import Reader, replace, with_arrays

Rename = str | Callable[[str], str] | Mapping[str, str]


class StateDict(MutableMapping[str, Any]):
    """The state of a module tree, or of a root in a file: an ordered mapping from names to values.

    It behaves like a dict; `sd[name]` returns the array (read from the file at the first access), and `sd.spec(name)` its
    dtype and shape without reading it. PyTorch's own `load_state_dict` accepts it, and it pickles as a plain `OrderedDict`
    with `_metadata`. It is not a `dict`: pass `dict(sd)` to code that tests for one (`save_file` of safetensors: "Expected
    a dict of [str, torch.Tensor]", `torch.func.functional_call`, `torch.utils._pytree`).

    >>> sd = StateDict({"encoder.weight": np.zeros((2, 3)), "head.weight": np.ones(4)})
    >>> list(sd.drop("head")), sd.spec("encoder.weight").shape
    (['encoder.weight'], (2, 3))
    """

    __slots__ = ("_backend", "_metadata", "_reader", "_values", "texts")

    _metadata: OrderedDict[str, Any] | None
    # Created by the first read.
    _reader: Reader | None
    # The metadata texts of the file that the state is from, by key; None for a state that is not from a file.
    texts: Mapping[str, str] | None

    def __init__(
        self,
        values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (),
        metadata: Mapping[str, Any] | None = None,
        *,
        backend: str = "auto",
    ) -> None:
        texts = None
        if isinstance(values, StateDict):
            metadata = values._metadata if metadata is None else metadata
            texts, values = values.texts, values._values
        elif metadata is None:
            metadata = getattr(values, "_metadata", None)
        self._values: dict[str, Any] = dict(values) if isinstance(values, Mapping) else _pairs(values)
        maybe(mappings, metadata=metadata)
        self._metadata = None if metadata is None else OrderedDict(metadata)
        self._backend = backend
        self._reader = None
        self.texts = texts
        check_names(self._values)

    @classmethod
    def adopt(cls, values: dict[str, Any], metadata: OrderedDict[str, Any] | None, backend: str = "auto") -> StateDict:
        """Create a StateDict around a dict without checking or copying it; the caller must not change it any more."""
        new = cls.__new__(cls)
        new._values, new._metadata, new._backend = values, metadata, backend
        new._reader = new.texts = None
        return new

    # The methods of a dict.

    def __getitem__(self, name: str) -> Any:
        value = self._value(name)
        if isinstance(value, (Leaf, Compound)):
            if self._reader is None:
                self._reader = Reader(self._values, self._backend)
            self._reader.read(name)
        elif isinstance(value, (dict, list, tuple)):
            replace(self._values, {name: value}, [with_arrays(value, self._backend)])
        else:
            return value
        return self._value(name)

    def _value(self, name: str) -> Any:
        try:
            return self._values[name]
        except (KeyError, TypeError):
            raise self._unknown(name) from None

    def __setitem__(self, name: str, value: Any) -> None:
        if not isinstance(name, str):
            check_names([name])
        self._values[name] = value
        if self._reader and isinstance(value, Leaf):
            self._reader.note([name])

    def __delitem__(self, name: str) -> None:
        try:
            del self._values[name]
        except (KeyError, TypeError):
            raise self._unknown(name) from None

    def _unknown(self, name: str) -> UnknownNameError:
        return UnknownNameError(name, near=nearest(str(name), self._values, 3))

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __reversed__(self) -> Iterator[str]:
        return reversed(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and name in self._values

    def get(self, name: str, default: Any = None) -> Any:
        # Mapping's method would search near names at every miss.
        return self[name] if name in self else default  # noqa: SIM401

    def popitem(self, last: bool = True) -> tuple[str, Any]:
        """Remove and return the last entry, or the first; raises KeyError if the state is empty."""
        flags(last=last)
        if not self._values:
            raise KeyError("popitem(): the state dict is empty")
        name = next(reversed(self._values) if last else iter(self._values))
        return name, self.pop(name)

    def move_to_end(self, name: str, last: bool = True) -> None:
        """Move an entry to the end, or to the beginning."""
        if name not in self:
            raise self._unknown(name)
        self._values[name] = self._values.pop(name)
        if not last:
            self._values, self._reader = {name: self._values.pop(name), **self._values}, None

    def __or__(self, other: Mapping[str, Any]) -> StateDict:
        if not isinstance(other, Mapping):
            return NotImplemented
        new = self.copy()
        new |= other
        return new

    def __ror__(self, other: Mapping[str, Any]) -> StateDict:
        if not isinstance(other, Mapping):
            return NotImplemented
        return StateDict(other, backend=self._backend) | self

    def __ior__(self, other: Mapping[str, Any]) -> Self:
        self.update(other)
        extra = getattr(other, "_metadata", None)
        if extra is not None:
            self._metadata = OrderedDict(self._metadata or ()) | OrderedDict(extra)
        return self

    def update(self, *args: Any, **kwargs: Any) -> None:
        for other in (*args, kwargs):
            values = raw_values(other) if isinstance(other, Mapping) else _pairs(other)
            check_names(values)
            self._values.update(values)
            if self._reader:
                self._reader.note(values)

    def copy(self) -> StateDict:
        """A shallow copy: the same values under the same names."""
        return self._new(self._values, self._metadata)

    __copy__ = copy

    def __deepcopy__(self, memo: dict[int, Any]) -> StateDict:
        values = {name: deepcopy(value, memo) for name, value in self.items()}
        return self._new(values, deepcopy(self._metadata, memo))

    def __reduce__(self) -> tuple[Any, ...]:
        # Pickles as a plain OrderedDict, so that the file can be opened without this library.
        state = None if self._metadata is None else {"_metadata": self._metadata}
        return OrderedDict, (), state, None, iter(self.items())

    # Information that does not need reading.

    def leaf(self, name: str) -> Leaf | Compound | None:
        """Return the leaf under `name`, or None if the value is not a tensor; reads no tensor."""
        return leaf_of(self._value(name))

    def leaves(self) -> Iterator[tuple[str, Leaf | Compound]]:
        """Return every name whose value is a tensor, with its leaf; reads no tensor."""
        for name, value in self._values.items():
            leaf = leaf_of(value)
            if leaf is not None:
                yield name, leaf

    def spec(self, name: str) -> Spec:
        """Return dtype, shape, strides and offset (in elements) of the tensor under `name`; reads no tensor.

        Raises UnknownNameError (a KeyError) for an unknown name, TypeError if its value is not a strided tensor.
        """
        leaf = self.leaf(name)
        if not isinstance(leaf, Leaf):
            found = f"a {leaf.layout} tensor of several parts" if leaf else a(self._values[name])
            hint = f": see leaf({name!r})" if leaf else ""
            raise TypeError(f"{name!r} is {found} and does not have a strided spec{hint}")
        return leaf.spec

    @property
    def tied(self) -> list[tuple[str, ...]]:
        """Groups of names whose tensors share elements, in order; reads no tensor.

        Disjoint views of one storage, as fused RNN weights are, are not tied.

        >>> whole = np.zeros(4)
        >>> StateDict({"a": whole, "b": whole, "left": whole[:2], "other": np.zeros(4)}).tied
        [('a', 'b', 'left')]
        """
        strided = [
            (name, part)
            for name, leaf in self.leaves()
            for part in ([leaf] if isinstance(leaf, Leaf) else leaf.parts.values())
        ]
        groups = tied([leaf for _, leaf in strided])
        names = dict.fromkeys(tuple(dict.fromkeys(strided[index][0] for index in group)) for group in groups)
        return [group for group in names if len(group) > 1]

    @property
    def nbytes(self) -> int:
        """The number of bytes of all tensors; tied tensors are counted once for each name."""
        return sum(leaf.nbytes for _, leaf in self.leaves())

    # Operations: each returns a new StateDict and reads no tensor.

    def select(self, *patterns: Patterns) -> StateDict:
        """Return the entries that match any glob pattern (a module's path matches all below it); partner of `drop`."""
        return self._filtered(matcher(each(patterns)))

    def drop(self, *patterns: Patterns) -> StateDict:
        """Return the entries that do not match any of the patterns; partner of `select`."""
        fits = matcher(each(patterns))
        return self._filtered(lambda name: not fits(name))

    def only(self, names: str | Iterable[str]) -> StateDict:
        """Return the entries with exactly these names, in this state's order; unlike in `select`, they are not patterns."""
        return self._filtered(set(each([names])).__contains__)

    def sub(self, path: str) -> StateDict:
        """Return the state of the submodule at `path`, with names relative to it; partner of `with_prefix`.

        Raises UnknownNameError if there is nothing below `path`.
        """
        texts(path=path)
        path = path.removesuffix(".")
        if not path:
            return self.copy()
        inside = f"{path}."
        values = {n.removeprefix(inside): v for n, v in self._values.items() if n.startswith(inside)}
        metadata = None if self._metadata is None else _metadata.below(self._metadata, path)
        if not values and not metadata:
            raise UnknownNameError(path, near=nearest(path, {p for n in self._values for p in parents(n)}, 3))
        return self._new(values, metadata)

    def with_prefix(self, prefix: str) -> StateDict:
        """Return the state moved below the module path `prefix` (with or without a final dot); partner of `sub`."""
        texts(prefix=prefix)
        path = prefix.removesuffix(".")
        if not path:
            return self.copy()
        metadata = None if self._metadata is None else _metadata.under(self._metadata, path)
        return self._new({f"{path}.{name}": value for name, value in self._values.items()}, metadata)

    def rename(self, names: Rename) -> StateDict:
        """Return the state with new names.

        `names` is a mapping from whole names to new ones (other names are unchanged), a function of the name, a
        KeyMap, or its rules as text (`"a.{*p} -> b.{*p}"`). Raises CollisionError if two entries would get the same name.
        Issues a UserWarning for a name in the mapping, or a rule, that does not match any name.
        """
        rules = key_map(names) if isinstance(names, str) else names
        if hasattr(rules, "rename"):  # a KeyMap, which also converts tensors
            renamed: StateDict = rules.rename(self)
            return renamed
        if not callable(rules):
            warn_of_unknown(rules, self._values)
        new_name = rules if callable(rules) else lambda name: rules.get(name, name)
        moved: dict[str, str] = {name: new_name(name) for name in self._values}
        taken: dict[str, str] = {}
        for old, new in moved.items():
            if new in taken:
                raise CollisionError(new, (taken[new], old))
            taken[new] = old
        metadata = None if self._metadata is None else _metadata.renamed(self._metadata, moved)
        return self._new({moved[name]: value for name, value in self._values.items()}, metadata)

    def to(self, dtype: Any, *, only: Patterns = None) -> StateDict:
        """Return the state with its floating-point tensors cast to `dtype`; they are cast when they are read.

        `dtype`: a name such as `"bf16"` or `"float16"`, or a dtype of torch or NumPy. `only`: cast only names that match
        these patterns. Integer, boolean and complex tensors are not changed. Tied tensors stay tied. The results equal
        those of PyTorch's casts, including overflow.
        """
        from ..casts._cast import Casts

        try:
            target = find_dtype(dtype)
        except KeyError:
            raise ValueError(
                f"{str(dtype)!r} is not a dtype. `to` casts the floating-point tensors of a state, for example to "
                "'bfloat16'. To move them to a device, use statedict.load(path, map_location=), or "
                "{name: value.to(device) for name, value in state.items()}"
            ) from None
        fits = matcher(only) if only is not None else lambda name: True
        chosen = {
            name: leaf
            for name, leaf in self.leaves()
            if isinstance(leaf, Leaf) and leaf.spec.dtype.is_floating and leaf.spec.dtype is not target and fits(name)
        }
        done = Casts().leaves(list(chosen.values()), target)
        return self._new({**self._values, **dict(zip(chosen, done))}, self._metadata)

    def numpy(self) -> StateDict:
        """Return the state with NumPy arrays; memory is shared if possible."""
        return self._in("numpy")

    def torch(self) -> StateDict:
        """Return the state with torch tensors; memory is shared if possible. Needs torch."""
        library("torch")
        return self._in("torch")

    def fingerprint(self) -> str:
        """Return a digest (SHA-256, hexadecimal) of names, dtypes, shapes and elements, independent of the storage.

        Reads every tensor once, one at a time.
        """
        from ._fingerprint import fingerprint

        return fingerprint(self)

    def __repr__(self) -> str:
        from ._statedict_html import state_counts

        shown = printable(", ".join(list(self._values)[:3]))
        more = ", …" if len(self) > 3 else ""
        return f"<StateDict of {state_counts(self)}: {shown}{more}>"

    def _repr_html_(self) -> str:
        from ._statedict_html import state_html

        return state_html(self)

    # Private methods.

    def _new(self, values: Mapping[str, Any], metadata: Mapping[str, Any] | None) -> StateDict:
        kept = None if metadata is None else OrderedDict(metadata)
        new = StateDict.adopt(dict(values), kept, self._backend)
        new.texts = self.texts
        return new

    def _filtered(self, keep: Callable[[str], bool]) -> StateDict:
        values = {name: value for name, value in self._values.items() if keep(name)}
        metadata = None if self._metadata is None else _metadata.kept_with(self._metadata, self._values, values)
        return self._new(values, metadata)

    def _in(self, backend: str) -> StateDict:
        """Return the state with arrays of `backend`; in-memory arrays are viewed, not copied, if possible."""
        target = library(backend)
        values = dict(self._values)
        live = [(n, leaf) for n, leaf in self.leaves() if not isinstance(self._values[n], (Leaf, Compound))]
        # A tensor of several parts is already one of its library.
        live = [(n, leaf) for n, leaf in live if isinstance(leaf, Leaf) or library_of(self._values[n]) is not target]
        arrays = materialize([leaf for _, leaf in live], target, mapped=True, verify=False)
        values.update((name, array) for (name, _), array in zip(live, arrays))
        new = self._new(values, self._metadata)
        new._backend = backend
        return new


def raw_values(source: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the values of a mapping without reading the leaves of a StateDict."""
    # An optimizer's state has a dict for each parameter, and `isinstance` is slow for abstract classes.
    return source._values if type(source) is not dict and isinstance(source, StateDict) else source


def _pairs(values: Any) -> dict[str, Any]:
    """Return the dict of an iterable of pairs; raises NotAStateError for anything else."""
    try:
        return dict(values)
    except (TypeError, ValueError):
        raise NotAStateError(
            f"a state dict is made from a mapping or from pairs (name, value), not from {a(values)}"
        ) from None
