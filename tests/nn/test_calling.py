"""Forward hooks run in PyTorch's order and with its rules; each test differs in the import alone."""

import copy
import pickle

import pytest


class Recorder:
    """A hook that can be pickled, and says what it saw."""

    def __init__(self, seen, name="hook"):
        self.seen, self.name = seen, name

    def __call__(self, module, *rest):
        self.seen.append((self.name, len(rest)))


def counting(lib):
    class Add(lib.nn.Module):
        def forward(self, x, more=0):
            if x == "wrong":
                raise ValueError("wrong input")
            return x + more

    return Add()


def test_order_and_changes(lib):
    """Hooks run in the order of registration, `prepend` first; what they return replaces arguments and output."""
    module, seen = counting(lib), []
    module.register_forward_pre_hook(lambda m, args: seen.append("pre 1") or (args[0] * 2,))
    module.register_forward_pre_hook(lambda m, args: seen.append("pre 0"), prepend=True)
    module.register_forward_pre_hook(
        lambda m, args, kwargs: seen.append("pre 2") or (args, {"more": kwargs["more"] + 1}), with_kwargs=True
    )
    module.register_forward_hook(lambda m, args, out: seen.append(("post 1", args, out)) or out * 10)
    module.register_forward_hook(lambda m, args, kwargs, out: seen.append(("post 2", kwargs, out)), with_kwargs=True)
    module.register_forward_hook(lambda m, args, out: seen.append("post 0"), prepend=True)
    assert module(3, more=4) == 110
    assert seen == ["pre 0", "pre 1", "pre 2", "post 0", ("post 1", (6,), 11), ("post 2", {"more": 5}, 110)]


def test_a_changed_argument_need_not_be_a_tuple(lib):
    """A pre-hook may return one new argument by itself."""
    module = counting(lib)
    module.register_forward_pre_hook(lambda m, args: args[0] + 1)
    assert module(1) == 2


def test_a_pre_hook_with_kwargs_must_return_both(lib):
    """A pre-hook that is given keyword arguments returns both or nothing."""
    module = counting(lib)
    module.register_forward_pre_hook(lambda m, args, kwargs: args, with_kwargs=True)
    with pytest.raises(RuntimeError, match="forward pre-hook must return None or a tuple"):
        module(1)


def test_handles(lib):
    """A handle removes its hook, once or more; as a context manager, on leaving."""
    module, seen = counting(lib), []
    handle = module.register_forward_hook(lambda *a: seen.append(1))
    with module.register_forward_pre_hook(lambda *a: seen.append(2)):
        module(1)
    handle.remove()
    handle.remove()
    module(1)
    assert seen == [2, 1]
    assert not module._forward_hooks
    assert not module._forward_pre_hooks


def test_always_call(lib):
    """A hook with `always_call` runs though forward, or a hook before it, raised; and the error is still raised."""
    module, seen = counting(lib), []
    module.register_forward_hook(lambda *a: seen.append("never"))
    module.register_forward_hook(lambda m, args, out: seen.append(("always", out)), always_call=True)
    with pytest.raises(ValueError, match="wrong input"):
        module("wrong")
    assert seen == [("always", None)]


def test_always_called_hooks_that_fail_are_warned_of(lib):
    """What an always-called hook raises on the way out does not hide the first error."""
    module = counting(lib)

    def fail(*args):
        raise KeyError("second")

    module.register_forward_hook(fail, always_call=True, with_kwargs=True)
    with (
        pytest.warns(UserWarning, match="that was silenced as another error was raised in forward"),
        pytest.raises(ValueError, match="wrong input"),
    ):
        module("wrong")


def test_hooks_are_copied_and_pickled(lib):
    """Hooks go with a copied or unpickled module, and those that are added later replace none of them."""
    module, seen = lib.nn.Identity(), []
    module.register_forward_hook(Recorder(seen))
    for other in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
        (hook,) = other._forward_hooks.values()
        other.register_forward_hook(Recorder(hook.seen, "later"))
        other(1)
        assert [name for name, _ in hook.seen] == ["hook", "later"] or hook.seen == []
    assert seen == []


def test_new_hooks_have_numbers_of_their_own():
    """A module out of a pickle may hold any hook numbers: a new hook takes another."""
    from statedict import nn

    module = nn.Identity()
    number = module.register_forward_hook(print).id
    other = nn.Identity()
    other._forward_hooks.update(dict.fromkeys(range(number, number + 50), print))
    other.register_forward_hook(print)
    assert len(other._forward_hooks) == 51
