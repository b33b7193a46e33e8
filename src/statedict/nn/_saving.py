"""`state_dict` and `load_state_dict` as methods, and the hooks around them: all on the one engine (`statedict.tree`).

A load gives what PyTorch's gives where that succeeds, and changes nothing where it raises. Casts that lose elements are
made, as PyTorch makes them; `statedict.load_state_dict(module, …)` refuses them.
"""

from __future__ import annotations

import warnings
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
    """What `load_state_dict` returns: the names that the module has and the state has not, and the other way round."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


class Saving(Conversion):
    """A module's state out and in."""

    _version: int = 1
    _state_dict_hooks: Hooks
    _state_dict_pre_hooks: Hooks
    _load_state_dict_pre_hooks: Hooks
    _load_state_dict_post_hooks: Hooks

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        """Every parameter and persistent buffer by its dotted name: the arrays themselves, not copies.

        Args:
            destination: a mapping to put them into, which is returned; a new OrderedDict with `_metadata` where it is
                None.
            prefix: what comes before each name.
            keep_vars: give the Parameters instead of the arrays that they hold.

        >>> from statedict import nn
        >>> {name: array.shape for name, array in nn.Linear(3, 2).state_dict().items()}
        {'weight': (2, 3), 'bias': (2,)}
        """
        if args:
            warnings.warn(
                "Positional args are being deprecated, use kwargs instead. Refer to "
                "https://pytorch.org/docs/main/generated/torch.nn.Module.html#torch.nn.Module.state_dict for details.",
                FutureWarning,
                stacklevel=2,
            )
            destination = args[0] if destination is None else destination
            prefix = args[1] if len(args) > 1 and prefix == "" else prefix
            keep_vars = args[2] if len(args) > 2 and keep_vars is False else keep_vars
        return tree.read(_host(), self, destination=destination, prefix=prefix, keep_vars=keep_vars)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Put a state's elements into the parameters and buffers of the same names.

        Args:
            state_dict: names to arrays, of any array library, or to leaves that have not been read yet.
            strict: the names must be the same ones.
            assign: take the arrays themselves, with their dtypes, instead of copying their elements.

        Returns:
            (missing_keys, unexpected_keys).

        Raises LoadError (a RuntimeError, with PyTorch's text) where names differ and `strict`, or shapes differ; then
        nothing was changed.
        """
        outcome = tree.write(_host(), self, state_dict, strict=strict, assign=assign, rules=_RULES)
        return _IncompatibleKeys(outcome.missing, outcome.unexpected)

    # what the engine calls, and what overriding methods call with super()

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        """Put this module's own entries into `destination`, not its children's."""
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
        """Fill this module's own entries from `state_dict`, not its children's; what does not fit goes into the lists."""
        tree.write_own(
            _host(), self, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def get_extra_state(self) -> Any:
        """Override this and `set_extra_state` for what a state is to hold besides arrays, under `_extra_state`."""
        raise RuntimeError("get_extra_state() has to be overridden by the module to be called")

    def set_extra_state(self, state: Any) -> None:
        """Override this and `get_extra_state`."""
        raise RuntimeError("set_extra_state() has to be overridden by the module to be called")

    # hooks

    def register_state_dict_pre_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, prefix, keep_vars)` before this module's state is taken."""
        return add_hook(self._state_dict_pre_hooks, hook)

    def register_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, state_dict, prefix, local_metadata)` after this module's state was taken, to change it."""
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
        """Call a hook before this module is loaded, to change the state that is about to be loaded.

        It is `hook(module, state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs)`.
        """
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def _register_load_state_dict_pre_hook(self, hook: Hook, with_module: bool = False) -> RemovableHandle:
        return add_hook(self._load_state_dict_pre_hooks, BoundHook(hook, self) if with_module else hook)

    def register_load_state_dict_post_hook(self, hook: Hook) -> RemovableHandle:
        """Call `hook(module, incompatible_keys)` after this module and those below were loaded; it may edit the lists."""
        return add_hook(self._load_state_dict_post_hooks, hook)


def _host() -> Any:
    # The host names Module, which is built on this class.
    from ._host import HOST

    return HOST
