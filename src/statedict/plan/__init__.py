"""Which tensor goes where: select, rename, match, adapt, execute, report; compare and merge. Knows no files and no modules.

A plan is made by `match` from two states, printed, and executed; a `KeyMap` says how names become other names (its rules'
grammar is in `_rule`); a `LoadReport` tells what came of it.
"""

from ._adaptation import Adaptation, Policy
from ._attempt import facts, written
from ._diff import Diff, diff
from ._error_text import error_text
from ._infer import Inference, Inferred, infer
from ._interpolate import interpolate
from ._keymap import KeyMap
from ._match import match
from ._merge import merge
from ._near import near_pattern
from ._plan import Plan, Problem
from ._report import Adapted, Cast, LoadReport
from ._statistics import Change
from ._step import Mismatch, Step
from ._suggest import Suggestion
from ._wrappers import pair

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
