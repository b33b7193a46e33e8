"""Every error that this library raises on purpose.

    StateDictError
    ├── LoadError (RuntimeError)             a state does not fit a model or optimizer; nothing was changed
    ├── NotAStateError (TypeError)           the value given is not a state dict, or one of its names is not a string
    ├── UnknownNameError (KeyError)          a name is not in the state dict or the module
    ├── CollisionError (ValueError)          two source tensors have the same target name
    ├── MapError (ValueError)                a key map's file is not valid, or the map does not apply
    ├── PartError (ValueError)               a process or a file has only a part of a tensor, and more of it is needed
    ├── MergeError (ValueError)              the states to merge do not have the same names or shapes
    ├── RootError (LookupError)              the file has no state dict there, or has several and none was chosen
    ├── SaveError (ValueError)               a value cannot be written in the chosen format; no file was changed
    ├── DiskFullError (OSError)              there is not enough disk space; the old file is unchanged
    ├── FileChangedError (OSError)           a file changed while it was being read
    ├── RemoteError (OSError)                a server did not return a file, or the requested part of it
    ├── ConflictError (OSError)              another writer has created or replaced an object in a store
    ├── AfterSaveError (OSError)             a checkpoint was saved, but a step after it failed
    ├── LockedError (RuntimeError)           another process or manager is writing to the run's directory
    ├── RunGoneError (FileNotFoundError)     the run's directory no longer exists
    ├── RunDeniedError (PermissionError)     the run's directory is not writable; its content is unchanged
    ├── RankError (RuntimeError)             another process of the same job failed
    ├── MissingDependencyError (ImportError) an optional package is needed
    └── FormatError (ValueError)             a file is damaged or not valid
        ├── UnknownFormatError               its format is not supported
        ├── TruncatedError (EOFError)        it ends too early
        ├── ChecksumError                    its content does not match its checksum
        ├── BoundsError                      a tensor, or a read, extends beyond its storage
        ├── LimitError                       reading it would exceed `Limits`
        ├── UnsafeFileError                  it names imports that would run code under pickle
        └── PluginError                      the plugin that reads its format failed

Each class also derives from the builtin exception that a caller would expect, has fields, and builds its text from them:
which file, name and byte offset, what was expected and found, what to do. Names may come from untrusted files: control
characters and line breaks in them are escaped in the text.
"""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from typing import Any


