"""Module: PyTorch's `nn.Module` without PyTorch, on arrays of any library.

It is built in layers, each of which knows the ones below: what is registered (`_registration`), how the tree is walked
(`_traversal`), called (`_calling`), converted (`_conversion`), saved and loaded (`_saving`); here is how it prints.
Private stores and methods keep PyTorch's names, so that the one engine walks both.
"""

from __future__ import annotations

from ._saving import Saving


class Module(Saving):
    """The base of all layers and models: assign Parameters, Buffers and Modules to attributes, and define `forward`.

    >>> from statedict import nn
    >>> class Net(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.layer = nn.Linear(4, 2)
    ...     def forward(self, x):
    ...         return nn.functional.relu(self.layer(x))
    >>> Net()
    Net(
      (layer): Linear(in_features=4, out_features=2, bias=True)
    )
    """

    def _get_name(self) -> str:
        return type(self).__name__

    def extra_repr(self) -> str:
        """What stands between the brackets of the module's repr: its settings."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        settings = extra.split("\n") if extra else []
        children = [f"({name}): {indented(repr(module), 2)}" for name, module in self._modules.items()]
        if not children and len(settings) <= 1:
            return f"{self._get_name()}({extra})"
        lines = "\n  ".join(settings + children)
        return f"{self._get_name()}(\n  {lines}\n)" if lines else f"{self._get_name()}()"


def indented(text: str, spaces: int) -> str:
    """The text with all lines but the first moved to the right; blank lines stay empty."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(" " * spaces + line if line.strip() else "" for line in rest)])
