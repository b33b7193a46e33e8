"""Reading and writing the state of a module tree: one engine for every module system with PyTorch's attributes."""

from statedict.state import Cast as Cast

from ._host import Fit as Fit
from ._host import Host as Host
from ._host import JointLoad as JointLoad
from ._host import Reach as Reach
from ._host import Slots as Slots
from ._outcome import Outcome as Outcome
from ._read import peek as peek
from ._read import read as read
from ._read import read_own as read_own
from ._rollback import Rollback as Rollback
from ._rules import EXACT as EXACT
from ._rules import SOUND as SOUND
from ._rules import Rules as Rules
from ._write import Judge as Judge
from ._write import refuse as refuse
from ._write import write as write
from ._write import write_own as write_own

__all__ = [
    "Fit",
    "Host",
    "Slots",
    "Cast",
    "Outcome",
    "peek",
    "read",
    "read_own",
    "EXACT",
    "SOUND",
    "Rollback",
    "Rules",
    "JointLoad",
    "Reach",
    "Judge",
    "refuse",
    "write",
    "write_own",
]