def printable(text: str, keep: str = "") -> str:
    """Escape every character that is not printable, except those in `keep`.

    A name from a file then cannot move the cursor, start a new line, or reverse the direction of the text after it.

    >>> printable("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


class StateDictError(Exception):
    """The base class of this library's errors.

    >>> import statedict
    >>> try:
    ...     statedict.state_dict(3)
    ... except statedict.StateDictError as error:
    ...     print(error)
    an int has no state: it is not a module and has no state_dict method
    """

    # Control characters that the text may contain.
    _kept = ""

    def __str__(self) -> str:
        return printable(self._text(), self._kept)

    def _text(self) -> str:
        return super().__str__()


class LoadError(StateDictError, RuntimeError):
    """A state does not fit a model or optimizer; nothing was changed.

    `report` is the LoadReport of the attempt, or None. The text begins as PyTorch's.

    >>> import torch, statedict
    >>> try:
    ...     statedict.load_state_dict(torch.nn.Linear(2, 2), {"weight": torch.zeros(2, 2)})
    ... except statedict.LoadError as error:
    ...     print(error.report.missing)
    ['bias']
    """

    # The text has several lines; the code that builds it has already escaped the names.
    _kept = "\n\t"

    def __init__(self, text: str, *, report: Any = None) -> None:
        super().__init__(text)
        self.report = report


class NotAStateError(StateDictError, TypeError):
    """The value given is not a state dict, or one of its names is not a string."""


class UnknownNameError(StateDictError, KeyError):
    """A name is not in the state dict or the module; `near` lists the closest names that are."""

    def __init__(self, name: str, *, among: str = "the state dict", near: Sequence[str] = ()) -> None:
        super().__init__(name)
        self.name = name
        self.among = among
        self.near = tuple(near)

    def _text(self) -> str:
        hint = f"; did you mean {' or '.join(map(repr, self.near))}?" if self.near else ""
        return f"{self.name!r} is not in {self.among}{hint}"


class CollisionError(StateDictError, ValueError):
    """Two source tensors have the same target name."""

    def __init__(self, name: str, sources: Sequence[str]) -> None:
        super().__init__(name, tuple(sources))
        self.name = name
        self.sources = tuple(sources)

    def _text(self) -> str:
        return f"{' and '.join(map(repr, self.sources))} would both become {self.name!r}"


class MapError(StateDictError, ValueError):
    """A key map's file is not valid, or the map does not apply to a state.

    Attributes:
        file: the file, or the name of a map that comes with the package.
        line: the line in the file, counted from 1; None if the error does not belong to one.
        reason: what is wrong, and what to do.
    """

    def __init__(self, file: str, line: int | None, reason: str) -> None:
        super().__init__(file, line, reason)
        self.file = file
        self.line = line
        self.reason = reason

    def _text(self) -> str:
        return f"{self.file}{'' if self.line is None else f', line {self.line}'}: {self.reason}"


class PartError(StateDictError, ValueError):
    """Elements of a tensor are needed that this process, or this file, does not have.

    Attributes:
        shape: the shape of the whole tensor.
        placement: how the tensor is divided.
        here: the boxes that are here, as text.
        where: the file and the tensor's name, if they are known.
    """

    def __init__(self, shape: Sequence[int], placement: str, here: Sequence[str], needed: str, where: str = "") -> None:
        super().__init__(tuple(shape), placement, list(here), needed, where)
        self.shape = tuple(shape)
        self.placement = placement
        self.here = list(here)
        self.needed = needed
        self.where = where

    def _text(self) -> str:
        where = f"{self.where}: " if self.where else ""
        here = ", ".join(self.here) or "no element"
        how = f" ({self.placement})" if self.placement else ""
        return f"{where}only a part of this tensor of shape {list(self.shape)}{how} is here: {here}; {self.needed}"


class MergeError(StateDictError, ValueError):
    """The states to merge do not have the same names or shapes; `names` lists those that differ."""

    def __init__(self, reason: str, *, names: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.names = tuple(names)


class RootError(StateDictError, LookupError):
    """The file has no state dict at that root, or has several and none was chosen; `choices` lists the available ones."""

    def __init__(self, reason: str, *, file: str | None = None, choices: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = file
        self.choices = tuple(choices)

    def _text(self) -> str:
        where = f"{self.file}: " if self.file else ""
        named = ("'' (the whole file)" if choice == "" else repr(choice) for choice in self.choices)
        end = "" if self.reason.endswith("?") else "."
        listed = f"{end} Available: {', '.join(named)}; choose one with root=" if self.choices else ""
        return f"{where}{self.reason}{listed}"


class SaveError(StateDictError, ValueError):
    """A value cannot be written in the chosen format; no file was changed."""


class DiskFullError(StateDictError, OSError):
    """There is not enough disk space for the file; the old file is unchanged."""

    def __init__(self, file: str, *, needed: int, free: int) -> None:
        super().__init__(errno.ENOSPC, "no room", file)
        self.file = file
        self.needed = needed
        self.free = free

    def _text(self) -> str:
        return (
            f"{self.file}: {self.needed:,} bytes are needed, but only {self.free:,} are free; "
            "nothing was written. Free some disk space, or save to another disk"
        )


class FileChangedError(StateDictError, OSError):
    """A file changed while it was being read."""

    def __init__(self, file: str, what: str) -> None:
        super().__init__(file, what)
        self.file = file
        self.what = what

    def _text(self) -> str:
        return f"{self.file}: the file changed while it was being read ({self.what}); open it again"


class RemoteError(StateDictError, OSError):
    """A server did not return a file, or the requested part of it, in `tries` attempts; `file` is its URL."""

    def __init__(self, file: str, what: str, *, tries: int = 1) -> None:
        super().__init__(file, what)
        self.file = file
        self.what = what
        self.tries = tries

    def _text(self) -> str:
        return f"{self.file}: {self.what}" + (f" (tried {self.tries} times)" if self.tries > 1 else "")


class ConflictError(StateDictError, OSError):
    """Another writer has created, replaced or deleted an object in a store, so it was not written; `file` is its URL."""

    def __init__(self, file: str) -> None:
        super().__init__(errno.EEXIST, "not as expected", file)
        self.file = file

    def _text(self) -> str:
        return f"{self.file}: another writer has changed this object; nothing was written"


class AfterSaveError(StateDictError, OSError):
    """A checkpoint was saved, but a step after it failed: flushing its entry, deleting older checkpoints, or `after_save`.

    `directory` is the run's, `step` the checkpoint's; `what` names what failed, `reason` says why, `hint` what follows.
    """

    def __init__(
        self, directory: str, step: int, what: str, reason: str, hint: str = "the next save tries again"
    ) -> None:
        super().__init__(directory, step, what, reason, hint)
        self.directory = directory
        self.step = step
        self.what = what
        self.reason = reason
        self.hint = hint

    def _text(self) -> str:
        done = f"{self.directory}: step {self.step} was saved"
        return f"{done}, but {self.what} failed: {self.reason}; {self.hint}"


class LockedError(StateDictError, RuntimeError):
    """Another process or manager is writing to the run's directory; `holder` describes it, as far as is known.

    `own` is True if it is another manager in this process; `hint` says more about the other one.
    """

    def __init__(self, directory: str, holder: str, *, own: bool = False, hint: str = "") -> None:
        super().__init__(directory, holder)
        self.hint = hint
        self.directory = directory
        self.holder = holder
        self.own = own

    def _text(self) -> str:
        by = f" by {self.holder}" if self.holder else ""
        if self.own:
            return (
                f"{self.directory}: another manager in this process is writing this run: it is in its `with` block or was "
                "created later. Save with that manager, or close it first"
            )
        return (
            f"{self.directory}: this run is being written{by}; two runs in one directory would delete each other's "
            "checkpoints. Use a separate directory for each run, or stop the other one"
            + (f"; {self.hint}" if self.hint else "")
        )


class RunGoneError(StateDictError, FileNotFoundError):
    """The run's directory no longer exists, and neither do its checkpoints at that path.

    `saved` is the step that was saved to it just before, or None.
    """

    def __init__(self, directory: str, *, saved: int | None = None) -> None:
        super().__init__(errno.ENOENT, "the run's directory is gone", directory)
        self.directory = directory
        self.saved = saved

    def _text(self) -> str:
        done = "Nothing was saved" if self.saved is None else f"Step {self.saved} was saved to it just before"
        return (
            f"{self.directory}: the run's directory is gone: it was deleted or renamed, or its disk was unmounted. {done}. "
            "Restore it, or create an empty one to continue without the old checkpoints; then save again"
        )


class RunDeniedError(StateDictError, PermissionError):
    """The run's directory is not writable; its content is unchanged."""

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(errno.EACCES, reason, directory)
        self.directory = directory
        self.reason = reason

    def _text(self) -> str:
        return (
            f"{self.directory}: the run's directory is not writable ({self.reason}). Nothing was saved, and its content is "
            "unchanged. Give this user write permission, or make the disk writable; then save again"
        )


