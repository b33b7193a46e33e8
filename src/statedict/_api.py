"""The public functions, each a few lines that combine the packages below.

Importing this file is cheap: numpy, torch and the packages that need them are imported by the first call that uses them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, BinaryIO, Literal, Protocol, overload

from statedict.errors import MissingDependencyError
from statedict.state import Patterns, arguments, library, materialize, without_collector

from . import _arrays, _loading, _request, _saving, _sources, _stateful
from .errors import FormatError

if TYPE_CHECKING:
    from statedict.formats import Checkpoint, Limits
    from statedict.plan import KeyMap, LoadReport, Mismatched
    from statedict.state import CastKind, StateDict
    from statedict.torch import AuditFinding

    Renames = KeyMap | str | Mapping[str, str] | Callable[[str], str]

Path = str | os.PathLike[str] | BinaryIO
Backend = Literal["auto", "numpy", "torch"]


class ModuleLike(Protocol):
    """The methods of a module, of PyTorch or `statedict.nn`, that other objects do not have: for type checkers only."""

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any: ...


def open(path: Path, *, limits: Limits | None = None) -> Checkpoint:
    """Open a checkpoint file or directory lazily, without running any of its code or reading any tensor.

    Does not need torch. The format is detected from the content, not from the suffix.

    Args:
        path: a path, a URL (`s3://…`, `https://…`, see the extra `remote`) or a seekable binary file object.
        limits: raises the resource limits for unusually large files. Pass the Checkpoint as the source to load such a file.

    Raises UnknownFormatError if the format is not supported, LimitError if reading the file would exceed the limits,
    another FormatError if the file is damaged, OSError if it cannot be opened.

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
        raise TypeError(f"limits= must be a statedict.Limits(…), not {arguments.described(limits)}")
    return formats.open(path, limits=limits or formats.LIMITS)


