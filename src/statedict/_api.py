"""The public verbs, each a few lines of composition over the rooms.

Nothing heavy is imported with this file: numpy, torch and the rooms that need them come with the first call that does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO

from statedict.errors import MissingDependencyError
from statedict.state import Patterns, arguments, library, materialize, without_collector

from . import _arrays, _loading, _sources
from .errors import FormatError

if TYPE_CHECKING:
    from statedict.formats import Checkpoint, Limits
    from statedict.plan import Diff, Inference, LoadReport
    from statedict.state import CastKind, StateDict
    from statedict.torch import Finding

Path = str | os.PathLike[str] | BinaryIO


def open(path: Path, *, limits: Limits | None = None) -> Checkpoint:
    """Open a file (or directory) of saved state, lazily: nothing of it is run, and no tensor is read.

    Needs no torch. `path` is a path, a URL (`s3://…`, `https://…`, see the extra `remote`) or a seekable binary file
    object. The format is told from the bytes. `limits`: what reading it may cost, where the usual limits, which honest files
    keep to, are too narrow; the Checkpoint is then a source.

    Raises UnknownFormatError where they are no format that is read here, LimitError where reading would cost too much,
    another FormatError where the file is damaged, OSError where it cannot be opened.

    >>> import io, numpy as np, statedict
    >>> file = io.BytesIO()
    >>> statedict.save({"model": {"weight": np.ones((2, 3))}, "epoch": 3}, file)
    >>> _ = file.seek(0)
    >>> with statedict.open(file) as checkpoint:
    ...     print(list(checkpoint.roots), checkpoint.state_dict().spec("weight").shape)
    ['model'] (2, 3)
    """
    from statedict import formats

    if limits is not None and not isinstance(limits, formats.Limits):
        raise TypeError(f"limits= is a statedict.Limits(…), not {arguments.described(limits)}")
    return formats.open(path, limits=limits or formats.LIMITS)


@without_collector
def load(
    path: Path,
    *,
    map_location: Any = None,
    mmap: bool = False,
    backend: str = "auto",
    verify: bool = True,
    limits: Limits | None = None,
) -> Any:
    """What was saved in a file, as `torch.load` would give it, without running anything of it.

    Args:
        path: a path, a URL (`s3://…`, `https://…`, see the extra `remote`) or a seekable binary file object.
        map_location: the device for torch tensors: one for all, a mapping of saved location to device, or a function as
            `torch.load` takes it (asked once for each location, with an empty storage). None: back to the
            device that each was saved from where this machine has it, and to the CPU otherwise.
        mmap: map the file copy-on-write instead of reading it: time and memory do not depend on its size, and checksums
            are not verified. What cannot be mapped (compressed, or not aligned) is read if it is at most 64 MB; FormatError
            is raised if it is more. While tensors are mapped, nobody may truncate the file or write into it.
        backend: `"torch"` or `"numpy"`; `"auto"`: torch tensors where torch is installed, NumPy arrays otherwise.
        verify: check the checksums that the file has before anything is returned.
        limits: what reading may cost, as for `open`.

    Values of classes that are not known here, and not allowed by `torch.serialization.add_safe_globals`, come as inert
    `Opaque` values. Tensors share one allocation, which lives as
    long as any of them does.

    Raises UnsafeFileError where the file names imports that would run code, ChecksumError where its bytes are not those
    that were written, another FormatError where it is damaged, OSError where it cannot be opened.

    >>> import io, numpy as np, statedict
    >>> file = io.BytesIO()
    >>> statedict.save({"weight": np.arange(3.0), "epoch": 3}, file)
    >>> _ = file.seek(0)
    >>> statedict.load(file, backend="numpy")
    {'weight': array([0., 1., 2.]), 'epoch': 3}
    """
    arguments.flags(mmap=mmap, verify=verify)
    arguments.texts(backend=backend)
    chosen = library(backend)
    if chosen.name != "torch" and map_location not in (None, "cpu"):
        raise TypeError(f"map_location= is for torch tensors: NumPy arrays cannot be put on {map_location!r}")
    with open(path, limits=limits) as checkpoint:
        checkpoint.require_safe()
        read: Callable[[list[Any]], list[Any]]
        if chosen.name == "torch":
            from statedict.torch import materialize_on

            read = partial(materialize_on, where=map_location, mapped=mmap, verify=verify)
        else:
            read = partial(materialize, library=chosen, mapped=mmap, verify=verify)
        try:
            return _arrays.revived(checkpoint.object, chosen.name, read)
        except FormatError as error:
            raise error.located(file=checkpoint.path) from error.__cause__


@without_collector
def save(
    obj: Any,
    path: Path,
    *,
    format: str | None = None,
    metadata: Mapping[str, str] | None = None,
    max_shard_size: int | str | None = None,
    durable: bool = True,
) -> None:
    """Save a state, or any tree of dicts, lists, values and arrays, so that the file is there as a whole or not at all.

    Args:
        obj: what to save. Modules, optimizers and anything else with a `state_dict` method are saved as their state, not as
            code, wherever they stand in the tree.
        path: a path, or a binary file object to write to. A file that is there is replaced in one step, by the new one,
            when all of that is on the disk; it keeps its mode and group, and its owner where this user may give it, but not
            its extended attributes (ACLs among them), and other hard links go on naming the old one.
        format: `"torch"` (what `torch.load` reads, with `weights_only=True` where it holds tensors, dicts, lists, tuples,
            sets, numbers and text only), `"safetensors"`, `"npz"`; None: by the
            suffix of the path, and `"torch"` where it has none. A suffix that is not known is refused.
        metadata: text by name, kept with the file.
        max_shard_size: bytes, or text such as `"5GB"`: split into several files of at most this size, and an index.
            A reader who comes by the index finds the old files or the new ones, never some of each.
        durable: flush to the disk before the name is given; without it a power cut may lose old and new file.

    A view is saved as the elements that it shows; tied tensors stay tied. Equal content gives equal bytes. NumPy arrays are
    tensors in the file where they are a state (a StateDict, a mapping of names to arrays alone, a module), and stay NumPy
    arrays elsewhere in a tree, as with `torch.save`.

    Raises SaveError where a value cannot be written in the format, or could not be loaded again: of a class that `load` does
    not make (unless it is allowed by `torch.serialization.add_safe_globals`), without its elements (on the meta device), or
    beyond the usual Limits. It names the path in the tree, and no file was touched. Raises DiskFullError, OSError.

    >>> import tempfile, numpy as np, statedict
    >>> path = f"{tempfile.mkdtemp()}/model.safetensors"
    >>> statedict.save({"weight": np.ones(3, "float32")}, path)
    >>> statedict.load(path, backend="numpy")["weight"]
    array([1., 1., 1.], dtype=float32)
    """
    from statedict import formats

    arguments.maybe(arguments.texts, format=format)
    arguments.maybe(arguments.mappings, metadata=metadata)
    if not isinstance(durable, str):
        arguments.flags(durable=durable)
    formats.write(
        _sources.saved(obj),
        path,
        format=format,
        metadata=metadata,
        max_shard_size=max_shard_size,
        durable=durable,
        substitute=_sources.States().of,
    )


@without_collector
def state_dict(obj: Any, *, prefix: str = "", keep_vars: bool = False, model: Any = None) -> Any:
    """The state of a module, live: the tensors alias the module's, and change when training goes on (see `snapshot`).

    For a module (PyTorch's or `statedict.nn`'s) a StateDict with the names, order, values and `_metadata` of
    `Module.state_dict()`; `prefix` is put before each name, `keep_vars` keeps Parameters instead of detached tensors. For
    an optimizer, a scheduler, or anything else with a `state_dict` method, the nested state that it gives; an optimizer's
    with its parameters' names where they are known (give the `model` that it trains).

    Raises NotAStateError (a TypeError) where `obj` has no state.

    >>> import torch, statedict
    >>> state = statedict.state_dict(torch.nn.Linear(3, 2))
    >>> {name: tuple(value.shape) for name, value in state.items()}
    {'weight': (2, 3), 'bias': (2,)}
    """
    arguments.texts(prefix=prefix)
    arguments.flags(keep_vars=keep_vars)
    if _sources.host_of(obj) is not None:
        if model is not None:
            _loading.refuse_options(obj, model=True)
        return _sources.given(obj, prefix=prefix, keep_vars=keep_vars)
    _loading.refuse_options(obj, prefix=prefix, keep_vars=keep_vars)
    _sources.require_named(model)
    return _sources.nested(obj, model)


@without_collector
def load_state_dict(
    obj: Any,
    source: Any,
    strict: bool = True,
    assign: bool = False,
    *,
    into: str | None = None,
    root: str = "auto",
    include: Patterns = None,
    exclude: Patterns = None,
    rename: Any = None,
    allow_missing: Patterns = (),
    allow_unexpected: Patterns = (),
    allow_casts: CastKind | Sequence[CastKind] = (),
    mismatched: Any = "error",
    dtype: Any = None,
    device: Any = None,
    model: Any = None,
    verify: bool = True,
    dry_run: bool = False,
    limits: Limits | None = None,
) -> LoadReport:
    """Load a state into a module, an optimizer, or anything else that takes one: all of it, or nothing.

    When this raises, nothing of `obj` has changed, and neither has the source. One exception: a model that takes more than
    half of the memory available, for which there is no backup, when reading its file fails after the checksums were
    verified. A note on the error then names the tensors that have other elements than before.

    Args:
        obj: a module of PyTorch or `statedict.nn`, an optimizer, a scheduler, anything with `load_state_dict`.
        source: a path, a URL, a binary file, an open Checkpoint, a StateDict, any mapping of name to tensor, another
            module. From a file, each tensor's bytes go straight into the parameter's memory.
        strict: refuse missing and unexpected names. Shapes are never waved through, `strict` or not: see `mismatched`.
        assign: put the tensors themselves in the parameters' places, as a meta model needs; dtype and device are theirs.
        into: load into the sub-module at this path.
        root: which state dict of a checkpoint that holds several: `"model"`, `"ema/state_dict"`, `"optimizers/0"`. One
            that holds only nested dicts of tensors is read with dotted names.
        include, exclude: glob patterns on dotted names; `"head"` is all below `head`. What is left out is in the report.
        rename: a KeyMap, rules as text (`"transformer.h.{i}.{*p} -> layers.{i}.{*p}"`), a mapping, or a function.
        allow_missing, allow_unexpected: patterns of names that may be missing, or unexpected.
        allow_casts: kinds of lossy cast to allow: `"truncation"` (floating to integer), `"imaginary"` (complex to real),
            `"overflow"` (finite to infinite).
        mismatched: what to do where shapes differ: `"error"`, `"skip"`, `"slice"`, `"interpolate"`, or a mapping of pattern
            to one of these or to a function.
        dtype: cast floating-point tensors to this first, or by pattern. The model's own dtype wins unless `assign`.
        device: where to put the tensors when assigning: one for all, or by pattern. Otherwise the model's own devices win.
        model: for an optimizer: the model whose parameter names its state is matched by.
        verify: check the file's checksums. Without it a damaged file, or one that cannot be read to its end, may leave the
            model partly loaded.
        dry_run: report, and change nothing.
        limits: what reading a file may cost, as for `open`.

    Wrappers' prefixes (`module.` of DataParallel and DDP, `_orig_mod.` of torch.compile, FSDP's) are seen through on both
    sides, for a module and for an optimizer; exact names come first. `AveragedModel` is such a wrapper too.

    Returns a LoadReport, which is also PyTorch's result (`missing, unexpected = …`).

    What is about modules only (`into`, `include`, `rename`, `mismatched` …) raises TypeError for any other object.

    Raises LoadError (a RuntimeError whose text begins as PyTorch's) where the state does not fit, CollisionError where two
    sources would fill one slot, RootError where it is not clear which state dict of the file is meant, UnsafeFileError,
    ChecksumError and other FormatErrors for files that cannot be trusted.

    >>> import torch, statedict
    >>> model = torch.nn.Linear(3, 2)
    >>> wrapped = {f"module.{name}": value + 1 for name, value in model.state_dict().items()}
    >>> statedict.load_state_dict(model, wrapped)
    <All keys matched successfully>
    """
    _sources.require_target(obj, source)
    arguments.flags(strict=strict, assign=assign, verify=verify, dry_run=dry_run)
    arguments.texts(root=root)
    include, exclude = arguments.patterns("include", include), arguments.patterns("exclude", exclude)
    allowed = (
        arguments.patterns("allow_missing", allow_missing),
        arguments.patterns("allow_unexpected", allow_unexpected),
    )
    demands = _loading.Demands(strict, *allowed, dry_run)
    if _sources.host_of(obj) is None:
        fits = _sources.is_optimizer_state if _sources.is_torch_optimizer(obj) else None
        _loading.refuse_options(
            obj,
            assign=assign,
            into=into,
            include=include,
            exclude=exclude,
            rename=rename,
            allow_casts=allow_casts,
            mismatched=not (isinstance(mismatched, str) and mismatched == "error"),
            device=device,
        )
        _sources.require_named(model)
        with _sources.opened_tree(source, root, fits, limits) as nested:
            return _loading.load_stateful(obj, nested, demands, model=model, dtype=dtype, verify=verify)
    _loading.refuse_options(obj, model=model is not None)
    module = _sources.submodule(obj, into)
    options = {"include": include, "exclude": exclude, "rename": rename, "mismatched": mismatched}
    options |= {"dtype": dtype, "device": device}
    _loading.check_devices(device)
    manner = _loading.manner(assign, allow_casts, verify)
    fixed: dict[str, Any] = {"into": into} if into else {}
    fixed |= ({"root": root} if root != "auto" else {}) | ({"assign": True} if assign else {})
    with _sources.taken(source, root, limits) as taken:
        return _loading.load_module(module, taken, demands, options, manner, fixed)


@without_collector
def snapshot(obj: Any, *, out: Any = None) -> Any:
    """An independent copy of a state, which training does not change; tied tensors stay tied.

    Args:
        obj: a module, an optimizer, anything with a `state_dict` method, or a tree of dicts and lists with arrays.
        out: an earlier snapshot of the same layout that is not needed any more: its memory is reused.

    >>> import torch, statedict
    >>> model = torch.nn.Linear(3, 2)
    >>> best = statedict.snapshot(model)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> bool((best["weight"] == 0).any())
    False
    """
    return _arrays.copied(_sources.to_copy(obj), out)


def audit(model: Any, optimizer: Any = None) -> list[Finding]:
    """What would silently not be saved, not be moved, or not be trained: each with its path, why it matters, and the fix.

    >>> import torch, statedict
    >>> model = torch.nn.Linear(2, 2)
    >>> model.scale = torch.ones(2)
    >>> [(finding.path, finding.kind) for finding in statedict.audit(model)]
    [('scale', 'plain tensor')]

    Raises NotAStateError (a TypeError) where `model` is not a module of PyTorch, MissingDependencyError without PyTorch.
    """
    try:
        from statedict.torch import audit as find
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", needed_for="audit", extra="torch") from error
    return find(model, optimizer)


def match(model: Any, source: Any, *, root: str = "auto") -> Inference:
    """The KeyMap that would bring a source's names to a model's, each step with its reason; nothing is loaded or changed.

    `model` and `source` are sources, as everywhere. Print the result and look at it, then give its `key_map` to
    `load_state_dict` as `rename`.

    >>> import numpy as np, statedict
    >>> model = {"encoder.weight": np.zeros((2, 3)), "encoder.bias": np.zeros(2)}
    >>> source = {"model.encoder.weight": np.ones((2, 3)), "model.encoder.bias": np.ones(2)}
    >>> print(statedict.match(model, source).key_map)
    model.{*p} -> {*p}
    """
    from statedict.plan import infer

    with _sources.opened(source, root) as given, _sources.opened(model) as target:
        return infer(target, given)


def diff(a: Any, b: Any, *, root: str = "auto") -> Diff:
    """What changed from one source to another: names, shapes, dtypes, elements (NaN-aware), ties.

    Tensors are read one at a time and in pieces, so files may be larger than memory. `root` is the state dict to compare
    where a file holds several.

    >>> import numpy as np, statedict
    >>> found = statedict.diff({"w": np.zeros(4)}, {"w": np.array([0, 0, 0, 0.5])})
    >>> list(found.changed), found.changed["w"].changed
    (['w'], 1)
    """
    from statedict.plan import diff as compare

    with _sources.opened(a, root) as first, _sources.opened(b, root) as second:
        return compare(first, second)


def merge(
    sources: Sequence[Any], method: str = "average", *, weights: Any = None, base: Any = None, root: str = "auto"
) -> StateDict:
    """One state of several sources, computed one tensor at a time when it is read, saved or loaded.

    Args:
        sources: paths, StateDicts, mappings, modules …
        method: `"average"`, `"task_arithmetic"` (`base` plus the differences from it), `"slerp"` (of two), `"union"`.
        weights: one for each source; for `"slerp"` how far to go from the first to the second.
        base: for `"task_arithmetic"`: the source that the others were trained from.
        root: the state dict to take where a file holds several.

    Raises MergeError (a ValueError) where names or shapes differ, CollisionError where a union has a name twice.

    >>> import numpy as np, statedict
    >>> statedict.merge([{"w": np.zeros(2)}, {"w": np.ones(2)}]).numpy()["w"]
    array([0.5, 0.5])
    """
    from statedict.plan import merge as merged

    if isinstance(sources, (str, bytes, Mapping)) or not isinstance(sources, Iterable):
        raise TypeError(f"merge takes a list of sources, such as ['a.pt', 'b.pt'], not {arguments.described(sources)}")
    arguments.texts(method=method)
    if weights is not None and not isinstance(weights, (int, float)) and not hasattr(weights, "__len__"):
        raise TypeError(f"weights= is a number for each source, not {arguments.described(weights)}")
    states = [_sources.kept(source, root) for source in sources]
    return merged(states, method, weights=weights, base=None if base is None else _sources.kept(base, root))
