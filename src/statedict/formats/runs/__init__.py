"""Folders with the checkpoints of a run.

`_manifest` describes a checkpoint of CheckpointManager, and `_step` opens one: its files are known by the manifest. `_index`
says which folders in an object store are checkpoints.
`_steps` finds the checkpoints of another framework's run, `_listing` describes them, and `_newest` opens the newest one of
any run.

Writing and deleting checkpoints belongs to `statedict.training`, which knows them by the names below.
"""

from .._run_names import (
    INDEX,
    LARGEST_STEP,
    LOCK,
    MANIFEST,
    RANDOM,
    VALUES,
    is_unique_name,
    name_of,
    own_steps,
    unique_name,
)
from ._index import ATTEMPTS, RunIndex, always_changed, parse_index
from ._json_values import survives
from ._listing import RunStep, steps
from ._manifest import (
    FileFacts,
    Manifest,
    NewerVersionError,
    check_file,
    check_step,
    dump,
    missing_manifest,
    parse,
    read,
    read_open,
)

__all__ = [
    "ATTEMPTS", "FileFacts", "INDEX", "LARGEST_STEP", "LOCK", "MANIFEST", "Manifest", "NewerVersionError", "RANDOM",
    "RunIndex", "RunStep", "VALUES", "always_changed", "check_file", "check_step", "dump", "is_unique_name",
    "missing_manifest", "name_of", "own_steps", "parse", "parse_index", "read", "read_open", "steps", "survives",
    "unique_name",
]  # fmt: skip
