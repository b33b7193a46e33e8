"""A Checkpoint: the content of a file or directory, available before tensor data is read and without running any code."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, NoReturn, Self

from statedict.state import Absent, Bulk, Leaf, Parts, Spec, StateDict, arguments, contiguous

from ...errors import FormatError, LimitError, UnknownFormatError, UnsafeFileError, printable
from .._pickle import Import
from ._allowed import is_allowed
from ._walk import leaves, tensors

# `verify(values=True)` reads at least this many bytes of elements, and up to four times the file size beyond that.
FLOOR = 64 << 20

OF_ONE_RANK = "only parts, which one rank saved"
# Metadata keys that describe the format itself: torch's version facts, safetensors' framework name, an index's totals.
OF_FORMATS = frozenset(
    {
        "version",
        "byteorder",
        ".format_version",
        ".storage_alignment",
        "format",
        "total_size",
        "shards",
        "DCP_VERSION",
        "DCP_SHARDING_INFO",
    }
)
# Metadata keys about a checkpoint of a run. Equal states may differ in them, so they are not carried over or compared.
OF_RUNS = frozenset({"statedict.step", "statedict.time", "statedict.metrics"})


class Finding(NamedTuple):
    """One problem found by `Checkpoint.verify`.

    Attributes:
        level: `"error"`: the content is damaged, or would run code if unpickled; `"unread"`: it cannot be read, so it was
            not checked; `"warning"`: it is intact, but may be unexpected; `"note"`: for information.
        where: the tensor, or the part of the file.
        text: a description of the problem.

    >>> print(Finding("error", "data/0", "its bytes have changed"))
    error: data/0: its bytes have changed
    """

    level: Literal["error", "unread", "warning", "note"]
    where: str
    text: str

    @classmethod
    def of(cls, where: str, error: FormatError | OSError) -> Finding:
        """Return the problem that part of a checkpoint cannot be read, as `"unread"` unless it is known to be damaged."""
        damaged = isinstance(error, FileNotFoundError) or is_damage(error)
        return cls("error" if damaged else "unread", where, f"cannot be read: {error}")

    def __str__(self) -> str:
        return printable(f"{self.level}: {self.where}: {self.text}" if self.where else f"{self.level}: {self.text}")


LEVELS = ("error", "unread", "warning", "note")


def is_damage(error: Exception) -> bool:
    """Return whether an error says that a file is damaged, and not just that it cannot be read here or now."""
    return isinstance(error, FormatError) and not isinstance(error, (UnknownFormatError, LimitError))


class Checkpoint:
    """An open file of saved state. Use it as a context manager, or `close` it; what was read from it stays valid.

    Attributes:
        path: the path that was opened.
        format: `"torch"`, `"safetensors"` …: a name from the table of formats.
        producer: the program that wrote it, if the content shows it.
        size: bytes of the file, or files.
        object: the saved object, as an inert tree: dicts, lists and plain values; tensors are Leafs and Compounds, values
            of unknown classes Opaque.
        notes: unusual but harmless findings.
        unopened: the roots of a directory whose files cannot be read, and why.
        joined: whether each root is a file of a directory, with the state of another object.
        metadata: the format's facts beside the tensors (versions, byte order, the metadata of a safetensors header).

    >>> import io, numpy as np, statedict
    >>> file = io.BytesIO()
    >>> statedict.save({"model": {"weight": np.ones((2, 3))}, "epoch": 3}, file)
    >>> _ = file.seek(0)
    >>> with statedict.open(file) as checkpoint:
    ...     print(checkpoint.format, list(checkpoint.roots), checkpoint.object["epoch"], checkpoint.verify())
    torch ['model'] 3 []
    """

    def __init__(
        self,
        path: str,
        format: str,
        object: Any,
        *,
        size: int,
        producer: str = "unknown",
        globals: Sequence[Import] = (),
        more_globals: Callable[[], Iterable[Import]] | None = None,
        notes: Sequence[str] = (),
        metadata: Mapping[str, str] | None = None,
        checks: Callable[[], Iterable[Finding]] = tuple,
        close: Callable[[], None] = lambda: None,
        unopened: Mapping[str, Exception] | None = None,
        joined: bool = False,
    ) -> None:
        self.path = path
        self.format = format
        self.object = object
        self.size = size
        self.producer = producer
        self._globals = list(globals)
        self._more_globals = more_globals
        self.notes = [*notes, *(_on_parts(object) if any(named.name == "DTensor" for named in globals) else ())]
        self.metadata = dict(metadata or {})
        self._checks = checks
        self._close = close
        self.unopened = dict(unopened or {})
        self.joined = joined
        self._roots: dict[str, StateDict] | None = None

    @property
    def roots(self) -> dict[str, StateDict]:
        """Every state dict in the file by its path (`"model"`, `"ema/state_dict"`; `""` is the file itself)."""
        from ._roots import find_roots

        if self._roots is None:
            self._roots = find_roots(self.object)
            for state in self._roots.values():
                state.texts = self.texts
        return self._roots

    @property
    def texts(self) -> dict[str, str]:
        """The user's metadata: that of the file without the keys that describe the format, or the step of a run."""
        return {name: text for name, text in self.metadata.items() if name not in OF_FORMATS | OF_RUNS}

    @property
    def shown_texts(self) -> dict[str, str]:
        """The metadata to show: the user's, and the step, time and metrics of a checkpoint of a run."""
        return {name: text for name, text in self.metadata.items() if name not in OF_FORMATS}

    def state_dict(self, root: str = "auto") -> StateDict:
        """Return the state dict at `root`; `"auto"` selects the main one.

        If `root` contains only nested dicts of tensors, they are flattened to dotted names.

        Raises RootError, which lists the choices, if it is missing or `"auto"` is ambiguous.
        """
        from ._choose_root import choose_root

        return choose_root(self.roots, root, self.path, tree=self.object, unopened=self.unopened)

    def require_whole(self) -> None:
        """Raise the error about the first part that cannot be read, if there is one."""
        for error in self.unopened.values():
            raise error

    @property
    def globals(self) -> list[Import]:
        """Every import that a pickle in the file names, with its risk.

        This reads pickles that were not needed so far (those in the chunks of a distributed checkpoint).
        """
        if self._more_globals is not None:
            self._globals = list(dict.fromkeys([*self._globals, *self._more_globals()]))
            self._more_globals = None
        return self._globals

    @property
    def dangerous(self) -> list[str]:
        """The imports that would run code if the file were unpickled, as `module.name`."""
        return [named.path for named in self.globals if named.risk == "dangerous"]

    def require_safe(self) -> None:
        """Raise UnsafeFileError if the file names imports that would run code when unpickled, except those that the
        program has allowed (`torch.serialization.add_safe_globals`).
        """
        refused = [named.path for named in self.globals if named.risk == "dangerous" and not is_allowed(named)]
        if refused:
            raise UnsafeFileError(
                f"unpickling this file would run code: it imports {', '.join(refused)}",
                imports=refused,
                file=self.path,
                hint="nothing was run; inspect the file with statedict.open",
            )

    def verify(self, values: bool = False) -> list[Finding]:
        """Return the problems of the file, the worst first; an empty list if it is intact and has checksums to prove
        it.

        The structure was checked when the file was opened. This checks every byte that has a checksum, lists imports
        that would run code and, with `values`, reports tensors that contain NaN or infinity.
        """
        arguments.flags(values=values)
        found = [Finding("error", "imports", f"{path} would run code if unpickled") for path in self.dangerous]
        found += self._checks()
        found += [Finding("note", "", note) for note in self.notes]
        if values:
            found += _not_finite(self.object, 4 * self.size + FLOOR)
        return sorted(found, key=lambda finding: LEVELS.index(finding.level))

    def close(self) -> None:
        """Close the file. Tensors that were not read yet cannot be read afterwards."""
        self._more_globals = None
        self._close()

    def __getitem__(self, name: str) -> NoReturn:
        # Not supported: a name can be that of a state dict, a tensor or a value. The error says how to get it.
        raise TypeError(f"a Checkpoint is not a mapping; use {self._way_to(name)}")

    def _way_to(self, name: str) -> str:
        if name in self.roots:
            return f"checkpoint.state_dict({name!r})"
        for root, state in self.roots.items():
            if name in state:
                return f"checkpoint.state_dict({root!r})[{name!r}]"
        if isinstance(self.object, Mapping) and name in self.object:
            return f"checkpoint.object[{name!r}]"
        return "checkpoint.state_dict() for tensors by name, and checkpoint.object for everything that was saved"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {os.path.basename(self.path)!r}: {self.format}, {self.size:,} bytes>"

    def _repr_html_(self) -> str:
        from ._checkpoint_html import checkpoint_html

        return checkpoint_html(self)


