"""Try the tensor operations of transformers' rules, and their reverse, on small tensors."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from typing import Any

# Shapes of the tensors to try: matrices, vectors, the weights of convolutions.
_SHAPES = ((8, 8), (8,), (8, 8, 8), (8, 8, 2, 2), (8, 8, 2, 2, 2))


class _Config:
    """A configuration in which every number is 2, as are the attention heads and the tensors of a list here."""

    def __getattr__(self, name: str) -> int:
        return 2

    def get_text_config(self) -> _Config:
        return self


def undone(transform: Any, reverse: Any) -> str | None:
    """Return what the reverse operations do not undo, or an empty text; None if the operations need a real model."""
    torch = import_module("transformers.core_model_loading").torch
    tried = False
    for shape in _SHAPES:
        given = _tensors(torch, transform, shape)
        made = _converted(transform, given)
        if made is None:
            continue
        tried = True
        # One side has the patterns with the escapes of regular expressions, the other without.
        names = dict(zip(transform.target_patterns, reverse.source_patterns))
        back = _converted(reverse, {names.get(name, name): [tensor] for name, tensor in made.items()})
        if back is None:
            return f"tensors of shape {list(shape)} are converted, but cannot be converted back"
        lost = _difference(torch, dict(zip(reverse.target_patterns, given.values())), back)
        if lost is not None:
            return f"a tensor of shape {list(shape)} for {lost!r} does not come back"
    return "" if tried else None


def _tensors(torch: Any, transform: Any, shape: tuple[int, ...]) -> dict[str, list[Any]]:
    """Return tensors for each source pattern: one, or two if the pattern numbers them."""
    generator = torch.Generator().manual_seed(0)
    return {
        pattern: [torch.rand(shape, generator=generator) for _ in range(2 if "*." in pattern else 1)]
        for pattern in transform.source_patterns
    }


def _converted(transform: Any, given: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the tensors after all operations of a rule, or None if these do not apply to the tensors."""
    values: Any = {name: list(tensors) for name, tensors in given.items()}
    try:
        for operation in transform.operations:
            values = operation.convert(
                values,
                source_patterns=transform.source_patterns,
                target_patterns=transform.target_patterns,
                full_layer_name=transform.target_patterns[0],
                model=None,
                config=_Config(),
                missing_keys=None,
            )
    except (RuntimeError, ValueError, IndexError, AttributeError, TypeError, KeyError, NotImplementedError):
        return None
    return dict(values)


def _difference(torch: Any, given: Mapping[str, list[Any]], back: Mapping[str, Any]) -> str | None:
    """Return the first source whose tensors are not the same as before."""
    for name, tensors in given.items():
        for number, tensor in enumerate(tensors):
            found = back.get(name.replace("*", str(number)))
            found = found[0] if isinstance(found, list) else found
            if found is None or found.shape != tensor.shape or not torch.equal(found, tensor):
                return name.replace("*", str(number))
    return None
