"""Checkpoints of Megatron-LM in the format `torch`: a folder for each model-parallel rank (`mp_rank_00/`).

Its number is that of the tensor-parallel rank, then perhaps those of the pipeline and expert ranks: `mp_rank_01_000/`. Each
has `model_optim_rng.pt`, and with the distributed optimizer `distrib_optim.pt`. The files do not say along which axis
a tensor is divided, so those of several ranks are not joined: each rank is a root.
"""

from __future__ import annotations

from functools import partial

from statedict.files import Folder

from ...errors import FormatError
from .._limits import Limits
from .._names import MEGATRON_RANK
from ..checkpoint._checkpoint import Checkpoint
from ._roots import read_roots

# The files of a rank → their roots. The content of the first one is the tree itself.
FILES = {"model_optim_rng.pt": "", "model_rng.pt": "", "distrib_optim.pt": "distrib_optim", "optim.pt": "optim"}


def read_megatron_ranks(folder: Folder, limits: Limits) -> Checkpoint:
    """Open the Checkpoint of a folder of Megatron-LM, or of one of its ranks. If there are several, each is a root."""
    names = list(filter(MEGATRON_RANK.fullmatch, folder.folders))
    if not names:
        return _read_rank(folder, limits)
    if len(names) == 1:
        return _read_rank(folder.folder(names[0]), limits)
    note = (
        f"{len(names):,} model-parallel ranks, each with its own part of the tensors: the files do not say along which axis "
        "they are divided, so they are not joined (Megatron can save them as torch_dist, which can be read as a whole)"
    )
    members = {name: partial(_read_rank, folder.folder(name), limits) for name in names}
    return read_roots(folder, "megatron-ranks", members, limits, notes=[note])


def _read_rank(folder: Folder, limits: Limits) -> Checkpoint:
    members = {root: name for name, root in FILES.items() if name in folder.files}
    if "" not in members:
        raise FormatError(f"the folder of a rank should contain {next(iter(FILES))}", file=folder.path)
    return read_roots(folder, "megatron-ranks", members, limits, producer="Megatron-LM")
