"""HostSuite: what the Host of every module system must do."""

from __future__ import annotations

from ._refusal_laws import RefusalLaws
from ._state_laws import StateLaws


class HostSuite(StateLaws, RefusalLaws):
    """The laws of a Host, as a pytest class: subclass it and provide `host`, `module`, `parameter` and `numpy`.

    Modules have PyTorch's private attributes (`_parameters`, `_buffers` …), as the docstring of `statedict.tree.Host` says.

    >>> from statedict import nn
    >>> from statedict.nn import HOST
    >>> class TestNn(HostSuite):
    ...     host = HOST
    ...
    ...     def module(self):
    ...         return nn.Module()
    ...
    ...     def parameter(self, array):
    ...         return nn.Parameter(array)
    ...
    ...     def buffer(self, array):
    ...         return nn.Buffer(array)
    ...
    ...     def numpy(self, value):
    ...         return value
    >>> TestNn().test_a_state_has_every_saved_name_in_order()
    """
