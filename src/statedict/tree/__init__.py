"""Reading and writing the state of a module tree: one engine for every module system with PyTorch's attributes."""

from statedict.state import Cast

from ._host import EXACT, SOUND, Fit, Host, JointLoad, Outcome, Reach, Rules, Slots
from ._read import named_arguments, peek, read, read_own
from ._rollback import Rollback
from ._texts import differing_ties, lossy, not_a_tensor, wrong_size
from ._write import Judge, refuse, write, write_own

__all__ = [
    "EXACT", "SOUND", "Cast", "Fit", "Host", "JointLoad", "Judge", "Outcome", "Reach", "Rollback", "Rules", "Slots",
    "differing_ties", "lossy", "named_arguments", "not_a_tensor", "peek", "read", "read_own", "refuse", "write", "write_own",
    "wrong_size",
]  # fmt: skip
