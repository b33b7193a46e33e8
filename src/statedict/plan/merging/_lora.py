"""Add the adapters in files of PEFT to the weights of their base model, without a model: `merge(…, "lora")`.

    weight + scaling · (B @ A)        scaling = alpha / r, or alpha / √r with use_rslora

with the shapes A (r, in), B (out, r) for linear layers, A (r, in, kernel…), B (out, r, 1…) for convolutions, and
lora_embedding_A (r, words), lora_embedding_B (dim, r) for embeddings, whose product is transposed. The product is computed
in float32 (float64 if one of the matrices is), and the sum is rounded once to the dtype of the base weight, as in a model
that `PeftModel.from_pretrained` has loaded; the product for an embedding is rounded to this dtype before, as there.

Modules that the adapter has whole (`modules_to_save`, biases) replace those of the base.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from statedict.errors import MergeError
from statedict.state import (
    DType,
    Leaf,
    StateDict,
    cast_array,
    cast_leaf,
    computed,
    contiguous,
    elementwise,
    leaf_of,
    raw_values,
)
from statedict.state import dtype as find_dtype

from ..names._adapters import prefixes, stored_name
from ..names._wrappers import bare
from ..operations._joins import plain
from ._align import State, common_texts, like, names_listed, strided
from ._lora_config import ADAPTER_CONFIG, LoraConfig, read_config

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

Shape = tuple[int, ...]
# Role in a pair of matrices, by the end of a tensor's name.
_ROLES = {
    "lora_A.weight": "A",
    "lora_B.weight": "B",
    "lora_B.bias": "bias",
    "lora_embedding_A": "A",
    "lora_embedding_B": "B",
}


@dataclass
class Adapter:
    """The content of an adapter's file: the matrices of each module by role, and tensors that replace those of the base.

    Attributes:
        name: how errors call it.
        pairs: module → role → leaf. The paths are those in the file, without `base_layer`.
        embeddings: the modules whose matrices are those of an embedding.
        whole: name of a tensor → leaf.
        shared: those of the whole tensors that are loaded into the base layer, so that tied tensors change with it.
    """

    name: str
    config: LoraConfig
    pairs: dict[str, dict[str, Leaf]] = field(default_factory=dict)
    embeddings: set[str] = field(default_factory=set)
    whole: dict[str, Leaf] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)


def with_adapters(base: State, adapters: Sequence[State], weights: Sequence[float]) -> StateDict:
    """Return the base with adapters added, one after the other; each is scaled by its weight as well.

    Raises MergeError if an adapter does not fit the base, or has unsupported tensors or options.
    """
    values = dict(raw_values(base))
    for number, (state, weight) in enumerate(zip(adapters, weights), 1):
        adapter = _read(state, f"sources[{number}]")
        values = _added(values, adapter, weight)
    merged = like(base, values)
    merged.texts = common_texts([base])
    return merged


def _read(state: State, name: str) -> Adapter:
    """Sort the tensors of an adapter's file; raise MergeError for unsupported ones."""
    adapter = Adapter(name, read_config((getattr(state, "texts", None) or {}).get(ADAPTER_CONFIG), name))
    unknown = []
    for given, value in raw_values(state).items():
        stored = stored_name(given).name
        end = next((end for end in _ROLES if stored.endswith(f".{end}")), None)
        if end is not None:
            module = _without_base_layer(stored.removesuffix(f".{end}"))
            adapter.pairs.setdefault(module, {})[_ROLES[end]] = strided(value, given)
            if "embedding" in end:
                adapter.embeddings.add(module)
        elif ".lora_" in f".{stored}":
            unknown.append(given)
        else:
            plain_name = _without_base_layer(stored)
            adapter.whole[plain_name] = strided(value, given)
            if plain_name != stored or stored.endswith(".bias"):
                adapter.shared.add(plain_name)
    lone = [module for module, pair in adapter.pairs.items() if not {"A", "B"} <= pair.keys()]
    if unknown or lone:
        raise MergeError(
            f"{name} has unsupported tensors: {names_listed(unknown or lone)}: merge it with PEFT",
            names=unknown or lone,
        )
    if not adapter.pairs:
        raise MergeError(f"{name} has no LoRA matrices (lora_A, lora_B)")
    return adapter


