"""PyTorch modules, optimizers and tensors: this library's engine under PyTorch's public signatures."""

from ._install import install, uninstall
from ._joint_save import joint_save
from ._random import read_random, write_random
from ._rank_part import METADATA, RankFile, RankPart, Stored, dump_metadata, join_groups, join_plans
from ._sharded import RankState, has_shards, holds_shards, rank_state, ranks
from ._snapshot import snapshot
from .audit._find import audit
from .audit._findings import AuditFinding
from .modules._host import HOST
from .modules._modules import module_load_state_dict, module_state_dict
from .optimizers._exact import optimizer_load_state_dict, optimizer_state_dict
from .optimizers._read import read_optimizer
from .optimizers._schedulers import read_stateful, write_stateful
from .optimizers._sharded_state import joint_optimizer
from .optimizers._write import write_optimizer
from .save_and_load._load import load
from .save_and_load._save import save
from .snapshots._copy_tree import take
from .tensors._library import TORCH
from .tensors._placement import materialize_on
from .tensors._values import REVIVED, maker, revived, set_attributes, storage_shown
from .together._checksums import SharedChecksums
from .together._connections import RankConnections
from .together._joint import Joint
from .together._vote import gather, vote

__all__ = [
    "AuditFinding", "HOST", "Joint", "METADATA", "REVIVED", "RankConnections", "RankFile", "RankPart", "RankState",
    "SharedChecksums", "Stored", "TORCH", "audit", "dump_metadata", "gather", "has_shards", "holds_shards",
    "install", "join_groups", "join_plans", "joint_optimizer", "joint_save", "load", "maker", "materialize_on",
    "module_load_state_dict", "module_state_dict", "optimizer_load_state_dict", "optimizer_state_dict",
    "rank_state", "ranks", "read_optimizer", "read_random", "read_stateful", "revived", "save", "set_attributes",
    "snapshot", "storage_shown", "take", "uninstall", "vote", "write_optimizer", "write_random", "write_stateful",
]  # fmt: skip
