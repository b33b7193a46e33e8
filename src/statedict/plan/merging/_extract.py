"""Make a LoRA of the difference between a model and its base: `merge([tuned], "extract_lora", base=…, rank=…)`.

The difference of each matrix is approximated by its `rank` largest singular values, the best approximation of this rank
(Eckart-Young): B = U √S and A = √S Vᵀ, with alpha = r, so that the scaling is one. Tensors that are not matrices are
kept whole: biases, and the modules of other tensors (norms) as `modules_to_save`. Names are those of PEFT's files, and the
text of adapter_config.json is in `texts["adapter_config"]`.

Both states are read at once, in pieces, to find the tensors that have changed; the singular values are computed when a
tensor of the result is first read, and its factors are kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from statedict.errors import MergeError
from statedict.state import Leaf, StateDict, cast_array, computed, contiguous, read_array
from statedict.state import dtype as find_dtype

from ..comparing._statistics import same
from ._align import State, combined, names_listed
from ._lora_config import ADAPTER_CONFIG

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

_PREFIX = "base_model.model."
# Files do not say which matrices are embeddings. These are the names that the models of transformers give to them.
_EMBEDDING = re.compile(r"embed|(?:^|\.)(?:wte|wpe|shared)$", re.IGNORECASE)


class _Pair(NamedTuple):
    """A tensor of the base and the same of the tuned model."""

    base: Leaf
    tuned: Leaf


def extracted(tuned: State, base: State, rank: int) -> StateDict:
    """Return the adapter of a rank, or less where a matrix is smaller, whose sum with `base` is the nearest to `tuned`.

    Raises MergeError if names or shapes differ, or if nothing has changed.
    """
    every: dict[str, _Pair] = {}

    def collect(name: str, leaves: Any) -> Leaf:
        every[name] = _Pair(*leaves)
        return every[name].base

    combined([base, tuned], collect)
    changed = [name for name, pair in every.items() if not same(*pair)]
    if not changed:
        raise MergeError("the model does not differ from its base: there is nothing to extract")
    matrices, biases, whole = _sorted(changed, every)
    transposed = {module for module in matrices if _is_transposed(f"{module}.weight", every)}
    values: dict[str, Leaf] = {}
    for module, pair in matrices.items():
        values |= _matrices(module, pair, rank, module in transposed)
    for name in biases:
        module, _, last = name.rpartition(".")
        if module not in whole:
            stored = f"{module}.base_layer.{last}" if module in matrices else name
            values[f"{_PREFIX}{stored}"] = every[name].tuned
    values |= {f"{_PREFIX}{n}": pair.tuned for n, pair in every.items() if n.rpartition(".")[0] in whole}
    adapter = StateDict(values, backend=getattr(tuned, "_backend", "auto"))
    ranks = {module: _rank(pair, rank) for module, pair in matrices.items()}
    config = _config(rank, ranks, sorted(whole), bool(biases), bool(transposed))
    adapter.texts = {ADAPTER_CONFIG: json.dumps(config, indent=2)}
    return adapter


def _sorted(changed: Sequence[str], every: Mapping[str, _Pair]) -> tuple[dict[str, _Pair], list[str], set[str]]:
    """Return the changed weights that become two factors, by module; changed biases; and modules that are kept whole.

    Raises MergeError for changed tensors that an adapter cannot contain.
    """
    matrices = {name.removesuffix(".weight"): every[name] for name in changed if _is_matrix(name, every[name])}
    others = [name for name in changed if not _is_matrix(name, every[name])]
    biases = [name for name in others if name.endswith("bias") and "." in name]
    rest = [name for name in others if name not in biases]
    unfit = [name for name in rest if name.rpartition(".")[0] in {"", *matrices}]
    if unfit:
        raise MergeError(f"a LoRA cannot contain the change of {names_listed(unfit)}", names=unfit)
    return matrices, biases, {name.rpartition(".")[0] for name in rest}


def _is_matrix(name: str, pair: _Pair) -> bool:
    return name.endswith(".weight") and len(pair.base.spec.shape) >= 2 and min(pair.base.spec.shape) > 0


def _is_transposed(name: str, every: Mapping[str, _Pair]) -> bool:
    """Whether a weight is stored as (in, out), like those of GPT-2's Conv1D: its bias says which dimension is the output.

    For a square weight, the others of its kind decide: those with a bias.
    """
    sides = _sides(name, every)
    if sides is None or sides[0] != sides[1]:
        return sides is not None and sides[2] == sides[1]
    found = [_sides(other, every) for other in every if other.endswith(".weight")]
    return any(each[2] == each[1] != each[0] for each in found if each is not None)


def _sides(name: str, every: Mapping[str, _Pair]) -> tuple[int, int, int] | None:
    """Return the sides of a matrix and the length of its bias; None without a bias."""
    shape, bias = every[name].base.spec.shape, every.get(f"{name.removesuffix('weight')}bias")
    return None if bias is None or len(shape) != 2 else (*shape, bias.base.spec.numel)


def _rank(pair: _Pair, rank: int) -> int:
    rows = pair.base.spec.shape[0]
    return min(rank, rows, pair.base.spec.numel // rows)


def _matrices(module: str, pair: _Pair, rank: int, transposed: bool) -> dict[str, Leaf]:
    """Return the two matrices of a module, under their names in the file."""
    rows, *columns = pair.base.spec.shape
    r, embedding = _rank(pair, rank), _EMBEDDING.search(module) is not None and len(columns) == 1
    factors = _Factors(pair, r, transposed=transposed or embedding)
    if factors.transposed:
        rows, columns = columns[0], [rows]
    float32 = find_dtype("float32")
    a = computed(contiguous(float32, (r, *columns)), [], partial(factors.matrix, 1))
    b = computed(contiguous(float32, (rows, r, *[1] * (len(columns) - 1))), [], partial(factors.matrix, 0))
    names = ("lora_embedding_A", "lora_embedding_B") if embedding else ("lora_A.weight", "lora_B.weight")
    return {f"{_PREFIX}{module}.{name}": leaf for name, leaf in zip(names, (a, b))}


class _Factors:
    """The two factors of a difference, which are computed once: B (rows, r) and A (r, columns)."""

    def __init__(self, pair: _Pair, rank: int, *, transposed: bool) -> None:
        self._pair = pair
        self._rank = rank
        self.transposed = transposed

    def matrix(self, number: int) -> Array:
        """Return B (0) or A (1) in its shape."""
        found = self._both[number]
        kernel = self._pair.base.spec.shape[2:]
        if not kernel:
            return found
        return found.reshape(self._rank, -1, *kernel) if number else found.reshape(*found.shape, *[1] * len(kernel))

    @cached_property
    def _both(self) -> tuple[Array, Array]:
        import numpy as np

        float32 = find_dtype("float32")
        base, tuned = (cast_array(read_array(leaf), float32) for leaf in self._pair)
        difference = (tuned - base).reshape(len(base), -1)
        left, values, right = np.linalg.svd(difference.T if self.transposed else difference, full_matrices=False)
        roots = np.sqrt(values[: self._rank])
        return left[:, : self._rank] * roots, roots[:, None] * right[: self._rank]


def _config(rank: int, ranks: Mapping[str, int], whole: list[str], biases: bool, transposed: bool) -> dict[str, Any]:
    """Return the content of adapter_config.json."""
    smaller = {module: found for module, found in ranks.items() if found != rank}
    return {
        "peft_type": "LORA",
        "r": rank,
        "lora_alpha": rank,
        "rank_pattern": smaller,
        "alpha_pattern": smaller,
        "target_modules": sorted(ranks),
        "modules_to_save": whole or None,
        "bias": "all" if biases else "none",
        "fan_in_fan_out": transposed,
        "inference_mode": True,
        "base_model_name_or_path": None,
        "task_type": None,
    }
