"""Which tensor goes where: select, rename, match, adapt, execute, report; compare and merge. Knows no files and no modules.

A plan is made by `match` from two states, printed, and executed; a `KeyMap` says how names become other names (its rules'
grammar is in `_rule`); a `LoadReport` tells what came of it.
"""

from statedict.state import Cast

from ._infer import Inference, Inferred, infer
from ._match import match
from ._plan import Plan, Problem
from .comparing._diff import Diff, diff
from .comparing._merge import merge
from .comparing._statistics import Change
from .names._keymap import KeyMap
from .names._near import near_pattern
from .names._wrappers import pair
from .reports._attempt import facts, written
from .reports._error_text import error_text
from .reports._report import Adapted, LoadReport
from .reports._suggest import Suggestion
from .tensors._adaptation import Adaptation, Policy
from .tensors._interpolate import interpolate
from .tensors._step import Mismatch, Step

__all__ = [
    "match",
    "pair",
    "written",
    "Plan",
    "Problem",
    "Step",
    "KeyMap",
    "infer",
    "Inference",
    "Inferred",
    "Policy",
    "Adaptation",
    "interpolate",
    "LoadReport",
    "Adapted",
    "Cast",
    "Mismatch",
    "Suggestion",
    "error_text",
    "facts",
    "diff",
    "Diff",
    "Change",
    "merge",
    "near_pattern",
]
