"""Parameter and Buffer: the two kinds of array that a module registers when they are assigned to an attribute."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from ._arrays import dtype_of
from ._variable import Variable


class Parameter(Variable):
    """An array to be trained. Assigned to an attribute of a module, it is in `module.parameters()` and is saved.

    Args:
        data: an array of any array API library, not copied; None gives an empty float32 array.
        requires_grad: PyTorch's flag. RuntimeError if it is set and the elements are neither floating point nor complex.

    >>> weight = Parameter(np.ones((2, 3), np.float32))
    >>> weight.shape, weight.requires_grad, (weight @ np.ones(3)).tolist()
    ((2, 3), True, [3.0, 3.0])
    """

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        super().__init__(np.empty(0, np.float32) if data is None else data, requires_grad)
        if requires_grad:
            self.requires_grad_()

    def requires_grad_(self, requires_grad: bool = True) -> Self:
        """Set the flag; returns itself. RuntimeError if the dtype cannot have gradients."""
        kind = dtype_of(self.data.dtype).kind
        if requires_grad and kind not in ("float", "complex"):
            raise RuntimeError("Only Tensors of floating point and complex dtype can require gradients")
        return super().requires_grad_(requires_grad)


class Buffer(Variable):
    """An array that is saved but not trained. Assigned to an attribute of a module, it is in `module.buffers()`.

    Args:
        data: an array of any array API library, not copied; None gives an empty float32 array.
        persistent: whether it is in the module's `state_dict`.

    >>> module = nn.Module()
    >>> module.mean = nn.Buffer(np.zeros(3))
    >>> list(module.state_dict()), list(module.parameters())
    (['mean'], [])
    """

    def __init__(self, data: Any = None, persistent: bool = True) -> None:
        super().__init__(np.empty(0, np.float32) if data is None else data)
        self.persistent = persistent

    def _settings(self) -> dict[str, Any]:
        return {"persistent": self.persistent}
