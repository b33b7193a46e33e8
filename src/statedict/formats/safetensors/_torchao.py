"""Tensors that torchao took apart (`flatten_tensor_state_dict`), as in the files of models that transformers has quantised.

`q_proj.weight` is stored as `q_proj._weight_qdata`, `q_proj._weight_scale` …. The metadata lists the names of all tensors
under `tensor_names`, and has an entry for each of them: its class, its parts and its other attributes, as JSON. A Checkpoint
has the parts under their own names, so that what is saved from it is still a file that transformers reads. A load into a
model puts them together.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, NamedTuple

from statedict.state import DTYPES, Compound, DType, Leaf, StateDict, contiguous, leaf_of, raw_values

from ...errors import FormatError
from .._json import read_json
from .._limits import LIMITS
from .._pickle._recipe import RecipeError
from .._pickle._recipe_values import compound_from
from ._annotations import RECIPE_DEPTH

NAMES = "tensor_names"
# Classes in a recipe have a module, which these files do not name.
TORCHAO = "torchao"
# Attributes are nested four deep: kwargs, a granularity, its attributes.
DEEP = replace(LIMITS, json_depth=RECIPE_DEPTH)
FP4 = {"_type": "torch.dtype", "_data": "float4_e2m1fn_x2"}


class Flattened(NamedTuple):
    """A tensor in parts: the name of its class, the names of its parts in the file by role, its other attributes."""

    kind: str
    parts: dict[str, str]
    attributes: dict[str, Any]


def flattened(metadata: Mapping[str, str] | None) -> dict[str, Flattened]:
    """Return the tensors in parts that torchao's metadata describes, by name; other entries are left out."""
    if not metadata or NAMES not in metadata:
        return {}
    names = _json(metadata[NAMES])
    if not isinstance(names, list):
        return {}
    # Each name once: an entry is parsed for each of them.
    known = dict.fromkeys(name for name in names if isinstance(name, str) and name in metadata)
    entries = {name: _json(metadata[name]) for name in known}
    found = {name: _flattened(name, entry) for name, entry in entries.items() if isinstance(entry, dict)}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def _json(text: str) -> Any:
    try:
        return read_json(text.encode(), "", DEEP)
    except FormatError:
        return None


def _flattened(name: str, entry: Mapping[str, Any]) -> Flattened | None:
    kind, attributes, roles = entry.get("_type"), entry.get("_data"), entry.get("_tensor_data_names")
    if not (isinstance(kind, str) and kind.isidentifier() and isinstance(attributes, dict) and isinstance(roles, list)):
        return None
    module, _, last = name.rpartition(".")
    parts = {role: f"{module}._{last}_{role}" for role in roles if isinstance(role, str)}
    return Flattened(kind, parts, attributes) if len(parts) == len(roles) > 0 else None


def note_of_parts(metadata: Mapping[str, str]) -> list[str]:
    """Return a note about the tensors in parts, if there are any."""
    tensors = flattened(metadata)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in Counter(each.kind for each in tensors.values()).items())
    return [
        f"quantised by torchao: {kinds} in parts ({name} is {', '.join(tensor.parts.values())}), which load into a model "
        "that is quantised in the same way"
        for name, tensor in list(tensors.items())[:1]
    ]


def entries_of_tensors(metadata: Mapping[str, str]) -> set[str]:
    """Return the keys of torchao's entries in the metadata, one for each tensor, and of the list of their names."""
    return {NAMES, *map(str, _json(metadata[NAMES]))} if flattened(metadata) else set()


def with_torchao_tensors(state: StateDict) -> StateDict:
    """Return the state with a Compound in place of the parts of each tensor that its metadata describes.

    Raises FormatError if it gives one part to two tensors.
    """
    values, made = raw_values(state), {}
    owners: dict[str, str] = {}
    for name, tensor in flattened(state.texts).items():
        found = {role: leaf_of(values[part]) for role, part in tensor.parts.items() if part in values}
        parts = {role: leaf for role, leaf in found.items() if isinstance(leaf, Leaf)}
        if parts.keys() == tensor.parts.keys() and name not in values:
            with suppress(RecipeError):
                made[name] = _compound(tensor, parts)
                for part in tensor.parts.values():
                    if owners.setdefault(part, name) != name:
                        reason = f"torchao's metadata gives {part!r} to two tensors, {owners[part]!r} and {name!r}"
                        raise FormatError(reason, hint="save the model again with torchao")
    if not made:
        return state
    joined: dict[str, Any] = {}
    for name, value in values.items():
        owner = owners.get(name, name)
        joined.setdefault(owner, made.get(owner, value))
    return StateDict.adopt(joined, state._metadata, state._backend)


def _compound(tensor: Flattened, parts: Mapping[str, Leaf]) -> Compound:
    """Return the tensor, with its attributes as they are in torchao's JSON; raises RecipeError if they are malformed."""
    dtype, shape = _dtype(tensor, parts), _shape(tensor, parts)
    recipe = {"class": f"{TORCHAO}:{tensor.kind}", "dtype": dtype.name, "shape": list(shape)}
    outer = {"strides": list(contiguous(dtype, shape).strides), "offset": 0, "layout": "strided"}
    state = recipe_state(tensor.attributes, parts)
    return compound_from({**recipe, **outer, "state": state, "requires_grad": False, "parameter": True}, parts)


def recipe_state(attributes: Mapping[str, Any], roles: Iterable[str]) -> dict[str, Any]:
    """Return the state of the recipe: the parts, and the attributes but for those that every tensor has."""
    others = {key: value for key, value in attributes.items() if key not in ("dtype", "shape")}
    return {**others, **{role: {"$part": role} for role in roles}}


def _dtype(tensor: Flattened, parts: Mapping[str, Leaf]) -> DType:
    """Return the dtype outside: an attribute, or for classes without one that of the scale."""
    named = (tensor.attributes.get(key) for key in ("dtype", "orig_dtype"))
    known = [DTYPES[text] for each in named if isinstance(each, dict) and (text := str(each.get("_data"))) in DTYPES]
    scales = [part.spec.dtype for role, part in parts.items() if role.startswith("scale")]
    return next(iter(known + scales + [part.spec.dtype for part in parts.values()]))


def _shape(tensor: Flattened, parts: Mapping[str, Leaf]) -> tuple[int, ...]:
    """Return the shape outside: an attribute, or that of the data, of which two elements of 4 bits share a byte."""
    shape: Any = tensor.attributes.get("shape")
    is_short = isinstance(shape, list) and len(shape) <= LIMITS.dimensions
    if is_short and all(type(extent) is int and extent >= 0 for extent in shape):
        return tuple(shape)
    *rest, last = parts.get("qdata", next(iter(parts.values()))).spec.shape or (1,)
    is_packed = tensor.kind == "NVFP4Tensor" or tensor.attributes.get("elem_dtype") == FP4
    return (*rest, 2 * last if is_packed else last)
