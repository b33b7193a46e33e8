"""Folders with the checkpoints of a run.

`_manifest` describes a checkpoint of CheckpointManager, and `_step` opens one: its files are known by the manifest. `_index`
says which folders in an object store are checkpoints.
`_steps` finds the checkpoints of another framework's run, `_listing` describes them, and `_newest` opens the newest one of
any run.

Writing and deleting checkpoints belongs to `statedict.training`, which knows them by the names below.
"""

from .._run_names import INDEX as INDEX
from .._run_names import LARGEST_STEP as LARGEST_STEP
from .._run_names import LOCK as LOCK
from .._run_names import MANIFEST as MANIFEST
from .._run_names import RANDOM as RANDOM
from .._run_names import VALUES as VALUES
from .._run_names import is_unique_name as is_unique_name
from .._run_names import name_of as name_of
from .._run_names import own_steps as own_steps
from .._run_names import unique_name as unique_name
from ._index import ATTEMPTS as ATTEMPTS
from ._index import RunIndex as RunIndex
from ._index import always_changed as always_changed
from ._index import parse_index as parse_index
from ._json_values import survives as survives
from ._listing import RunStep as RunStep
from ._listing import steps as steps
from ._manifest import FileFacts as FileFacts
from ._manifest import Manifest as Manifest
from ._manifest import NewerVersionError as NewerVersionError
from ._manifest import check_file as check_file
from ._manifest import check_step as check_step
from ._manifest import dump as dump
from ._manifest import missing_manifest as missing_manifest
from ._manifest import parse as parse
from ._manifest import read as read

__all__ = [
    "ATTEMPTS",
    "INDEX",
    "LARGEST_STEP",
    "LOCK",
    "MANIFEST",
    "RANDOM",
    "VALUES",
    "FileFacts",
    "Manifest",
    "NewerVersionError",
    "RunStep",
    "RunIndex",
    "always_changed",
    "check_file",
    "check_step",
    "dump",
    "is_unique_name",
    "missing_manifest",
    "name_of",
    "own_steps",
    "parse",
    "parse_index",
    "read",
    "steps",
    "survives",
    "unique_name",
]