def _on_parts(tree: object) -> list[str]:
    """Return a note if tensors of a file are parts of larger ones: what one rank of several saved."""
    parts = [(path, leaf) for path, leaf in tensors(tree) if isinstance(leaf, Parts) and not leaf.is_whole]
    if not parts:
        return []
    path, first = parts[0]
    return [
        f"{len(parts):,} tensors are {OF_ONE_RANK} ({path}: {first.placement} of {list(first.spec.shape)}): "
        "open the directory with the files of all ranks"
    ]


def _not_finite(tree: object, budget: int) -> list[Finding]:
    """Return a warning for each tensor that contains NaN or infinity. Tensors are read one at a time, at most `budget`
    bytes in total: a small file can have any number of views of the same bytes.
    """
    found: list[Finding] = []
    counts: dict[tuple[Hashable, Spec], int] = {}
    skipped = 0
    for path, leaf in leaves(tree):
        if isinstance(leaf, Absent) or not leaf.spec.numel or leaf.spec.dtype.kind not in ("float", "complex"):
            continue
        spec = _once(leaf.spec)
        key = leaf.storage.key, spec
        if key not in counts:
            # A compressed storage, or one assembled from chunks, is produced as a whole for each view.
            source = leaf.storage.source
            parts = isinstance(source, Bulk) and source.in_pieces(leaf.storage)
            budget -= spec.nbytes if parts else leaf.storage.nbytes
            if budget < 0:
                skipped += 1
                continue
            counts[key] = _count_not_finite(Leaf(spec, leaf.storage))
        if counts[key]:
            text = f"{counts[key]:,} of its {spec.numel:,} elements are NaN or infinite"
            found.append(Finding("warning", path, text))
    if skipped:
        found.append(Finding("note", "", f"{skipped:,} further views of the same bytes were not checked for NaN"))
    return found


def _once(spec: Spec) -> Spec:
    """Return a spec with each element of the tensor at most once: expanded dimensions become the range that they cover."""
    span = spec.reach - spec.offset
    return spec if spec.numel <= span else contiguous(spec.dtype, (span,), spec.offset)


def _count_not_finite(leaf: Leaf) -> int:
    import numpy as np

    from statedict.state import read_array

    array = read_array(leaf)
    parts = [array[name] for name in array.dtype.names] if array.dtype.names else [array]
    # NumPy warns of signalling NaNs in bfloat16.
    with np.errstate(invalid="ignore"):
        return sum(int(np.count_nonzero(~np.isfinite(part))) for part in parts)
