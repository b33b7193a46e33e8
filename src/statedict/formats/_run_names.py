"""Names in the directory of a run: of the checkpoints of each framework, and of the files and folders that lead to them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable

# Our own checkpoints, saved by CheckpointManager (in an object store, with a suffix that each save has of its own), and the
# manifest in each.
OWN = re.compile(r"step-([0-9]{10,19})(-[0-9a-f]{16})?")
LARGEST_STEP = 10**19 - 1
MANIFEST = "manifest.json"
FORMAT = "statedict checkpoint"
# Objects of a checkpoint that are not the user's: values that JSON cannot represent, and the state of random generators.
VALUES, RANDOM = "values", "random"
# The lock of CheckpointManager: a folder that has it is a run, even if nothing was saved yet.
LOCK = ".lock"
# The index of a run in an object store: which folders are its checkpoints.
INDEX = ".run"
# Folders of a step: of transformers (`checkpoint-500`), accelerate (`checkpoint_0`), torchtitan (`step-10`), DeepSpeed
# (`global_step10`), Megatron (`iter_0000010`), torchtune (`epoch_0`).
STEP = re.compile(r"(?:checkpoint[-_]|step[-_]|global_step|iter_|epoch[-_])(?P<number>[0-9]{1,19})")
# Lightning's files, which are folders if the model is sharded: `epoch=1-step=20-v1.ckpt`, `epoch=02-val_loss=0.31.ckpt`.
LIGHTNING = re.compile(r".*?(?:step|epoch)=[0-9]{1,19}(?![0-9]).*?(?:-v(?P<version>[0-9]{1,9}))?\.ckpt")
LAST = re.compile(r"last(?:-v(?P<version>[0-9]{1,9}))?\.ckpt")
# Files that name the newest step: of DeepSpeed and Megatron.
LATEST, LATEST_ITERATION = "latest", "latest_checkpointed_iteration.txt"
MARKERS = (LATEST, "latest_universal", LATEST_ITERATION)
# Folders between a run's directory and its checkpoints: of accelerate and Lightning, torchtitan, Lightning's logger.
BETWEEN = ("checkpoints", "checkpoint")
LOGS, VERSION = "lightning_logs", re.compile(r"version_([0-9]{1,9})")


def name_of(step: int) -> str:
    """Return the directory name of a step of CheckpointManager, on a disk. Names sort in the order of the steps."""
    return f"step-{step:010d}"


def unique_name(step: int) -> str:
    """Return a name, for a checkpoint of CheckpointManager in an object store, that no other save has."""
    return f"{name_of(step)}-{os.urandom(8).hex()}"


def is_unique_name(name: str) -> bool:
    """Return whether `unique_name` has made a name."""
    match = OWN.fullmatch(name)
    return match is not None and match[2] is not None


def own_steps(names: Iterable[str]) -> dict[int, str]:
    """Return the names of CheckpointManager's checkpoints among those of directories, by step, oldest first.

    >>> own_steps(["step-0000000020", "step-0000000003-00112233445566aa", "step-10"])
    {3: 'step-0000000003-00112233445566aa', 20: 'step-0000000020'}
    """
    # Of several names of a step, the one without a suffix: it was saved in a directory with a downloaded run.
    matches = (OWN.fullmatch(name) for name in sorted(names, reverse=True))
    found = {
        int(match[1]): match[0] for match in matches if match and len(match[1]) == max(10, len(str(int(match[1]))))
    }
    return dict(sorted(found.items()))


def is_step_file(name: str) -> bool:
    """Return whether a file, or a folder, is a checkpoint of Lightning by its name."""
    return LIGHTNING.fullmatch(name) is not None or LAST.fullmatch(name) is not None


def is_run(files: Collection[str], folders: Collection[str]) -> bool:
    """Return whether a folder with these files and folders is that of a run, or leads to one."""
    if not {*MARKERS, LOCK, INDEX}.isdisjoint(files) or not {*BETWEEN, LOGS}.isdisjoint(folders):
        return True
    return any(map(is_step_file, (*files, *folders))) or any(
        kind.fullmatch(name) for name in folders for kind in (OWN, STEP, VERSION)
    )
