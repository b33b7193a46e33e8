"""Every error that this library raises on purpose.

    StateDictError
    ├── LoadError (RuntimeError)             a state does not fit a model or optimizer; nothing was changed
    ├── NotAStateError (TypeError)           the value given is not a state dict, or one of its names is not a string
    ├── UnknownNameError (KeyError)          a name that is not in the state dict or the module
    ├── CollisionError (ValueError)          two sources for one name
    ├── MergeError (ValueError)              states that are to be merged do not have the same names or shapes
    ├── RootError (LookupError)              the file holds no state dict there, or several and none was chosen
    ├── SaveError (ValueError)               a value cannot be written in the format asked for; no file was touched
    ├── DiskFullError (OSError)              there is no room for the file; the old one is as it was
    ├── FileChangedError (OSError)           a file changed while it was being read
    ├── RemoteError (OSError)                a server did not give a file, or the part of it that was asked for
    ├── AfterSaveError (OSError)             a checkpoint was saved, but what had to follow failed
    ├── LockedError (RuntimeError)           a run's directory is being written by somebody else
    ├── RunGoneError (FileNotFoundError)     a run's directory is not there any more; its checkpoints went where it went
    ├── RunDeniedError (PermissionError)     a run's directory may not be written to; what is in it is as it was
    ├── MissingDependencyError (ImportError) an optional package is needed for this
    └── FormatError (ValueError)             a file is not what it should be
        ├── UnknownFormatError               its bytes are no format that is read here
        ├── TruncatedError (EOFError)        it ends too early
        ├── ChecksumError                    its bytes are not those that were written
        ├── BoundsError                      a tensor, or a read, reaches beyond the storage it belongs to
        ├── LimitError                       reading it would cost more than `Limits` allows
        └── UnsafeFileError                  it names imports that would run code under pickle

Each is also the builtin that a caller would expect, carries its facts as fields, and builds its text from them: which
file, name and byte offset, what was expected and found, what to do. Names come from files: what could command a terminal
or break a line is escaped where they become text.
"""

from __future__ import annotations

import errno
from collections.abc import Sequence