class RankError(StateDictError, RuntimeError):
    """Another process (rank) of the same job failed, so this one stopped, too.

    `failed` maps each rank that failed to the text of its error.
    """

    _kept = LoadError._kept

    def __init__(self, failed: Mapping[int, str]) -> None:
        super().__init__(failed)
        self.failed = dict(failed)

    def _text(self) -> str:
        return "; ".join(f"rank {rank} failed: {text}" for rank, text in self.failed.items())


class MissingDependencyError(StateDictError, ImportError):
    """An optional package is needed."""

    def __init__(self, package: str, *, needed_for: str, extra: str | None = None) -> None:
        super().__init__(package)
        self.package = package
        self.needed_for = needed_for
        self.extra = extra

    def _text(self) -> str:
        command = f"statedict[{self.extra}]" if self.extra else self.package
        return f"{self.needed_for} needs the package {self.package!r}: pip install '{command}'"


class FormatError(StateDictError, ValueError):
    """A file is damaged or not valid.

    `reason` says what is wrong; `file`, `member` (the record or tensor inside the file) and `offset` (bytes from the
    start of the member, or of the file if there is no member) say where; `hint` says what to do.
    """

    def __init__(
        self,
        reason: str,
        *,
        file: str | None = None,
        member: str | None = None,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = file
        self.member = member
        self.offset = offset
        self.hint = hint

    def _text(self) -> str:
        where = ": ".join(part for part in (self.file, self.member) if part)
        at = f" at byte {self.offset:,}" if self.offset is not None else ""
        place = f"{where}{at}: " if where or at else ""
        return f"{place}{self.reason}" + (f" ({self.hint})" if self.hint else "")

    def located(self, *, file: str | None = None, member: str | None = None) -> FormatError:
        """Fill in the file and member if they are not set yet; return this error, to be raised."""
        self.file = self.file or file
        self.member = self.member or member
        return self


class UnknownFormatError(FormatError):
    """The format of the file is not supported."""


class TruncatedError(FormatError, EOFError):
    """The file ends too early."""


class ChecksumError(FormatError):
    """The file's content does not match its checksum."""


class BoundsError(FormatError):
    """A tensor, or a read, extends beyond its storage."""


class LimitError(FormatError):
    """Reading the file would exceed `Limits`."""


class UnsafeFileError(FormatError):
    """The file names imports that would run code under pickle; `imports` lists them as `module.name`."""

    def __init__(self, reason: str, *, imports: Sequence[str] = (), **where: Any) -> None:
        super().__init__(reason, **where)
        self.imports = tuple(imports)


class PluginError(FormatError):
    """The plugin that reads the file's format failed; `plugin` names it and its distribution."""

    def __init__(self, plugin: str, problem: str, **where: Any) -> None:
        super().__init__(f"the plugin {plugin} {problem}", **where)
        self.plugin = plugin
