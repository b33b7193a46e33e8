"""Calling a module: `forward`, with the hooks before and after it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ._hooks import Hook, Hooks, RemovableHandle, add_hook
from ._traversal import Traversal


def _forward_unimplemented(self: Calling, *args: Any, **kwargs: Any) -> Any:
    raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')


class Calling(Traversal):
    """`module(...)`, and its hooks."""

    _forward_hooks: Hooks
    _forward_hooks_with_kwargs: Hooks
    _forward_hooks_always_called: Hooks
    _forward_pre_hooks: Hooks
    _forward_pre_hooks_with_kwargs: Hooks

    forward: Callable[..., Any] = _forward_unimplemented

    def register_forward_pre_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args)` before `forward`; if it returns a value, this replaces the arguments.

        With `with_kwargs` it is called as `hook(module, args, kwargs)` and returns None or `(args, kwargs)`. With
        `prepend` it runs before the hooks that are registered already.
        """
        marks = [self._forward_pre_hooks_with_kwargs] if with_kwargs else []
        return add_hook(self._forward_pre_hooks, hook, *marks, prepend=prepend)

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> RemovableHandle:
        """Call `hook(module, args, output)` after `forward`; if it returns a value, this replaces the output.

        With `with_kwargs` it is called as `hook(module, args, kwargs, output)`. With `always_call` it is also called if
        `forward` or an earlier hook raised, with the output so far or None.
        """
        marks = [self._forward_hooks_with_kwargs] if with_kwargs else []
        marks += [self._forward_hooks_always_called] if always_call else []
        return add_hook(self._forward_hooks, hook, *marks, prepend=prepend)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if not self._forward_hooks and not self._forward_pre_hooks:
            return self.forward(*args, **kwargs)
        return self._call_with_hooks(args, kwargs)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        called: set[int] = set()
        output: Any = None
        try:
            args, kwargs = self._before_forward(args, kwargs)
            output = self.forward(*args, **kwargs)
            for number, hook in list(self._forward_hooks.items()):
                called.add(number)
                output = self._after_forward(number, hook, args, kwargs, output)
        except Exception:
            for number in self._forward_hooks_always_called:
                if number not in called:
                    output = self._after_failure(number, args, kwargs, output)
            raise
        return output

    def _before_forward(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for number, hook in list(self._forward_pre_hooks.items()):
            if number in self._forward_pre_hooks_with_kwargs:
                changed = hook(self, args, kwargs)
                if changed is not None:
                    if not isinstance(changed, tuple) or len(changed) != 2:
                        raise RuntimeError(
                            f"forward pre-hook must return None or a tuple of (new_args, new_kwargs), but got {changed}."
                        )
                    args, kwargs = changed
            else:
                changed = hook(self, args)
                if changed is not None:
                    args = changed if isinstance(changed, tuple) else (changed,)
        return args, kwargs

    def _after_forward(
        self, number: int, hook: Hook, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
    ) -> Any:
        if number in self._forward_hooks_with_kwargs:
            changed = hook(self, args, kwargs, output)
        else:
            changed = hook(self, args, output)
        return output if changed is None else changed

    def _after_failure(self, number: int, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> Any:
        try:
            return self._after_forward(number, self._forward_hooks[number], args, kwargs, output)
        except Exception as error:  # noqa: BLE001  # the first error is on its way to the caller: this one may not hide it
            warnings.warn(
                "module forward hook with ``always_call=True`` raised an exception that was silenced as another error "
                f"was raised in forward: {error}",
                stacklevel=5,
            )
            return output
