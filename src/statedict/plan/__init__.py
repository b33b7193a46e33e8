"""Decide which tensor goes where: select, rename, match, adapt, execute, report; compare and merge states.

`match` makes a plan from two states, which can be printed and executed. A `KeyMap` renames (`names/_rule.py` has the grammar
of its rules). A `LoadReport` is the result of a load. This package does not depend on files or modules.
"""

from statedict.state import Cast

from ._plan import Plan, Problem, match
from .comparing._diff import Diff, diff
from .comparing._statistics import Change, numbers
from .inferring import Inference, Inferred, infer
from .merging._merge import METHODS, merge
from .names._keymap import KeyMap
from .names._near_misses import near_pattern
from .names._resolve import Resolved, SpecOf
from .names._rule import Rule
from .names._template import escaped
from .names._wrappers import pair
from .reports._attempt import Proposal, call_text, tensor_info
from .reports._report import Adapted, LoadReport
from .reports._report_text import error_text
from .reports._suggest import Suggestion
from .tensors._interpolate import interpolate
from .tensors._policy import POLICIES, Mismatched
from .tensors._step import Adaptation, Mismatch, Policy, Step

__all__ = [
    "METHODS", "POLICIES", "Adaptation", "Adapted", "Cast", "Change", "Diff", "Inference", "Inferred", "KeyMap",
    "LoadReport", "Mismatch", "Mismatched", "Plan", "Policy", "Problem", "Proposal", "Resolved", "Rule", "SpecOf",
    "Step", "Suggestion", "call_text", "diff", "error_text", "escaped", "infer", "interpolate", "match", "merge",
    "near_pattern", "numbers", "pair", "tensor_info",
]  # fmt: skip
