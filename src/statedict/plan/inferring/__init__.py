"""Infer a KeyMap from the names and shapes of two sides.

`_infer` starts with equal names. `_modules` opens both trees and finds modules with the same contents (`_nodes`), which
`_classes` pairs by numbers, words (`_words`) and order; `_reasons` says which of these are certain. `_joined`, `_operations`
and `_square` find how tensors are converted. `_doubts` says which matches the rest of both models speaks against: `_uneven`
and `_towers` find modules that fit in several ways, `_consistent` matches that contradict others.
`_rules` makes the KeyMap, `_inference` and `_folded` the report.
"""

from ._infer import infer
from ._inference import Inference, Inferred

__all__ = ["Inference", "Inferred", "infer"]
