"""Errors carry their facts, are the builtins that a caller would expect, and say what to do."""

import pytest

from statedict import errors


@pytest.mark.parametrize(
    ("error", "builtin", "text"),
    [
        (errors.LoadError("Error(s) in loading"), RuntimeError, "Error(s) in loading"),
        (errors.UnknownNameError("a", near=["b"]), KeyError, "'a' is not in the state dict; did you mean 'b'?"),
        (errors.CollisionError("x", ["a", "b"]), ValueError, "'a' and 'b' would both become 'x'"),
        (
            errors.PartError((8, 3), "[Shard(0) of 4]", ["[2, 3] at [0, 0]"], "all of it is needed"),
            ValueError,
            "only a part of this tensor of shape [8, 3] ([Shard(0) of 4]) is here: [2, 3] at [0, 0]; all of it is needed",
        ),
        (
            errors.PartError((8, 3), "", [], "all of it is needed"),
            ValueError,
            "only a part of this tensor of shape [8, 3] is here: no element; all of it is needed",
        ),
        (
            errors.RootError("several", file="f.pt", choices=["model", "ema"]),
            LookupError,
            "f.pt: several. Available: 'model', 'ema'; choose one with root=",
        ),
        (
            errors.DiskFullError("f.pt", needed=2000, free=10),
            OSError,
            "f.pt: 2,000 bytes are needed, but only 10 are free; nothing was written. Free some disk space, or save to "
            "another disk",
        ),
        (
            errors.FileChangedError("f.pt", "its size"),
            OSError,
            "f.pt: the file changed while it was being read (its size); open it again",
        ),
        (
            errors.RemoteError("s3://b/f.pt", "the server answered HTTP 503", tries=5),
            OSError,
            "s3://b/f.pt: the server answered HTTP 503 (tried 5 times)",
        ),
        (
            errors.RankError({1: "no file", 3: "Error(s) in loading"}),
            RuntimeError,
            "rank 1 failed: no file; rank 3 failed: Error(s) in loading",
        ),
        (
            errors.LockedError("runs/a", "process 7 on host"),
            RuntimeError,
            "runs/a: this run is being written by process 7 on host; two runs in one directory would delete each "
            "other's checkpoints. Use a separate directory for each run, or stop the other one",
        ),
        (
            errors.LockedError("runs/a", "process 7 on host", own=True),
            RuntimeError,
            "runs/a: another manager in this process is writing this run: it is in its `with` block or was created later. "
            "Save with that manager, or close it first",
        ),
        (
            errors.AfterSaveError("runs/a", 7, "deleting older checkpoints", "Permission denied"),
            OSError,
            "runs/a: step 7 was saved, but deleting older checkpoints failed: Permission denied; the next save tries again",
        ),
        (
            errors.RunGoneError("runs/a", saved=7),
            FileNotFoundError,
            "runs/a: the run's directory is gone: it was deleted or renamed, or its disk was unmounted. Step 7 was saved to "
            "it just before. Restore it, or create an empty one to continue without the old checkpoints; then save again",
        ),
        (
            errors.RunGoneError("runs/a"),
            FileNotFoundError,
            "runs/a: the run's directory is gone: it was deleted or renamed, or its disk was unmounted. Nothing was saved. "
            "Restore it, or create an empty one to continue without the old checkpoints; then save again",
        ),
        (
            errors.RunDeniedError("runs/a", "Read-only file system"),
            PermissionError,
            "runs/a: the run's directory is not writable (Read-only file system). Nothing was saved, and its content is "
            "unchanged. Give this user write permission, or make the disk writable; then save again",
        ),
        (
            errors.MissingDependencyError("torch", needed_for="this", extra="torch"),
            ImportError,
            "this needs the package 'torch': pip install 'statedict[torch]'",
        ),
        (
            errors.TruncatedError("cut", file="f.pt", member="data/0", offset=1234, hint="fetch it again"),
            EOFError,
            "f.pt: data/0 at byte 1,234: cut (fetch it again)",
        ),
        (errors.FormatError("bad"), ValueError, "bad"),
        (errors.FormatError("bad").located(file="f", member="m"), ValueError, "f: m: bad"),
        (errors.UnsafeFileError("runs code", imports=["os.system"], file="f"), ValueError, "f: runs code"),
    ],
)
def test_an_error_says_where_what_and_what_to_do(error, builtin, text):
    """Each error is a StateDictError and its builtin, and its text is built from its fields."""
    assert isinstance(error, errors.StateDictError)
    assert isinstance(error, builtin)
    assert text == str(error)


def test_every_error_is_in_the_tree():
    """The tree drawn at the top of errors.py names every class of the module."""
    classes = {n for n, c in vars(errors).items() if isinstance(c, type) and issubclass(c, errors.StateDictError)}
    assert all(name in errors.__doc__ for name in classes)
