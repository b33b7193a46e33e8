"""The public functions that relate two or more states: match their names, compare them, merge them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from statedict.errors import CollisionError, MergeError
from statedict.state import arguments

from . import _sources

if TYPE_CHECKING:
    from statedict.plan import Diff, Inference
    from statedict.state import StateDict


def match(model: Any, source: Any, *, root: str = "auto") -> Inference:
    """Infer the KeyMap that renames the tensors of a checkpoint to those of a model, with a reason for each rule.

    Nothing is loaded or changed, and no tensor is read: only names and shapes count. Tensors may be transposed, reshaped,
    joined or split. Print the result, check the matches that are not certain, then pass its `key_map` to `load_state_dict`
    as `rename`.

    Args:
        model: the model (or any other source: a path, a mapping …) whose names to match.
        source: the checkpoint, as for `load_state_dict`.
        root: which state dict of `source` to use if it holds several.

    >>> import numpy as np, statedict
    >>> model = {"encoder.weight": np.zeros((2, 3)), "encoder.bias": np.zeros(2)}
    >>> source = {"model.encoder.weight": np.ones((2, 3)), "model.encoder.bias": np.ones(2)}
    >>> print(statedict.match(model, source).key_map)
    model.{*p} -> {*p}
    """
    from statedict.plan import infer

    with _sources.resolved(source, root) as given, _sources.resolved(model) as target:
        return infer(target.state, given.state)


def diff(a: Any, b: Any, *, root: str = "auto") -> Diff:
    """Compare two sources: names, shapes, dtypes, elements (NaN equals NaN) and ties.

    Tensors are read one at a time and in pieces, so files may be larger than memory. `root` is the state dict to compare
    if a file holds several.

    >>> import numpy as np, statedict
    >>> found = statedict.diff({"w": np.zeros(4)}, {"w": np.array([0, 0, 0, 0.5])})
    >>> list(found.changed), found.changed["w"].changed
    (['w'], 1)
    """
    from statedict.plan import diff as compare

    with _sources.resolved(a, root) as first, _sources.resolved(b, root) as second:
        return compare(first.state, second.state)


def merge(
    sources: Sequence[Any],
    method: str = "average",
    *,
    weights: Any = None,
    base: Any = None,
    density: float | None = None,
    decay: float | None = None,
    seed: int | None = None,
    rank: int | None = None,
    root: str = "auto",
) -> StateDict:
    """Merge several states into one, which is computed one tensor at a time when it is read, saved or loaded.

    Args:
        sources: a list of paths, StateDicts, mappings, modules …
        method: how to merge them:

            - `"average"`: the mean, weighted by `weights`, which need not add up to one.
            - `"ema"`: the exponential moving average of states in order of time, with `decay`.
            - `"slerp"`: spherical interpolation of two states, each tensor as one vector.
            - `"task_arithmetic"`: `base` plus the weighted differences from it.
            - `"ties"`: as task arithmetic, but keep only the `density` largest elements of each difference, and average
              those that agree with the elected sign.
            - `"dare_linear"`, `"dare_ties"`: keep a random `density` of each difference, divided by the density; then add
              them up, or merge them as TIES does.
            - `"lora"`: add LoRA adapters to the first source, their base: folders with an `adapter_config.json` of PEFT.
            - `"extract_lora"`: the adapter of rank `rank` that is nearest to the difference of one source from `base`.
            - `"union"`: all names of all states; each name may be in only one state.
        weights: one number for each source, by default 1; for `"lora"`, one for each adapter; for `"slerp"`, one number: 0
            is the first source, 1 the second (default 0.5).
        base: the source that the others were trained from.
        density: the share of elements to keep, above 0 and at most 1.
        decay: the weight of the average so far, from 0 to 1, as in `torch.optim.swa_utils.get_ema_avg_fn`.
        seed: for the random elements of DARE (default 0). They depend only on the seed, the tensor's name and the
            source's place in the list, not on the order in which tensors are read.
        rank: the rank of the extracted adapter.
        root: the state dict to use if a file holds several.

    Metadata texts of the files are kept unless they differ between the sources; a UserWarning lists those that do.

    Raises MergeError (a ValueError) if names or shapes differ, or an adapter has unsupported tensors or options;
    CollisionError if a union has the same name twice; ValueError for options that do not fit the method.

    >>> import numpy as np, statedict
    >>> statedict.merge([{"w": np.zeros(2)}, {"w": np.ones(2)}]).numpy()["w"]
    array([0.5, 0.5])
    """
    from statedict.plan import merge as merged

    if isinstance(sources, (str, bytes, Mapping)) or not isinstance(sources, Iterable):
        raise TypeError(f"merge needs a list of sources, such as ['a.pt', 'b.pt'], not {arguments.described(sources)}")
    arguments.texts(method=method)
    if weights is not None and not isinstance(weights, (int, float)) and not hasattr(weights, "__len__"):
        raise TypeError(f"weights= must be a number for each source, not {arguments.described(weights)}")
    for name, number in (("density", density), ("decay", decay)):
        if number is not None and (isinstance(number, bool) or not isinstance(number, (int, float))):
            raise TypeError(f"{name}= must be a number, not {arguments.described(number)}")
    for name, whole in (("seed", seed), ("rank", rank)):
        if whole is not None and (isinstance(whole, bool) or not isinstance(whole, int)):
            raise TypeError(f"{name}= must be an integer, not {arguments.described(whole)}")
    options = {"weights": weights, "density": density, "decay": decay, "seed": seed, "rank": rank}
    given = list(sources)
    states = [_sources.kept(source, root) for source in given]
    with _files_named(given):
        return merged(states, method, base=None if base is None else _sources.kept(base, root), **options)


@contextmanager
def _files_named(sources: Sequence[Any]) -> Iterator[None]:
    """Name the files in the errors of the `with` block, instead of `sources[0]`."""
    names = [
        os.fspath(source) if isinstance(source, (str, os.PathLike)) else getattr(source, "path", None)
        for source in sources
    ]

    def named(text: str) -> str:
        return re.sub(r"sources\[(\d+)\]", lambda found: str(names[int(found[1])] or found[0]), text)

    try:
        yield
    except MergeError as error:
        raise MergeError(named(error.reason), names=error.names) from error.__cause__
    except CollisionError as error:
        raise CollisionError(error.name, list(map(named, error.sources))) from None