@without_collector
def load(
    path: Path,
    *,
    map_location: Any = None,
    mmap: bool = False,
    backend: Backend = "auto",
    verify: bool = True,
    limits: Limits | None = None,
) -> Any:
    """Load the object saved in a file, as `torch.load` does, but without running any code from the file.

    Args:
        path: a path, a URL (`s3://…`, `https://…`, see the extra `remote`) or a seekable binary file object.
        map_location: the device for torch tensors: one for all, a mapping from saved location to device, or a function as
            in `torch.load` (called once for each location, with an empty storage). None: the device that each tensor was
            saved from if this machine has it, otherwise the CPU.
        mmap: map the file copy-on-write instead of reading it: time and memory do not depend on the file size, and
            checksums are not verified. Tensors that cannot be mapped (compressed or not aligned) are read if they are at
            most 64 MB, otherwise FormatError is raised. The file must not be truncated or modified while it is mapped.
        backend: `"torch"`, `"numpy"`, or `"auto"`: torch tensors if torch is installed, NumPy arrays otherwise.
        verify: verify the checksums in the file before returning anything.
        limits: the resource limits, as for `open`.

    Objects of unknown classes are returned as inert `Opaque` placeholders, unless the class is allowed by
    `torch.serialization.add_safe_globals`. The tensors share one allocation, which is freed when the last of them is.

    Raises UnsafeFileError if the file names imports that would run code, ChecksumError if its content does not match its
    checksums, another FormatError if it is damaged, OSError if it cannot be opened.

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
        raise TypeError(
            f"map_location= applies to torch tensors only: NumPy arrays cannot be moved to {map_location!r}"
        )
    with open(path, limits=limits) as checkpoint:
        checkpoint.require_safe()
        checkpoint.require_whole()
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
    """Save a state, or any tree of dicts, lists, values and arrays, atomically.

    Args:
        obj: the object to save. Modules, optimizers and other objects with a `state_dict` method are saved as their state,
            not as code, anywhere in the tree.
        path: a path, or a binary file object to write to. An existing file is replaced in one step, after the new one is
            completely written; shards of an earlier save to this path are then deleted. The new file keeps the mode and
            group of the old one, and its owner if this user is allowed to set it, but not its extended attributes (ACLs, for
            example). Other hard links still refer to the old file.
        format: `"torch"` (readable by `torch.load`, with `weights_only=True` if the tree contains only tensors, dicts,
            lists, tuples, sets, numbers and text), `"safetensors"` or `"npz"`. None: chosen by the suffix of the path,
            `"torch"` if it does not have one. An unknown suffix is an error.
        metadata: text by name, stored in the file.
        max_shard_size: split into several files of at most this size, and write an index: bytes, or text such as `"5GB"`.
            A reader that opens the index sees either all old files or all new ones, never a mixture.
        durable: flush to the disk before the file gets its final name. Without it, a power failure may lose both the old
            and the new file.

    A view is saved as its own elements, not its whole storage; tied tensors stay tied. Equal content gives equal bytes.
    NumPy arrays are saved as tensors if they belong to a state (a StateDict, a module, or a mapping from names to arrays
    only); elsewhere in a tree they stay NumPy arrays, as with `torch.save`.

    Sharded tensors (DTensors) are saved as whole ones: all ranks that hold parts of them must call this, and write the file
    together. Raises RankError if another rank fails; no file was changed then.

    Raises SaveError if a value cannot be written in the format or could not be loaded again: its class cannot be loaded
    (and is not allowed by `torch.serialization.add_safe_globals`), it has no elements (on the meta device), or it exceeds
    the default Limits. The error names the path in the tree, and no file was changed. Raises DiskFullError, OSError.

    >>> import tempfile, numpy as np, statedict
    >>> path = f"{tempfile.mkdtemp()}/model.safetensors"
    >>> statedict.save({"weight": np.ones(3, "float32")}, path)
    >>> statedict.load(path, backend="numpy")["weight"]
    array([1., 1., 1.], dtype=float32)
    """
    arguments.maybe(arguments.texts, format=format)
    arguments.maybe(arguments.mappings, metadata=metadata)
    if not isinstance(durable, str):
        arguments.flags(durable=durable)
    options = {"format": format, "metadata": metadata, "max_shard_size": max_shard_size, "durable": durable}
    _saving.save(obj, path, options)


@overload
def state_dict(obj: ModuleLike, *, prefix: str = "", keep_vars: bool = False, model: None = None) -> StateDict: ...
@overload
def state_dict(obj: object, *, prefix: str = "", keep_vars: bool = False, model: Any = None) -> Any: ...
@without_collector
def state_dict(obj: Any, *, prefix: str = "", keep_vars: bool = False, model: Any = None) -> Any:
    """Return the state of a module; its tensors share the module's memory and change with it (see `snapshot` for a copy).

    For a module (of PyTorch or `statedict.nn`), this is a StateDict with the names, order, values and `_metadata` of
    `Module.state_dict()`. For an optimizer, a scheduler, or any other object with a `state_dict` method, it is the nested
    state which that method returns; for an optimizer, with the names of its parameters if they are known.

    Args:
        obj: a module, an optimizer, or any object with a `state_dict` method.
        prefix: text to put before each name (modules only).
        keep_vars: return Parameters instead of detached tensors (modules only).
        model: for an optimizer, the model that it trains, which gives the names of its parameters.

    Raises NotAStateError (a TypeError) if `obj` does not have a state.

    >>> import torch, statedict
    >>> state = statedict.state_dict(torch.nn.Linear(3, 2))
    >>> {name: tuple(value.shape) for name, value in state.items()}
    {'weight': (2, 3), 'bias': (2,)}
    """
    arguments.texts(prefix=prefix)
    arguments.flags(keep_vars=keep_vars)
    if _sources.host_of(obj) is not None:
        _request.refuse_options(obj, model=model is not None)
        return _sources.given(obj, prefix=prefix, keep_vars=keep_vars)
    _request.refuse_options(obj, prefix=prefix, keep_vars=keep_vars)
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
    rename: Renames | Iterable[Renames] | None = None,
    allow_missing: Patterns = (),
    allow_unexpected: Patterns = (),
    allow_casts: CastKind | Sequence[CastKind] = (),
    mismatched: Mismatched = "error",
    dtype: Any = None,
    device: Any = None,
    model: Any = None,
    verify: bool = True,
    dry_run: bool = False,
    limits: Limits | None = None,
) -> LoadReport:
    """Load a state into a module, an optimizer, or another object: completely, or not at all.

    If this raises, neither `obj` nor the source has changed. There are two exceptions, for files that are read twice: first
    to verify their checksums, then into the tensors. If the second read fails (the disk fails, or the file was changed), a
    note on the error lists the tensors that have changed. KeyboardInterrupt is raised after the second read is complete.
    Files are read twice if there is not enough memory for a backup of the model. On Linux, so is your own file on a local
    disk, if the process has no other thread: there, nobody can change it between the two reads.

    Args:
        obj: a module of PyTorch or `statedict.nn`, an optimizer, a scheduler, or any object with `load_state_dict`.
        source: a path, a URL, a binary file, an open Checkpoint, a StateDict, any mapping from name to tensor, or another
            module. From a file, tensors are read directly into the memory of the parameters.
        strict: raise LoadError for missing and unexpected names. Different shapes are always an error: see `mismatched`.
        assign: replace the parameters by the loaded tensors instead of copying into them, as a model on the meta device
            needs. The dtype and device are then those of the source.
        into: load into the submodule at this path.
        root: which state dict to load if the checkpoint holds several: `"model"`, `"ema/state_dict"`, `"optimizers/0"`. A
            file of nested dicts of tensors is read with dotted names.
        include, exclude: glob patterns for dotted names; `"head"` matches everything below `head`. The report lists the
            names that were excluded.
        rename: a KeyMap, rules as text (`"transformer.h.{i}.{*p} -> layers.{i}.{*p}"`), a mapping, or a function.
        allow_missing, allow_unexpected: patterns for names that may be missing, or unexpected.
        allow_casts: kinds of lossy cast to allow: `"truncation"` (floating point to integer), `"imaginary"` (complex to
            real), `"overflow"` (finite to infinite; the only one that can happen to the state of an optimizer).
        mismatched: what to do with a tensor of a different shape: `"error"`, `"skip"`, `"slice"` (load what fits),
            `"interpolate"` (position embeddings), `"channels"` (input channels of a convolution), a function, or a mapping
            from pattern to one of these.
        dtype: first cast floating-point tensors to this dtype (or a mapping from pattern to dtype). Unless `assign` is
            set, they are then cast to the dtype of the model.
        device: with `assign`, the device of the tensors: one for all, or a mapping from pattern to device. Otherwise the
            parameters stay on their devices.
        model: for an optimizer: the model whose parameter names are used to match its state.
        verify: verify the checksums of the file. Without it, a file that is damaged or cannot be read to its end may leave
            the model partly loaded.
        dry_run: return the report without changing anything.
        limits: the resource limits for reading a file, as for `open`.

    Prefixes of wrappers (`module.` of DataParallel and DDP, `_orig_mod.` of torch.compile, those of FSDP and
    `AveragedModel`) are ignored on both sides, for modules and optimizers. Exact names take precedence.

    Options for modules (`into`, `include`, `rename`, `mismatched` …) raise TypeError for any other object.

    Returns a LoadReport, which also behaves as the result of PyTorch's method (`missing, unexpected = …`).

    Raises LoadError (a RuntimeError whose text begins as PyTorch's) if the state does not fit, CollisionError if two
    source tensors would be loaded into one parameter, RootError if the file holds several state dicts and it is not clear
    which one to use, UnsafeFileError, ChecksumError or another FormatError if the file cannot be trusted.

    >>> import torch, statedict
    >>> model = torch.nn.Linear(3, 2)
    >>> wrapped = {f"module.{name}": value + 1 for name, value in model.state_dict().items()}
    >>> statedict.load_state_dict(model, wrapped)
    <All keys matched successfully>
    """
    with _request.together(obj, dry_run=dry_run) as together:
        arguments.flags(strict=strict, assign=assign, verify=verify, dry_run=dry_run)
        _sources.require_target(obj, source)
        arguments.texts(root=root)
        include, exclude = arguments.patterns("include", include), arguments.patterns("exclude", exclude)
        allowed = (
            arguments.patterns("allow_missing", allow_missing),
            arguments.patterns("allow_unexpected", allow_unexpected),
        )
        options = {"include": include, "exclude": exclude, "rename": rename, "device": device}
        request = _request.Request(
            strict, *allowed, dry_run, verify, assign, _request.lossy_casts(allow_casts),
            options | {"mismatched": mismatched, "dtype": dtype}, together=together,
        )  # fmt: skip
        if _sources.host_of(obj) is None:
            changed = not (isinstance(mismatched, str) and mismatched == "error")
            others = () if _sources.is_torch_optimizer(obj) else allow_casts
            _request.refuse_options(obj, assign=assign, into=into, **options, allow_casts=others, mismatched=changed)
            return _stateful.load_stateful(obj, source, root, request, model=model, dtype=dtype, limits=limits)
        _request.refuse_options(obj, model=model is not None)
        return _loading.load_into(obj, source, root, request, into, limits)


@overload
def snapshot(obj: ModuleLike | StateDict, *, out: StateDict | None = None) -> StateDict: ...
@overload
def snapshot(obj: object, *, out: Any = None) -> Any: ...
@without_collector
def snapshot(obj: Any, *, out: Any = None) -> Any:
    """Return an independent copy of a state, which further training does not change; tied tensors stay tied.

    Args:
        obj: a module, an optimizer, an object with a `state_dict` method, or a tree of dicts and lists with arrays.
        out: an earlier snapshot with the same layout that is no longer needed: its memory is reused.

    >>> import torch, statedict
    >>> model = torch.nn.Linear(3, 2)
    >>> best = statedict.snapshot(model)
    >>> _ = torch.nn.init.zeros_(model.weight)
    >>> bool((best["weight"] == 0).any())
    False
    """
    return _arrays.copied(_sources.to_copy(obj), out)


def audit(model: Any, optimizer: Any = None) -> list[AuditFinding]:
    """Find parts of a model that would silently not be saved, moved, or trained.

    Each AuditFinding has the path, the reason, and how to fix it. With `optimizer`, parameters that it does not train are
    reported as well.

    >>> import torch, statedict
    >>> model = torch.nn.Linear(2, 2)
    >>> model.scale = torch.ones(2)
    >>> [(finding.path, finding.kind) for finding in statedict.audit(model)]
    [('scale', 'plain tensor')]

    Raises NotAStateError (a TypeError) if `model` is not a PyTorch module, MissingDependencyError if torch is not installed.
    """
    try:
        from statedict.torch import audit as find
    except ModuleNotFoundError as error:
        raise MissingDependencyError("torch", needed_for="audit", extra="torch") from error
    return find(model, optimizer)
