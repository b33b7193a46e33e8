"""Reading the tensors of a state that came from a file: each once, some together, ties kept."""

import numpy as np
import pytest

import statedict
from statedict.state import Leaf as Leaf
from statedict.state import StateDict, Storage, contiguous, dtype
from statedict.state.mapping import _statedict

FLOAT = dtype("float32")


class Counting:
    """A Source that counts what is asked of it."""

    def __init__(self):
        self.batches = []

    def read_into(self, reads, **options):
        self.batches.append(len(reads))
        for storage, _, into in reads:
            into[:] = storage.where

    def verify(self, storages):
        """Nothing is known of them."""

    def view(self, storage, *, writable=False):
        return None


class Key:
    """A storage's key that counts comparisons."""

    compared = 0

    def __init__(self, number):
        self.number = number

    def __hash__(self):
        return hash(self.number)

    def __eq__(self, other):
        Key.compared += 1
        return self.number == other.number


def state_of(source, count, tied=()):
    """`count` tensors of four elements; the names in `tied` are further leaves of the first storage."""
    values = {}
    for number in range(count):
        raw = np.full(4, number, np.float32).tobytes()
        values[f"t{number}"] = Leaf(contiguous(FLOAT, (4,)), Storage(source, Key(number), 16, raw))
    first = next(iter(values.values())) if values else None
    values |= {name: Leaf(contiguous(FLOAT, (2,), 1), first.storage) for name in tied}
    return StateDict(values, backend="numpy")


@pytest.mark.parametrize("look", [lambda s: list(s.items()), lambda s: list(s.values()), lambda s: [s[n] for n in s]])
def test_looking_at_all_is_linear(look):
    """Keys are compared a few times for each tensor, however many there are."""
    Key.compared = 0
    look(state_of(Counting(), 2000))
    assert Key.compared < 20 * 2000


def test_items_are_read_together(monkeypatch):
    """`items` and `values` read several tensors ahead, up to a limit."""
    monkeypatch.setattr(_statedict, "READ_AHEAD", 64)
    source = Counting()
    state = state_of(source, 10)
    seen = iter(state.values())
    next(seen)
    assert source.batches == [4]
    assert [value[0] for value in seen] == list(range(1, 10))
    assert source.batches == [4, 4, 2]


def test_ties_are_read_once_and_kept():
    """The first access to any of them reads all that lie in one storage, and they share memory."""
    source = Counting()
    state = state_of(source, 3, tied=["a", "b"])
    assert np.shares_memory(state["a"], state["t0"])
    assert np.shares_memory(state["b"], state["t0"])
    assert source.batches == [1]


def test_a_leaf_that_is_put_in_later_is_tied_too():
    """Names added after the first read are tied too; replaced and deleted ones are left alone."""
    source = Counting()
    state = state_of(source, 3, tied=["a", "b"])
    _ = state["t1"]
    state["c"] = Leaf(contiguous(FLOAT, (1,)), state.leaf("t0").storage)
    state["a"] = 7
    del state["b"]
    assert np.shares_memory(state["t0"], state["c"])
    assert state["a"] == 7


def test_changing_the_size_while_iterating_raises():
    """Changing the size during iteration raises RuntimeError, as in a dict."""
    state = state_of(Counting(), 3)
    seen = iter(state.items())
    name, _ = next(seen)
    del state[name]
    with pytest.raises(RuntimeError, match="changed size during iteration"):
        next(seen)


def test_thousands_of_names_of_a_file(tmp_path):
    """A state of a file gives what was saved."""
    torch = pytest.importorskip("torch")
    given = {f"l.{i}": torch.full((2,), float(i)) for i in range(3000)}
    statedict.save(given, tmp_path / "n.pt")
    with statedict.open(tmp_path / "n.pt") as checkpoint:
        found = dict(checkpoint.state_dict().items())
    assert all(torch.equal(found[name], value) for name, value in given.items())
