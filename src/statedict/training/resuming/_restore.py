"""Load a checkpoint's states into objects: all of them, or none."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from glob import escape
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict import _api, _request, _sources
from statedict.errors import UnknownNameError
from statedict.formats.runs import Manifest
from statedict.state import have_room, nearest

from .. import _distributed, _names, _objects, _random
from .._keep import Place
from .._progress import Meter
from .._ranks import ranks
from .._run import inside
from ._find import PassedOver, Resumed, check_files
from ._retry import retried

if TYPE_CHECKING:
    from statedict.formats import Checkpoint, Limits
    from statedict.plan import LoadReport

Options = Mapping[str, Mapping[str, Any]]


class _Ready(NamedTuple):
    """The result of checking every load.

    Attributes:
        options: object name → options of its load.
        reports: object name → the report of a dry run.
        values: the plain values.
        drawn: the random state, or None.
    """

    options: Mapping[str, Mapping[str, Any]]
    reports: Mapping[str, LoadReport]
    values: Mapping[str, Any]
    drawn: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class FoundCheckpoint:
    """The checkpoint to resume from, with the resource limits for reading it.

    If its files were not verified yet (`is_verified`), they are now: those of the objects while they are loaded, the others
    before. Then each byte is read once, and all objects are backed up, so that damage found late changes none of them.
    """

    path: Place
    manifest: Manifest
    limits: Limits | None = None
    is_verified: bool = True
    _opened: dict[str, Checkpoint] = field(default_factory=dict)

    def into(
        self, objects: Mapping[str, Any], options: Options, passed_over: tuple[PassedOver, ...], *, random: bool
    ) -> Resumed:
        """Load the state of each object, by name; restore the random state if `random`.

        Everything else is read, and every load is checked, before the first object changes.

        Raises UnknownNameError for an object that the checkpoint does not contain, LoadError for one that does not fit.
        """
        manifest = self.manifest
        meter = Meter(f"loading step {manifest.step}", manifest.nbytes)
        with meter.shown(), self._sources(objects, options):
            ready = _distributed.on_all(lambda: self._try(objects, options, random=random))
            ready = _distributed.on_all(partial(_judged, ready, objects, _not_here(ready)))
            reports = self._load(objects, ready, meter)
        if ready.drawn is not None:
            _random.write(ready.drawn)
        return Resumed(manifest.step, manifest.metrics, ready.values, self.path, reports, passed_over)

    @contextmanager
    def _sources(self, objects: Mapping[str, Any], options: Options) -> Iterator[None]:
        """Verify, if needed, the files that no load reads completely; keep the others open until they are loaded."""
        try:
            if not self.is_verified:
                _distributed.on_all(lambda: self._check_names(objects, options))
                names = [
                    *(objects.keys() - options.keys()),
                    *([_names.VALUES] if _names.VALUES in self.manifest.objects else []),
                ]
                loaded = {file for name in names for file in self._files_of(name)}
                others = self.manifest.files.keys() - loaded
                _distributed.on_first(lambda: check_files(self.path, self.manifest, others))
            yield
        finally:
            while self._opened:
                self._opened.popitem()[1].close()

    def lacks_room(self, objects: Mapping[str, Any]) -> bool:
        """Whether there is not enough memory on this rank for a backup of objects."""
        count = ranks()[1]
        sizes = {
            name: sum(self.manifest.files[file].nbytes for file in self._files_of(name))
            for name in objects.keys() & self.manifest.objects.keys()
        }
        here = (n // (count if _distributed.has_shards(objects[name]) else 1) for name, n in sizes.items())
        return not have_room(sum(here))

    def _files_of(self, name: str) -> list[str]:
        """The files of an object: its own, or those that its index names."""
        file = self.manifest.objects[name]
        shards = self.manifest.shards.get(name, {})
        return [each for each in self.manifest.files if each == file or each in shards or each.startswith(f"{file}/")]

    def _source(self, name: str) -> Any:
        place = inside(self.path, self.manifest.objects[name])
        if self.is_verified:
            return place
        if name not in self._opened:
            self._opened[name] = _api.open(str(place), limits=self.limits)
        return self._opened[name]

    def _check_names(self, objects: Mapping[str, Any], options: Options) -> None:
        held = [name for name in self.manifest.objects if name not in _names.OWN]
        for name in (*objects, *options):
            if name not in held or name not in objects:
                among = "the checkpoint" if name in objects else "the arguments"
                raise UnknownNameError(name, among=among, near=nearest(name, held, 3) or sorted(held))

    def _try(self, objects: Mapping[str, Any], options: Options, *, random: bool) -> _Ready:
        """Read what is not loaded into objects, and try every load. Changes no object."""
        self._check_names(objects, options)
        chosen = {name: _options(value, objects) | dict(options.get(name, {})) for name, value in objects.items()}
        values = dict(self.manifest.values) | retried(self._values)
        drawn = retried(partial(_random.stored, self.path, self.manifest)) if random else None
        reports = {
            name: retried(partial(self._load_one, name, value, {**chosen[name], "dry_run": True}))
            for name, value in objects.items()
        }
        return _Ready(chosen, reports, values, drawn)

    def _load(self, objects: Mapping[str, Any], ready: _Ready, meter: Meter) -> dict[str, Any]:
        # Whether a state fits an object with a loader of its own is known only when that is called: before all others.
        own = {name: value for name, value in objects.items() if _has_own_loader(value)}
        with _all_or_none(own.values() if self.is_verified else objects.values()):
            reports = _distributed.on_all(lambda: self._load_each(objects, own, ready, meter))
        return {name: reports[name] for name in objects}

    def _load_each(
        self, objects: Mapping[str, Any], own: Collection[str], ready: _Ready, meter: Meter
    ) -> dict[str, Any]:
        # The ranks vote about each sharded object, so no rank may fail alone before, or try again alone.
        sharded = [name for name, value in objects.items() if _distributed.has_shards(value)]
        reports = {name: self._load_one(name, objects[name], ready.options[name]) for name in sharded}
        for name in dict.fromkeys((*own, *objects)):
            if name not in reports:
                reports[name] = retried(partial(self._load_one, name, objects[name], ready.options[name]))
            meter(self.manifest.nbytes_of(self.manifest.objects[name]))
        return reports

    def _load_one(self, name: str, value: Any, options: Mapping[str, Any]) -> Any:
        return _api.load_state_dict(value, self._source(name), **{"limits": self.limits, **options})

    def _values(self) -> dict[str, Any]:
        """The values that are saved outside the manifest."""
        file = self.manifest.objects.get(_names.VALUES)
        return {} if file is None else dict(_api.load(inside(self.path, file), limits=self.limits))


def _not_here(ready: _Ready) -> dict[str, list[str]]:
    """Return the names of each object that are unexpected on this rank, but not on all: the stages of a pipeline have
    different parameters."""
    unexpected = {name: report.unexpected for name, report in ready.reports.items()}
    of_ranks = _distributed.of_all(lambda: unexpected)
    of_all = {name: set.intersection(*(set(each[name]) for each in of_ranks if name in each)) for name in unexpected}
    return {name: [each for each in found if each not in of_all[name]] for name, found in unexpected.items()}


def _judged(ready: _Ready, objects: Mapping[str, Any], not_here: Mapping[str, list[str]]) -> _Ready:
    """Allow the names that this rank does not have; raises LoadError for a load that does not fit."""
    options = dict(ready.options)
    for name, value in objects.items():
        given, elsewhere = options[name], [escape(each) for each in not_here[name]]
        if elsewhere:
            own = given.get("allow_unexpected", ())
            options[name] = {**given, "allow_unexpected": [*([own] if isinstance(own, str) else own), *elsewhere]}
        report = ready.reports[name].allowing(unexpected=elsewhere)
        how = f"Pass such arguments to resume() as options={{{name!r}: {{…}}}}"
        _request.refuse(report, f"{type(value).__name__} ({name!r})", given.get("strict", True), how)
    return ready._replace(options=options)


def _has_own_loader(value: Any) -> bool:
    """Whether an object is neither a module nor an optimizer, whose loads were tried."""
    return _sources.host_of(value) is None and not _objects.is_optimizer(value)


@contextmanager
def _all_or_none(objects: Collection[Any]) -> Iterator[None]:
    """Restore the states of objects if an error occurs on any rank; an object that raised has already restored its own."""
    is_needed = len(objects) > 1 or ranks()[1] > 1
    before = _distributed.on_all(lambda: [(each, _api.snapshot(each)) for each in objects if is_needed])
    try:
        yield
    except BaseException:
        for each, state in before:
            each.load_state_dict(state)
        raise


def _options(value: Any, objects: Mapping[str, Any]) -> dict[str, Any]:
    """Default load options: an optimizer's state is matched by the names that the model gives to its parameters; the state
    of an object of any other kind is the whole file."""
    if not _objects.is_optimizer(value):
        return {} if _sources.host_of(value) is not None else {"root": ""}
    model = _objects.owner(value, objects)
    return {} if model is None else {"model": model}
