"""The methods `state_dict` and `load_state_dict`, and their hooks, built on the engine (`statedict.tree`).

If a load succeeds, its result is PyTorch's; if it raises, nothing has changed. Lossy casts are made silently, as in PyTorch;
`statedict.load_state_dict(module, …)` refuses them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from statedict import tree

from ._conversion import Conversion
from ._hooks import BoundHook, Hook, Hooks, RemovableHandle, add_hook

_RULES = tree.SOUND.allowing("truncation", "imaginary", "overflow")


class _Names(NamedTuple):
    missing_keys: list[str]
    unexpected_keys: list[str]


class _IncompatibleKeys(_Names):
    """The result of `load_state_dict`: names only in the module, and names only in the state."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


class Saving(Conversion):
    """Saving and loading the state of a module."""

    _version: int = 1
    _state_dict_hooks: Hooks
    _state_dict_pre_hooks: Hooks
    _load_state_dict_pre_hooks: Hooks
    _load_state_dict_post_hooks: Hooks

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Return every parameter and persistent buffer by its dotted name: the arrays themselves, not copies.

        Args:
            destination: a mapping to add them to, which is returned; None: a new OrderedDict with `_metadata`.
            prefix: text to put before each name.
            keep_vars: return the Parameters instead of their arrays.

        >>> {name: array.shape for name, array in nn.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        destination, prefix, keep_vars = tree.named_arguments(args, destination, prefix, keep_vars)
        return tree.read(_host(), self, destination=destination, prefix=prefix, keep_vars=keep_vars)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Copy the values of a state into the parameters and buffers of the same names.

        Args:
            state_dict: names to arrays, of any array library, or to leaves that have not been read yet.
            strict: require the same names.
            assign: use the arrays themselves, with their dtypes, instead of copying their elements.

        Returns:
            (missing_keys, unexpected_keys).

        Raises LoadError (a RuntimeError, with PyTorch's text) if names differ and `strict`, or if shapes differ; nothing
        has then changed.
        """
        outcome = tree.write(_host(), self, state_dict, strict=strict, assign=assign, rules=_RULES)
        return _IncompatibleKeys(outcome.missing, outcome.unexpected)

    # methods that the engine calls, and that overriding methods call with super()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Add the entries of this module, without its children, to `destination`."""
        tree.read_own(_host(), self, destination, prefix, keep_vars)

    def _load_from_state_dict(
        self,
        state_dict: Any,
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Load the entries of this module, without its children; append problems to the lists."""
        tree.write_own(
            _host(), self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def get_extra_state(self) -> Any:
        """Override this and `set_extra_state` to save other values than arrays, under `_extra_state`."""
        raise RuntimeError("get_extra_state() has to be overridden by the module to be called")

    def set_extra_state(self, state: Any) -> None:
        """Override this and `get_extra_state` to load the extra state."""
        raise RuntimeError("set_extra_state() has to be overridden by the module to be called")

    # hooks

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before this module's state is collected."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` after this state was collected; it may change it."""
        hook._from_public_api = True  # type: ignore[attr-defined]
        return add_hook(self._state_dict_hooks, hook)

    def _register_state_dict_hook(self, hook: Hook) -> RemovableHandle:
        if getattr(hook, "_from_public_api", False):
            raise RuntimeError(
                "Cannot register the same function as the state dict post hook that was previously registered via "
                "register_state_dict_post_hook"
            )
        return add_hook(self._state_dict_hooks, hook)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call a hook before this module is loaded; it may change the state to load.

        Its call is `hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`.
        """
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def _register_load_state_dict_pre_hook(self, hook: Hook, with_module: bool = False) -> RemovableHandle:
        return add_hook(self._load_state_dict_pre_hooks, BoundHook(hook, self) if with_module else hook)

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after this module and its children were loaded; it may edit the lists."""
        return add_hook(self._load_state_dict_post_hooks, hook)


def _host() -> Any:
    # Imported here because the host uses Module, which derives from this class.
    from ._host import HOST

    return HOST
