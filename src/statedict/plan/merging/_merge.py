"""Merge several states into one. Each tensor is computed separately when it is read, so files may be larger than memory.

Names are paired as in a load: equal names, then names that are equal without wrappers. The result has the dtype of the
first state (or of the base). Only floating-point and complex tensors are merged: integers, booleans and other values
(position ids, step counts) are taken from the first state (or the base), and so are sparse and quantised tensors that are
equal in all states. Tensors that are tied in every state stay tied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from math import isfinite
from typing import Any, NamedTuple

from statedict.errors import CollisionError
from statedict.state import Compound, Leaf, StateDict, leaf_of, raw_values

from ._align import State, combined, common_texts
from ._extract import extracted
from ._lora import with_adapters
from ._slerp import interpolated
from ._sparse import dare, ties
from ._sums import moving_average, weighted_sum

Weights = float | Sequence[float] | None


@dataclass(frozen=True)
class Options:
    """The arguments of a merge beside its sources; None if not given."""

    weights: Weights = None
    base: State | None = None
    density: float | None = None
    decay: float | None = None
    seed: int | None = None
    rank: int | None = None

    def each_weight(self, count: int) -> list[float]:
        """Return a weight for each of `count` sources, by default 1."""
        if self.weights is None:
            return [1.0] * count
        if isinstance(self.weights, (int, float)) or len(self.weights) != count:
            raise ValueError(f"weights={self.weights!r}: expected one number for each of the {count} sources")
        if not all(isinstance(weight, (int, float)) and isfinite(weight) for weight in self.weights):
            raise ValueError(f"weights={self.weights!r}: expected finite numbers")
        return [float(weight) for weight in self.weights]

    def share(self) -> float:
        """Return the density; raise ValueError if it is not a share of the elements."""
        if self.density is None or not 0 < self.density <= 1:
            raise ValueError(f"density={self.density!r}: expected the share of elements to keep, above 0 and at most 1")
        return self.density


def merge(sources: Sequence[State], method: str = "average", **options: Any) -> StateDict:
    """Merge several states into one; its tensors are computed when they are read. `statedict.merge` has the arguments.

    Metadata texts of the files are kept unless they differ between the sources; a UserWarning lists those that do.

    Raises MergeError (a ValueError) if names or shapes differ, listing them; CollisionError if two states of a union have
    the same name; ValueError for arguments that do not fit together.

    >>> merge([{"w": np.zeros(2)}, {"w": np.ones(2)}, {"w": np.full(2, 5.0)}]).numpy()["w"]
    array([2., 2.])
    """
    if method not in METHODS:
        raise ValueError(f"method must be one of {', '.join(map(repr, METHODS))}, not {method!r}")
    row = METHODS[method]
    _check(sources, method, row, options)
    return row.merge(list(sources), Options(**options))


class Method(NamedTuple):
    """A row of the table: the function, the options that it needs, and those that it accepts as well, and the number of
    sources if it is fixed."""

    merge: Callable[[list[State], Options], StateDict]
    needs: tuple[str, ...] = ()
    accepts: tuple[str, ...] = ()
    number: int | None = None


def _check(sources: Sequence[State], method: str, row: Method, options: Mapping[str, Any]) -> None:
    """Raise ValueError if the number of sources or the given options do not fit the method."""
    if not sources:
        raise ValueError("sources is empty: give at least one state to merge")
    if row.number is not None and len(sources) != row.number:
        raise ValueError(f"{method!r} needs exactly {_NUMBERS[row.number]}, not {len(sources)}")
    given = [name for name, value in options.items() if value is not None]
    missing = [f"{name}=" for name in row.needs if name not in given]
    if missing:
        raise ValueError(f"method={method!r} needs {' and '.join(missing)}")
    for name in given:
        if name not in row.needs + row.accepts:
            users = [repr(other) for other, row in METHODS.items() if name in row.needs + row.accepts]
            raise ValueError(f"{name}= is not used by method={method!r}, only by {', '.join(users)}")


def _average(sources: list[State], options: Options) -> StateDict:
    given = options.each_weight(len(sources))
    total = sum(given)
    if not total:
        raise ValueError(f"weights={options.weights!r} add up to zero: the average is not defined")
    return _summed(sources, [weight / total for weight in given])


def _task_arithmetic(sources: list[State], options: Options) -> StateDict:
    given = options.each_weight(len(sources))
    return _summed([options.base or {}, *sources], [1.0 - sum(given), *given])


def _summed(sources: list[State], weights: Sequence[float]) -> StateDict:
    return _with_texts(sources, lambda name, leaves: weighted_sum(leaves, weights))


def _ema(sources: list[State], options: Options) -> StateDict:
    decay = options.decay
    if decay is None or not 0 <= decay <= 1:
        raise ValueError(f"decay={decay!r}: expected a number from 0 to 1")
    return _with_texts(sources, lambda name, leaves: moving_average(leaves, decay))


def _slerp(sources: list[State], options: Options) -> StateDict:
    along = 0.5 if options.weights is None else options.weights
    if not isinstance(along, (int, float)):
        raise ValueError(f"weights={along!r}: 'slerp' needs one number, from 0 (the first state) to 1 (the second)")
    return _with_texts(sources, lambda name, leaves: interpolated(leaves, along))


def _ties(sources: list[State], options: Options) -> StateDict:
    given, density = options.each_weight(len(sources)), options.share()
    return _with_texts([options.base or {}, *sources], lambda name, leaves: ties(name, leaves, given, density))


def _dare(sources: list[State], options: Options, elect: bool) -> StateDict:
    given, density, seed = options.each_weight(len(sources)), options.share(), options.seed or 0

    def sparse(name: str, leaves: Sequence[Leaf]) -> Leaf:
        return dare(name, leaves, given, density, seed, elect=elect)

    return _with_texts([options.base or {}, *sources], sparse)


def _lora(sources: list[State], options: Options) -> StateDict:
    base, *adapters = sources
    if not adapters:
        raise ValueError("'lora' needs the base first, then one adapter or several")
    return with_adapters(base, adapters, options.each_weight(len(adapters)))


def _extract_lora(sources: list[State], options: Options) -> StateDict:
    if options.rank is None or options.rank < 1:
        raise ValueError(f"rank={options.rank!r}: expected a positive integer")
    return extracted(sources[0], options.base or {}, options.rank)


def _union(sources: list[State], options: Options) -> StateDict:
    values: dict[str, Any] = {}
    whence: dict[str, int] = {}
    metadata: dict[str, Any] = {}
    for number, source in enumerate(sources):
        for name, value in raw_values(source).items():
            if name in values and not _is_same(values[name], value):
                raise CollisionError(name, [f"sources[{n}][{name!r}]" for n in (whence[name], number)])
            values[name], whence[name] = value, number
        for path, entry in (getattr(source, "_metadata", None) or {}).items():
            metadata.setdefault(path, entry)
    merged = StateDict(values, metadata or None)
    merged.texts = common_texts(sources)
    return merged


def _with_texts(sources: list[State], combine: Callable[[str, Sequence[Leaf]], Leaf]) -> StateDict:
    merged = combined(sources, combine)
    merged.texts = common_texts(sources)
    return merged


def _is_same(one: Any, other: Any) -> bool:
    """Whether two values are the same tensor; does not read it."""
    a, b = leaf_of(one), leaf_of(other)
    if isinstance(a, Leaf) and isinstance(b, Leaf):
        return a.identity == b.identity
    if isinstance(a, Compound) and isinstance(b, Compound):
        ours, theirs = ({role: part.identity for role, part in each.parts.items()} for each in (a, b))
        return a.facts == b.facts and ours == theirs
    return one is other


_NUMBERS = {1: "one state", 2: "two states"}
METHODS: dict[str, Method] = {
    "average": Method(_average, accepts=("weights",)),
    "ema": Method(_ema, needs=("decay",)),
    "slerp": Method(_slerp, accepts=("weights",), number=2),
    "task_arithmetic": Method(_task_arithmetic, needs=("base",), accepts=("weights",)),
    "ties": Method(_ties, needs=("base", "density"), accepts=("weights",)),
    "dare_linear": Method(partial(_dare, elect=False), needs=("base", "density"), accepts=("weights", "seed")),
    "dare_ties": Method(partial(_dare, elect=True), needs=("base", "density"), accepts=("weights", "seed")),
    "lora": Method(_lora, accepts=("weights",)),
    "extract_lora": Method(_extract_lora, needs=("base", "rank"), number=1),
    "union": Method(_union),
}