def printable(text: str, keep: str = "") -> str:
    """The text with an escape for each character that is not visible, but for those to keep: a name out of a file cannot
    move the cursor, begin a line of its own, or turn the direction of what follows it.

    >>> printable("a\\x1b[2Jb\\n")
    'a\\\\x1b[2Jb\\\\n'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


class StateDictError(Exception):
    """The root of this library's errors.

    >>> import statedict
    >>> try:
    ...     statedict.state_dict(3)
    ... except statedict.StateDictError as error:
    ...     print(error)
    a int has no state: it is no module, and has no state_dict method
    """

    def __str__(self) -> str:
        return printable(self._text())

    def _text(self) -> str:
        return super().__str__()


class LoadError(StateDictError, RuntimeError):
    """A state does not fit a model or optimizer; nothing was changed.

    `report` is the LoadReport of the attempt where there is one. The text begins as PyTorch's.

    >>> import torch, statedict
    >>> try:
    ...     statedict.load_state_dict(torch.nn.Linear(2, 2), {"weight": torch.zeros(2, 2)})
    ... except statedict.LoadError as error:
    ...     print(error.report.missing)
    ['bias']
    """

    def __init__(self, text: str, *, report: object = None) -> None:
        super().__init__(text)
        self.report = report

    def __str__(self) -> str:
        # Its lines are its own: whoever writes them escapes the names.
        return printable(self._text(), keep="\n\t")


class NotAStateError(StateDictError, TypeError):
    """The value given is not a state dict, or one of its names is not a string."""


class UnknownNameError(StateDictError, KeyError):
    """A name that is not in the state dict or the module; `near` are the closest ones that are."""

    def __init__(self, name: str, *, among: str = "the state dict", near: Sequence[str] = ()) -> None:
        super().__init__(name)
        self.name = name
        self.among = among
        self.near = tuple(near)

    def _text(self) -> str:
        hint = f"; did you mean {' or '.join(map(repr, self.near))}?" if self.near else ""
        return f"{self.name!r} is not in {self.among}{hint}"


class CollisionError(StateDictError, ValueError):
    """Two sources for one name."""

    def __init__(self, name: str, sources: Sequence[str]) -> None:
        super().__init__(name, tuple(sources))
        self.name = name
        self.sources = tuple(sources)

    def _text(self) -> str:
        return f"{' and '.join(map(repr, self.sources))} would both become {self.name!r}"


class MergeError(StateDictError, ValueError):
    """States that are to be merged do not have the same names or shapes; `names` are those that differ."""

    def __init__(self, reason: str, *, names: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.names = tuple(names)


class RootError(StateDictError, LookupError):
    """The file holds no state dict at that root, or several and none was chosen; `choices` are those it holds."""

    def __init__(self, reason: str, *, file: str | None = None, choices: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.reason = reason
        self.file = file
        self.choices = tuple(choices)

    def _text(self) -> str:
        where = f"{self.file}: " if self.file else ""
        listed = f"; choose one with root=: {', '.join(map(repr, self.choices))}" if self.choices else ""
        return f"{where}{self.reason}{listed}"


class SaveError(StateDictError, ValueError):
    """A value cannot be written in the format asked for; no file was touched."""


class DiskFullError(StateDictError, OSError):
    """There is no room for the file; the old one is as it was."""

    def __init__(self, file: str, *, needed: int, free: int) -> None:
        super().__init__(errno.ENOSPC, "no room", file)
        self.file = file
        self.needed = needed
        self.free = free

    def _text(self) -> str:
        return (
            f"{self.file}: {self.needed:,} bytes are needed and {self.free:,} are free; "
            "nothing was written. Free some room, or save elsewhere"
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
    """A server did not give a file, or the part of it that was asked for, in `tries` tries; `file` is its URL."""

    def __init__(self, file: str, what: str, *, tries: int = 1) -> None:
        super().__init__(file, what)
        self.file = file
        self.what = what
        self.tries = tries

    def _text(self) -> str:
        return f"{self.file}: {self.what}" + (f" (tried {self.tries} times)" if self.tries > 1 else "")


class AfterSaveError(StateDictError, OSError):
    """A checkpoint was saved, but what had to follow failed: flushing its name, or deleting older checkpoints.

    `directory` is the run's, `step` the checkpoint's; `what` says what failed, and `reason` why.
    """

    def __init__(self, directory: str, step: int, what: str, reason: str) -> None:
        super().__init__(directory, step, what, reason)
        self.directory = directory
        self.step = step
        self.what = what
        self.reason = reason

    def _text(self) -> str:
        done = f"{self.directory}: step {self.step} was saved"
        return f"{done}, but {self.what} failed: {self.reason}; the next save tries again"


class LockedError(StateDictError, RuntimeError):
    """A run's directory is being written by somebody else; `holder` is what they left there of themselves.

    `own`: it is another manager of this very process.
    """

    def __init__(self, directory: str, holder: str, *, own: bool = False) -> None:
        super().__init__(directory, holder)
        self.directory = directory
        self.holder = holder
        self.own = own

    def _text(self) -> str:
        by = f" by {self.holder}" if self.holder else ""
        if self.own:
            return (
                f"{self.directory}: this run is being written{by}, which is this process: by another manager, which is in "
                "its `with` block or was made later. Save with that one, or close it first"
            )
        return (
            f"{self.directory}: this run is being written{by}; two runs in one directory would delete each other's "
            "checkpoints. Give each its own directory, or end the other"
        )


class RunGoneError(StateDictError, FileNotFoundError):
    """A run's directory is not there any more; its checkpoints went where it went.

    `saved` is the step that was saved in it just before, if one was.
    """

    def __init__(self, directory: str, *, saved: int | None = None) -> None:
        super().__init__(errno.ENOENT, "the run's directory is gone", directory)
        self.directory = directory
        self.saved = saved

    def _text(self) -> str:
        done = "Nothing was saved" if self.saved is None else f"Step {self.saved} was saved in it just before"
        return (
            f"{self.directory}: the run's directory is gone: it was deleted or renamed, or its disk was unmounted. {done}. "
            "Put it back, or make an empty one to go on without the old checkpoints; the next save works then"
        )


class RunDeniedError(StateDictError, PermissionError):
    """A run's directory may not be written to; what is in it is as it was."""

    def __init__(self, directory: str, reason: str) -> None:
        super().__init__(errno.EACCES, reason, directory)
        self.directory = directory
        self.reason = reason

    def _text(self) -> str:
        return (
            f"{self.directory}: the run's directory may not be written to ({self.reason}). Nothing was saved, and what is "
            "there is as it was. Give this user the right to write, or make the disk writable; the next save works then"
        )


class MissingDependencyError(StateDictError, ImportError):
    """An optional package is needed for this."""

    def __init__(self, package: str, *, needed_for: str, extra: str | None = None) -> None:
        super().__init__(package)
        self.package = package
        self.needed_for = needed_for
        self.extra = extra

    def _text(self) -> str:
        command = f"statedict[{self.extra}]" if self.extra else self.package
        return f"{self.needed_for} needs the package {self.package!r}: pip install '{command}'"


class FormatError(StateDictError, ValueError):
    """A file is not what it should be.

    `reason` says what is wrong in words; `file`, `member` (the record or tensor inside the file) and `offset` (bytes
    from the start of the member, or of the file where there is no member) say where; `hint` says what to do.
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
        """This error with the file and member filled in where they are not known yet; returns itself, to be raised."""
        self.file = self.file or file
        self.member = self.member or member
        return self


class UnknownFormatError(FormatError):
    """The file's bytes are no format that is read here."""


class TruncatedError(FormatError, EOFError):
    """The file ends too early."""


class ChecksumError(FormatError):
    """The file's bytes are not those that were written."""


class BoundsError(FormatError):
    """A tensor, or a read, reaches beyond the storage it belongs to."""


class LimitError(FormatError):
    """Reading the file would cost more than `Limits` allows."""


class UnsafeFileError(FormatError):
    """The file names imports that would run code under pickle; `imports` are they, as `module.name`."""

    def __init__(
        self,
        reason: str,
        *,
        imports: Sequence[str] = (),
        file: str | None = None,
        member: str | None = None,
        offset: int | None = None,
        hint: str | None = None,
    ) -> None:
        super().__init__(reason, file=file, member=member, offset=offset, hint=hint)
        self.imports = tuple(imports)
