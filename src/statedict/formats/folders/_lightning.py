"""Sharded checkpoints of Lightning: a torch.distributed.checkpoint folder, and `meta.pt` with the other values.

Trainer's strategies write the model at `model` (FSDP) or `state_dict` (ModelParallel), and each optimizer at
`optimizer_0` …, by names of parameters. Fabric writes the user's own keys.
"""

from __future__ import annotations

from statedict.files import Folder

from .._limits import Limits
from ..checkpoint._checkpoint import Checkpoint
from ..many_files._distributed import read_distributed
from ._roots import MODEL, read_with_values

META = "meta.pt"
# Lightning's keys → ours.
ROOTS = {"state_dict": MODEL, "optimizer_0": "optimizer"}


def read_lightning(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a sharded folder of Lightning: `model`, `optimizer`, and what `meta.pt` has: epoch, step,
    loops, hyperparameters …
    """
    return read_with_values(folder, "lightning", lambda: _tensors(folder, limits), META, limits, producer="Lightning")


def _tensors(folder: Folder, limits: Limits) -> Checkpoint:
    checkpoint = read_distributed(folder, limits)
    tree = checkpoint.object
    taken = {key: root for key, root in ROOTS.items() if key in tree and root not in tree}
    checkpoint.object = {taken.get(key, key): value for key, value in tree.items()}
    return checkpoint
