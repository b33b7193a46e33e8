"""Load the nested state of an optimizer, a scheduler, or another object with `state_dict` and `load_state_dict` methods."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, partial
from typing import TYPE_CHECKING, Any

from statedict.state import Opaque, StateDict, arguments, every, independent

from . import _arrays, _request, _sources

if TYPE_CHECKING:
    from statedict.formats import Checkpoint, Limits
    from statedict.plan import LoadReport
    from statedict.tree import Outcome


def load_stateful(
    obj: Any, source: Any, root: str, request: _request.Request, *, model: Any, dtype: Any, limits: Limits | None
) -> LoadReport:
    """Load the state at `root` in a source, completely or not at all; `model` names the parameters of an optimizer."""
    from statedict.plan import LoadReport

    _sources.require_named(model)
    fits = _is_optimizer_state if _sources.is_torch_optimizer(obj) else _resembling(obj)
    reports: list[LoadReport] = []

    def judge(outcome: Outcome) -> None:
        report = LoadReport(
            outcome.missing,
            outcome.unexpected,
            loaded=outcome.loaded,
            errors=outcome.errors,
            cast=outcome.casts,
            dry_run=request.dry_run,
        )
        reports.append(report.allowing(missing=request.missing, unexpected=request.unexpected))
        request.require(reports[0])

    with suppress(_request.Undo), _opened(obj, source, root, fits, limits) as state:
        _write(obj, state, model, dtype, request, judge)
    return request.conclude(reports[0], obj)


def _write(
    obj: Any, state: Any, model: Any, dtype: Any, request: _request.Request, judge: Callable[[Outcome], None]
) -> None:
    options: dict[str, Any] = {"strict": request.strict, "judge": judge}
    if _sources.is_torch_optimizer(obj):
        from statedict.torch import write_optimizer

        write_optimizer(obj, state, model=model, dtype=dtype, rules=request.rules, **options)
    elif sys.modules.get("torch"):
        from statedict.torch import write_stateful

        write_stateful(obj, state, verify=request.verify, **options)
    else:
        from statedict.tree import Outcome

        given = _arrays.materialized(state, verify=request.verify)
        inert = dict.fromkeys(value.path for value in every(given) if isinstance(value, Opaque))
        errors = [f"the source holds data of the unknown class {path}, which is not loaded" for path in inert]
        before = independent(obj.state_dict())
        try:
            if not errors:
                obj.load_state_dict(given)
            judge(Outcome(request.strict, errors=errors))
        except BaseException:
            obj.load_state_dict(before)
            raise


@contextmanager
def _opened(obj: Any, source: Any, root: str, fits: Callable[[Any], bool], limits: Limits | None) -> Iterator[Any]:
    """Give the nested state of a source for an object; tensors of a file stay unread.

    `root="auto"` is the source itself if `fits` accepts it, else the part that `fits` accepts; if it accepts nothing, it is
    the whole source, unless the state wanted is an optimizer's, or the source is a checkpoint of something else.
    Raises RootError if there is no part at `root`, or if several fit.
    """
    from statedict import formats

    arguments.texts(root=root)
    with _sources.checkpoint_of(source, limits) as checkpoint:
        if checkpoint is not None:
            required = fits is _is_optimizer_state or checkpoint.joined or _is_unrelated(obj, checkpoint)
            found = checkpoint.object, root, fits, checkpoint.path
            yield _revived(formats.choose_part(*found, required=required, unopened=checkpoint.unopened))
        elif isinstance(source, (Mapping, list, tuple)):
            part = formats.choose_part(source, root, fits, required=fits is _is_optimizer_state)
            # A StateDict from a Checkpoint may contain Opaque values.
            yield _revived(part) if isinstance(source, StateDict) else part
        elif _sources.is_stateful(source):
            yield _sources.nested(source)
        else:
            raise _sources.not_a_source(source)


def _is_unrelated(obj: Any, checkpoint: Checkpoint) -> bool:
    """Return whether a checkpoint has state dicts, and no entry with the name of one in the state of an object."""
    tree = checkpoint.object
    if not (checkpoint.roots and isinstance(tree, Mapping)):
        return False
    keys = _keys(obj)
    return bool(keys) and keys.isdisjoint(tree)


def _keys(obj: Any) -> frozenset[Any]:
    state = obj.state_dict()
    return frozenset(state) if isinstance(state, Mapping) else frozenset()


def _revived(tree: Any) -> Any:
    """Rebuild the Opaque values of a tree; leaves stay unread, except inside those values."""
    return _arrays.revived_within(tree, "torch" if sys.modules.get("torch") else "numpy")


def _is_optimizer_state(tree: Any) -> bool:
    """Whether a tree looks like the result of an optimizer's `state_dict`."""
    return isinstance(tree, Mapping) and "state" in tree and "param_groups" in tree


def _resembling(obj: Any) -> Callable[[Any], bool]:
    """Return a function that says whether a tree looks like the state of an object: it has half of its keys, or more."""

    keys = cache(partial(_keys, obj))
    return lambda tree: isinstance(tree, Mapping) and len(keys() & tree.keys()) * 2 >= len(keys()) > 0
