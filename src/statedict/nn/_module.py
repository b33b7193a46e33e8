"""Module: PyTorch's `nn.Module` without PyTorch, on arrays of any library.

It is built from base classes: registration (`_registration`), walking the tree (`_traversal`), calling (`_calling`),
conversion (`_conversion`), saving and loading (`_saving`). This file adds how it prints. Private attributes and methods have
PyTorch's names, so that the same engine walks both.
"""

from __future__ import annotations

from ._saving import Saving


class Module(Saving):
    """The base of all layers and models: assign Parameters, Buffers and Modules to attributes, and define `forward`.

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
        """Return the settings to show in the module's repr."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        settings = extra.split("\n") if extra else []
        children = [f"({name}): {indented(repr(module))}" for name, module in self._modules.items()]
        if not children and len(settings) <= 1:
            return f"{self._get_name()}({extra})"
        lines = "\n  ".join(settings + children)
        return f"{self._get_name()}(\n  {lines}\n)" if lines else f"{self._get_name()}()"


def indented(text: str) -> str:
    """Indent, by two spaces, all lines of the text except the first; blank lines stay empty."""
    first, *rest = text.split("\n")
    return "\n".join([first, *(f"  {line}" if line.strip() else "" for line in rest)])