def _without_base_layer(name: str) -> str:
    return ".".join(part for part in name.split(".") if part != "base_layer")


def _added(values: Mapping[str, Any], adapter: Adapter, weight: float) -> dict[str, Any]:
    """Return the values with an adapter added; tied tensors stay tied."""
    place, merged = _places(values, adapter), _TiedValues(values)
    for name, leaf in adapter.whole.items():
        dtype = merged.leaf(place[name]).spec.dtype
        merged.set(place[name], cast_leaf(leaf, dtype), shared=name in adapter.shared)
    ways = _Orientations(adapter, {m: merged.leaf(place[f"{m}.weight"]).spec.shape for m in adapter.pairs})
    for module, pair in adapter.pairs.items():
        scaling = _scaling(adapter, module, pair) * weight
        target = merged.leaf(place[f"{module}.weight"])
        if not target.spec.dtype.is_floating or target.spec.dtype.itemsize < 2:
            raise MergeError(
                f"{adapter.name} changes {place[f'{module}.weight']!r}, which has the dtype {target.spec.dtype.name}: a "
                "quantised base cannot be changed; give the base in float32, bfloat16 or float16"
            )
        product = _product(pair, target, scaling, ways.of(module))
        if module in adapter.embeddings:
            product = cast_leaf(product, target.spec.dtype)
        merged.set(place[f"{module}.weight"], _sum(target, product))
        if "bias" in pair:
            bias = merged.leaf(place[f"{module}.bias"])
            merged.set(place[f"{module}.bias"], _sum(bias, _scaled(pair["bias"], scaling)))
    return merged.values


