"""PyTorch modules, optimizers and tensors: this library's engine under PyTorch's public signatures."""

from ._install import install as install
from ._install import uninstall as uninstall
from ._joint_save import joint_save as joint_save
from ._random import read_random as read_random
from ._random import write_random as write_random
from ._rank_part import METADATA as METADATA
from ._rank_part import RankFile as RankFile
from ._rank_part import RankPart as RankPart
from ._rank_part import Stored as Stored
from ._rank_part import dump_metadata as dump_metadata
from ._rank_part import join_plans as join_plans
from ._sharded import RankState as RankState
from ._sharded import has_shards as has_shards
from ._sharded import holds_shards as holds_shards
from ._sharded import rank_state as rank_state
from ._sharded import ranks as ranks
from ._snapshot import snapshot as snapshot
from .audit._find import audit as audit
from .audit._findings import AuditFinding as AuditFinding
from .modules._host import HOST as HOST
from .modules._modules import module_load_state_dict as module_load_state_dict
from .modules._modules import module_state_dict as module_state_dict
from .optimizers._exact import optimizer_load_state_dict as optimizer_load_state_dict
from .optimizers._exact import optimizer_state_dict as optimizer_state_dict
from .optimizers._read import read_optimizer as read_optimizer
from .optimizers._schedulers import read_stateful as read_stateful
from .optimizers._schedulers import write_stateful as write_stateful
from .optimizers._sharded_state import joint_optimizer as joint_optimizer
from .optimizers._write import write_optimizer as write_optimizer
from .save_and_load._load import load as load
from .save_and_load._save import save as save
from .snapshots._copy_tree import take as take
from .tensors._library import TORCH as TORCH
from .tensors._placement import materialize_on as materialize_on
from .tensors._values import REVIVED as REVIVED
from .tensors._values import maker as maker
from .tensors._values import revived as revived
from .tensors._values import set_attributes as set_attributes
from .tensors._values import storage_shown as storage_shown
from .together._checksums import SharedChecksums as SharedChecksums
from .together._connections import RankConnections as RankConnections
from .together._joint import Joint as Joint
from .together._vote import gather as gather
from .together._vote import vote as vote

__all__ = [
    "audit",
    "AuditFinding",
    "HOST",
    "install",
    "uninstall",
    "TORCH",
    "module_load_state_dict",
    "module_state_dict",
    "read_optimizer",
    "write_optimizer",
    "joint_optimizer",
    "optimizer_load_state_dict",
    "optimizer_state_dict",
    "materialize_on",
    "read_random",
    "write_random",
    "read_stateful",
    "write_stateful",
    "gather",
    "ranks",
    "has_shards",
    "holds_shards",
    "rank_state",
    "METADATA",
    "RankConnections",
    "RankFile",
    "RankPart",
    "RankState",
    "Stored",
    "dump_metadata",
    "join_plans",
    "snapshot",
    "take",
    "REVIVED",
    "maker",
    "revived",
    "set_attributes",
    "storage_shown",
    "save",
    "load",
    "Joint",
    "joint_save",
    "SharedChecksums",
    "vote",
]
