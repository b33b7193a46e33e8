"""A Checkpoint: what a file (or a directory) holds, seen without running anything of it and before its tensors are read."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from types import TracebackType
from typing import Any, Literal, NamedTuple, Self

from statedict.state import Absent, Bulk, Leaf, Spec, StateDict, arguments, contiguous

from ...errors import UnsafeFileError, printable
from .._pickle import Import
from ._allowed import is_allowed
from ._walk import leaves

# Bytes of elements that `verify(values=True)` looks at in any file, and four times its size beyond them.
FLOOR = 64 << 20

# Names in a file's metadata that are about the format: torch's facts, safetensors' word for PyTorch, an index's totals.
OF_FORMATS = frozenset(
    {"version", "byteorder", ".format_version", ".storage_alignment", "format", "total_size", "shards"}
)


class Finding(NamedTuple):
    """One thing that `Checkpoint.verify` found.

    Attributes:
        level: `"error"`: the content is not what was written, or would run code under pickle; `"warning"`: it is whole,
            and may surprise; `"note"`: worth knowing.
        where: the tensor, or the part of the file.
        text: what is the matter.
    """

    level: Literal["error", "warning", "note"]
    where: str
    text: str

    def __str__(self) -> str:
        return printable(f"{self.level}: {self.where}: {self.text}" if self.where else f"{self.level}: {self.text}")


class Checkpoint:
    """An open file of saved state. Use it as a context, or `close` it; what was read from it stays.

    Attributes:
        path: where it lies, as it was given.
        format: `"torch"`, `"safetensors"` …: a name of the table of formats.
        producer: what wrote it, as far as the bytes tell.
        size: bytes of the file, or files.
        object: what was saved, as an inert tree: dicts, lists and plain values; tensors are Leafs and Compounds, values of
            unknown classes Opaque.
        notes: what is odd but harmless, in words.
        metadata: what the format says beside the tensors (versions, byte order, a safetensors header's metadata).

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
    ) -> None:
        self.path = path
        self.format = format
        self.object = object
        self.size = size
        self.producer = producer
        self._globals = list(globals)
        self._more_globals = more_globals
        self.notes = list(notes)
        self.metadata = dict(metadata or {})
        self._checks = checks
        self._close = close
        self._roots: dict[str, StateDict] | None = None

    @property
    def roots(self) -> dict[str, StateDict]:
        """Every state dict in the file, by its path (`"model"`, `"ema/state_dict"`; `""` is the file itself)."""
        from ._roots import find_roots

        if self._roots is None:
            self._roots = find_roots(self.object)
            for state in self._roots.values():
                state.texts = self.texts
        return self._roots

    @property
    def texts(self) -> dict[str, str]:
        """The text that was kept with the file, by name: its metadata without what the format says of itself."""
        return {name: text for name, text in self.metadata.items() if name not in OF_FORMATS}

    def state_dict(self, root: str = "auto") -> StateDict:
        """The state dict at `root`; `"auto"`: the one that the file is about.

        A root under which there are only nested dicts of tensors is given with dotted names.

        Raises RootError, which lists the choices, where there is none or `"auto"` is ambiguous.
        """
        from ._choose_root import choose_root

        return choose_root(self.roots, root, self.path, tree=self.object)

    @property
    def globals(self) -> list[Import]:
        """Every import that a pickle in the file names, with its risk.

        Pickles that had not to be read so far (those of the pieces of a distributed checkpoint) are.
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
        """Raise UnsafeFileError where the file names imports that would run code under pickle, but for those that the
        program has allowed (`torch.serialization.add_safe_globals`)."""
        refused = [named.path for named in self.globals if named.risk == "dangerous" and not is_allowed(named)]
        if refused:
            raise UnsafeFileError(
                f"unpickling it would run code: it imports {', '.join(refused)}",
                imports=refused,
                file=self.path,
                hint="nothing of it was run; statedict.open shows what it holds",
            )

    def verify(self, values: bool = False) -> list[Finding]:
        """What is wrong with the file, the worst first; an empty list where it is sound and has checksums that prove it.

        Structure was checked when it was opened; this checks every byte that has a checksum, lists imports that would run
        code and, with `values`, tensors that hold NaN or Inf.
        """
        arguments.flags(values=values)
        found = [Finding("error", "imports", f"{path} would run code under pickle") for path in self.dangerous]
        found += self._checks()
        found += [Finding("note", "", note) for note in self.notes]
        if values:
            found += _not_finite(self.object, 4 * self.size + FLOOR)
        return sorted(found, key=lambda finding: ("error", "warning", "note").index(finding.level))

    def close(self) -> None:
        """Give the file back. Tensors that were not read cannot be read afterwards."""
        self._more_globals = None
        self._close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Checkpoint {os.path.basename(self.path)!r}: {self.format}, {self.size:,} bytes>"

    def _repr_html_(self) -> str:
        from ._checkpoint_html import checkpoint_html

        return checkpoint_html(self)


def _not_finite(tree: object, budget: int) -> list[Finding]:
    """A warning for each tensor that holds NaN or Inf; reads them one at a time, and `budget` bytes of elements at most:
    a small file can show its bytes in any number of views."""
    found: list[Finding] = []
    counts: dict[tuple[Hashable, Spec], int] = {}
    skipped = 0
    for path, leaf in leaves(tree):
        if isinstance(leaf, Absent) or not leaf.spec.numel or leaf.spec.dtype.kind not in ("float", "complex"):
            continue
        spec = _once(leaf.spec)
        key = leaf.storage.key, spec
        if key not in counts:
            # A storage that has to be inflated, or put together, is made as a whole for each view.
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
        found.append(Finding("note", "", f"{skipped:,} further views of the same bytes were not searched for NaN"))
    return found


def _once(spec: Spec) -> Spec:
    """The elements that a tensor shows, none of them more than once: expanded ones are the range that they lie in."""
    span = spec.reach - spec.offset
    return spec if spec.numel <= span else contiguous(spec.dtype, (span,), spec.offset)


def _count_not_finite(leaf: Leaf) -> int:
    import numpy as np

    from statedict.state import read_array

    array = read_array(leaf)
    if array.dtype.names:
        return sum(int(np.count_nonzero(~np.isfinite(array[part]))) for part in array.dtype.names)
    return int(np.count_nonzero(~np.isfinite(array)))