class _TiedValues:
    """The values of a state, of which some are set; names that are tied are set together."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)
        self._tied: dict[str, list[str]] = {}
        groups: dict[Hashable, list[str]] = {}
        # Kept: a leaf of a copied array has an address only while it lives.
        self._leaves = {name: leaf_of(value) for name, value in values.items()}
        for name, leaf in self._leaves.items():
            if isinstance(leaf, Leaf) and leaf.spec.numel:
                self._tied[name] = groups.setdefault(leaf.identity, [])
                self._tied[name].append(name)

    def leaf(self, name: str) -> Leaf:
        return strided(self.values[name], name)

    def set(self, name: str, leaf: Leaf, *, shared: bool = True) -> None:
        """Set a value; if it is not `shared`, names that were tied to it keep theirs."""
        if not shared and name in self._tied:
            self._tied[name].remove(name)
            self._tied[name] = [name]
        self.values |= dict.fromkeys(self._tied.get(name, [name]), leaf)


def _places(values: Mapping[str, Any], adapter: Adapter) -> dict[str, str]:
    """Return the name in the base for each tensor that an adapter changes; raise MergeError if the base lacks one."""
    wanted = [
        *(f"{module}.weight" for module in adapter.pairs),
        *(f"{module}.bias" for module, pair in adapter.pairs.items() if "bias" in pair),
        *adapter.whole,
    ]
    known = {bare(name): name for name in values}
    removed, added = prefixes(wanted, known) or ("", "")
    found = {name: known.get(added + name[len(removed) :]) for name in wanted if name.startswith(removed)}
    missing = [name for name in wanted if found.get(name) is None]
    if missing:
        hint = ""
        if any(".base_layer." in name for name in values):
            hint = ". This base has an adapter itself: convert it with the map peft-base first"
        elif any(name.endswith("._weight_qdata") for name in values):
            hint = ". This base was quantised by torchao, and cannot be changed: give one that is not quantised"
        elif len(missing) < len(wanted) and not all(name.endswith(".bias") for name in missing):
            hint = (
                ". A weight that is tied is stored once by some libraries: give the base with both names "
                "(base['lm_head.weight'] = base['model.embed_tokens.weight'])"
            )
        raise MergeError(
            f"{adapter.name} is for another base: it changes {names_listed(missing)}, which the base does not have{hint}",
            names=missing,
        )
    return {name: place for name, place in found.items() if place is not None}


def _scaling(adapter: Adapter, module: str, pair: Mapping[str, Leaf]) -> float:
    """Return the scaling of a module; raise MergeError if its matrices do not have the rank of the configuration."""
    path = module.removeprefix("base_model.model.")
    rank = adapter.config.rank_of(path)
    shapes = pair["A"].spec.shape, pair["B"].spec.shape
    if len(shapes[0]) < 2 or len(shapes[1]) != len(shapes[0]) or not shapes[0][0] == shapes[1][1] == rank:
        raise MergeError(
            f"{adapter.name}: the matrices of {module!r} have the shapes {list(shapes[0])} and {list(shapes[1])}, which is "
            f"not a pair of rank {rank}"
        )
    for role, leaf in pair.items():
        if not leaf.spec.dtype.is_floating:
            raise MergeError(f"{adapter.name}: {role} of {module!r} has the dtype {leaf.spec.dtype.name}, not a float")
    return adapter.config.scaling(path)


class _Orientations:
    """Which products must be transposed: decided by the shape, and for square ones by the configuration.

    PEFT decides by the class of the layer (GPT-2's Conv1D is transposed), and keeps one flag for all layers in the file. If
    the shapes of other layers contradict the flag, that of a square one cannot be known.
    """

    def __init__(self, adapter: Adapter, targets: Mapping[str, Shape]) -> None:
        self._adapter = adapter
        self._found = {module: self._fits(module, shape) for module, shape in targets.items()}

    def of(self, module: str) -> bool:
        """Whether the product of a module is transposed; raise MergeError if it fits neither way, or this is not clear."""
        adapter, found = self._adapter, self._found[module]
        if not found:
            raise MergeError(f"{adapter.name}: the matrices of {module!r} do not fit its weight in the base")
        flag = adapter.config.transposed
        if len(found) == 1 or module in adapter.embeddings:
            return found[0]
        others = {fits[0] for name, fits in self._found.items() if len(fits) == 1 and name not in adapter.embeddings}
        if others and flag not in others:
            raise MergeError(
                f"{adapter.name}: the weight of {module!r} is square, and fan_in_fan_out={flag} contradicts the shapes of "
                "other layers: merge it with PEFT, which knows the class of the layer"
            )
        return flag

    def _fits(self, module: str, shape: Shape) -> list[bool]:
        pair = self._adapter.pairs[module]
        product = (*pair["B"].spec.shape[:1], *pair["A"].spec.shape[1:])
        if module in self._adapter.embeddings:
            return [True] if product[::-1] == shape else []
        ways = [(False, product), *([(True, product[::-1])] if len(product) == 2 else [])]
        return [way for way, found in ways if found == shape]


def _product(pair: Mapping[str, Leaf], target: Leaf, scaling: float, transposed: bool) -> Leaf:
    """Return the leaf of what is added to a weight."""
    dtype = _working(pair.values())
    spec = contiguous(dtype, target.spec.shape)
    function = partial(_multiplied, dtype=dtype, scaling=scaling, transposed=transposed, shape=target.spec.shape)
    return computed(spec, [pair["A"], pair["B"]], function)


def _multiplied(a: Array, b: Array, *, dtype: DType, scaling: float, transposed: bool, shape: Shape) -> Array:
    a, b = cast_array(a, dtype), cast_array(b, dtype)
    product = b.reshape(len(b), -1) @ a.reshape(len(a), -1)
    product *= dtype.numpy.type(scaling)
    return product.T if transposed else product.reshape(shape)


def _scaled(leaf: Leaf, scaling: float) -> Leaf:
    dtype = _working([leaf])
    return elementwise(dtype, [leaf], lambda array: cast_array(array, dtype) * dtype.numpy.type(scaling))


def _sum(target: Leaf, product: Leaf) -> Leaf:
    """Return the sum, rounded once to the dtype of the target."""
    dtype, working = target.spec.dtype, _working([target, product])

    def added(weight: Array, delta: Array) -> Array:
        return cast_array(cast_array(weight, working) + cast_array(delta, working), dtype)

    return elementwise(dtype, [target, product], added, plain(target))


def _working(leaves: Iterable[Leaf]) -> DType:
    """Return float64 if one of the leaves has it, float32 otherwise."""
    return find_dtype("float64" if any(leaf.spec.dtype.name == "float64" for leaf in leaves) else "float32")
