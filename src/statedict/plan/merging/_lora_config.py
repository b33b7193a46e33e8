"""Read the options in PEFT's `adapter_config.json` that matter for merging a LoRA; refuse unsupported ones."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from statedict.errors import MergeError

# The key under which the reader of a folder keeps the text of the file, and `extract_lora` writes it.
ADAPTER_CONFIG = "adapter_config"
# Entries about how the adapter was trained, or where: they do not change what is added to the weights.
_HARMLESS = frozenset({
    "auto_mapping", "base_model_name_or_path", "bias", "corda_config", "ensure_weight_tying", "eva_config",
    "exclude_modules", "fan_in_fan_out", "inference_mode", "init_lora_weights", "layers_pattern", "layers_to_transform",
    "loftq_config", "lora_alpha", "lora_bias", "lora_dropout", "lora_ga_config", "megatron_config", "megatron_core",
    "modules_to_save", "alpha_pattern", "peft_type", "peft_version", "qalora_group_size", "r", "rank_pattern", "revision",
    "runtime_config", "target_modules", "task_type", "use_rslora",
})  # fmt: skip
# A larger scaling is an infinity in float32, and a larger rank would not fit in memory.
_LARGEST = 1e30
# The initialisations that leave the base weights as they are. All others change them when the adapter is loaded.
_INITIALISATIONS = (True, False, None, "gaussian", "eva", "orthogonal")
# A pattern is a regular expression in a file that may be hostile: a quantified group could take exponential time.
_PATTERN = re.compile(r"[\w.*+?|^$\\()\[\]-]*")
_QUANTIFIED_GROUP = re.compile(r"\)[*+?{]")
# With these limits a match of the worst pattern takes 4 ms. PEFT itself writes patterns without quantifiers, of which there
# may be one for each module.
_MOST_QUANTIFIERS, _LONGEST_NAME, _MOST_QUANTIFIED = 2, 150, 16

Patterns = tuple[tuple[re.Pattern[str], float], ...]


@dataclass(frozen=True)
class LoraConfig:
    """The numbers that decide how much is added to the weights.

    Attributes:
        rank, alpha: the rank, and the numerator of the scaling.
        rank_pattern, alpha_pattern: the same by patterns for the ends of modules' paths.
        rank_stabilised: divide by the square root of the rank.
        transposed: the weights of linear layers are stored as (in, out), as those of GPT-2's Conv1D.
    """

    rank: int
    alpha: float
    rank_pattern: Patterns
    alpha_pattern: Patterns
    rank_stabilised: bool = False
    transposed: bool = False

    def rank_of(self, module: str) -> int:
        """Return the rank of the adapter of a module."""
        return int(_by_pattern(self.rank_pattern, module, self.rank))

    def scaling(self, module: str) -> float:
        """Return the factor of the product of the two matrices of a module."""
        rank, alpha = self.rank_of(module), _by_pattern(self.alpha_pattern, module, self.alpha)
        return float(alpha / (math.sqrt(rank) if self.rank_stabilised else rank))


def read_config(text: str | None, source: str) -> LoraConfig:
    """Return the configuration in the text of an adapter_config.json; `source` names the adapter in errors.

    Raises MergeError if there is none, if it is not that of a LoRA, or if it has entries that change the weights in an
    unsupported way.
    """
    if text is None:
        raise MergeError(
            f"{source} has no adapter_config.json, or one that is not valid JSON: pass the folder that PEFT wrote, after "
            "the base; statedict inspect says what is wrong with the file"
        )
    try:
        found = json.loads(text)
        return _parsed(found, source)
    except MergeError:
        raise
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise MergeError(f"{source}: adapter_config.json is not valid: {error!r}") from error


def _parsed(found: Mapping[str, Any], source: str) -> LoraConfig:
    if found.get("peft_type") != "LORA":
        raise MergeError(f"{source} is an adapter of the kind {found.get('peft_type')!r}: only 'LORA' can be merged")
    if found.get("use_dora"):
        raise MergeError(
            f"{source} is a DoRA (use_dora), whose magnitudes replace the norms of the weights: merge it with PEFT"
        )
    if found.get("init_lora_weights") not in _INITIALISATIONS:
        raise MergeError(
            f"{source} has init_lora_weights={found['init_lora_weights']!r}, which changes the base weights when it is "
            "loaded: convert it with PEFT's save_pretrained(path_initial_model_for_weight_conversion=…), or merge it with "
            "PEFT"
        )
    unknown = [name for name, value in found.items() if value and name not in _HARMLESS]
    if unknown:
        raise MergeError(f"{source} uses {', '.join(map(repr, unknown))}, which is not supported: merge it with PEFT")
    ranks, alphas = found.get("rank_pattern") or {}, found.get("alpha_pattern") or {}
    rank: Any = found.get("r")
    alpha: Any = found.get("lora_alpha", 8)
    for value in (rank, *ranks.values()):
        if type(value) is not int or not 1 <= value <= _LARGEST:
            raise MergeError(f"{source}: adapter_config.json has the rank {value!r}: expected a positive integer")
    for value in (alpha, *alphas.values()):
        if type(value) not in (int, float) or not abs(value) <= _LARGEST:
            raise MergeError(f"{source}: adapter_config.json has the alpha {value!r}: expected a finite number")
    flags = bool(found.get("use_rslora")), bool(found.get("fan_in_fan_out"))
    return LoraConfig(rank, alpha, _compiled(ranks, source), _compiled(alphas, source), *flags)


def _compiled(patterns: Mapping[str, float], source: str) -> Patterns:
    """Return the patterns as PEFT reads them: for the end of a module's path."""
    made = []
    for pattern, value in patterns.items():
        try:
            if not _is_safe(pattern):
                raise re.error("it may take too long")
            made.append((re.compile(rf"(.*\.)?({pattern})$"), value))
        except re.error as error:
            raise MergeError(
                f"{source}: the pattern {pattern!r} in adapter_config.json is not understood here: {error}"
            ) from None
    if sum(map(bool, map(_quantifiers, patterns))) > _MOST_QUANTIFIED:
        raise MergeError(f"{source}: adapter_config.json has more than {_MOST_QUANTIFIED} patterns with * or +")
    return tuple(made)


def _is_safe(pattern: str) -> bool:
    return bool(_PATTERN.fullmatch(pattern)) and (
        not _QUANTIFIED_GROUP.search(pattern) and _quantifiers(pattern) <= _MOST_QUANTIFIERS
    )


def _quantifiers(pattern: str) -> int:
    return sum(map(pattern.count, "*+"))


def _by_pattern(patterns: Patterns, module: str, otherwise: float) -> float:
    """Return the value of the first pattern that matches, as PEFT does."""
    if patterns and len(module) > _LONGEST_NAME:
        raise MergeError(f"the name of {module!r} is too long for the patterns in adapter_config.json")
    return next((value for pattern, value in patterns if pattern.match(module)), otherwise)
