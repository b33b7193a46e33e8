"""The engine under PyTorch's own names, and away again."""

from __future__ import annotations

import inspect
import io
from typing import Any

import pytest
import torch
from torch import nn

from statedict.torch import install, module_state_dict, uninstall

PLACES = [
    (nn.Module, "state_dict"),
    (nn.Module, "load_state_dict"),
    (torch.optim.Optimizer, "state_dict"),
    (torch.optim.Optimizer, "load_state_dict"),
    (torch, "save"),
    (torch, "load"),
    (torch.serialization, "save"),
    (torch.serialization, "load"),
]


def there() -> list[Any]:
    return [vars(owner)[name] for owner, name in PLACES]


def test_installing_is_undone_exactly() -> None:
    """Every function is the very object that it was."""
    before = there()
    with install():
        assert nn.Module.state_dict is module_state_dict
        made = nn.Sequential(nn.Linear(1, 1))
        assert repr(made.load_state_dict(made.state_dict())) == "<All keys matched successfully>"
    assert there() == before


def test_the_replacements_take_the_same_arguments() -> None:
    """The replacements take PyTorch's arguments, also by name: torch.distributed.checkpoint passes `self=`."""

    def parameters() -> list[Any]:
        signatures = [inspect.signature(function) for function in there()]
        return [[(each.name, each.kind) for each in found.parameters.values()] for found in signatures]

    before = parameters()
    with install():
        assert parameters() == before


def test_installing_again_changes_nothing() -> None:
    """One `uninstall` undoes any number of `install`s, and an inner `with` leaves it to the outer."""
    before = there()
    install()
    install()
    uninstall()
    assert there() == before
    with install():
        with install():
            pass
        assert nn.Module.state_dict is module_state_dict
    assert there() == before
    uninstall()
    assert there() == before


def test_an_error_inside_uninstalls() -> None:
    """An error inside the `with` block uninstalls the engine."""
    before = there()
    with pytest.raises(ValueError, match="inside"), install():
        raise ValueError("inside")
    assert there() == before


def test_what_others_put_there_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """A wrapper that somebody has put around the engine is not thrown away."""
    before = nn.Module.state_dict
    install()
    ours = nn.Module.state_dict

    def wrapper(self: nn.Module, **options: Any) -> Any:
        return ours(self, **options)

    nn.Module.state_dict = wrapper  # type: ignore[method-assign]
    try:
        uninstall()
        assert nn.Module.state_dict is wrapper
    finally:
        nn.Module.state_dict = before  # type: ignore[method-assign]


def test_the_copier_of_pytorch_is_not_entered(monkeypatch: pytest.MonkeyPatch) -> None:
    """While installed, modules without a loader of their own are loaded by this engine alone."""

    def forbidden(*args: Any) -> None:
        raise AssertionError("PyTorch's own machinery was entered")

    made = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.LSTM(2, 2), nn.MultiheadAttention(2, 1))
    state = made.state_dict()
    with monkeypatch.context() as patched, install():
        patched.setattr(nn.Module, "_load_from_state_dict", forbidden)
        patched.setattr(nn.Module, "_save_to_state_dict", forbidden)
        made.load_state_dict(made.state_dict())
    assert list(made.state_dict()) == list(state)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_script_modules_are_assigned() -> None:
    """Script modules, whose registries are not dicts, are loaded with `assign`."""
    scripted = torch.jit.script(nn.Linear(2, 2))
    with install():
        made = torch.jit.script(nn.Linear(2, 2))
        assert repr(made.load_state_dict(scripted.state_dict(), assign=True)) == "<All keys matched successfully>"


def test_what_others_have_replaced_is_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """A function that another library has put in the place of `torch.save` stays, and a warning says so."""

    def theirs(*args: Any, **kwargs: Any) -> None:
        """Nothing is saved."""

    monkeypatch.setattr(torch, "save", theirs)
    with pytest.warns(UserWarning, match="torch.save was replaced by .* and is left as it is"), install():
        assert torch.save is theirs


def test_bytes_after_an_archive() -> None:
    """PyTorch's own reader lets them be, and so does ours under its name."""
    file = io.BytesIO()
    torch.save({"w": torch.ones(1)}, file)
    padded = file.getvalue() + bytes(10)
    with install():
        assert list(torch.load(io.BytesIO(padded))) == ["w"]
