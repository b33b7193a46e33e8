"""Reading the tensors of a state that came from a file: each once, some together, ties kept."""

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from tests.cost import calls

import statedict
from statedict.errors import UnknownNameError
from statedict.state import Leaf as Leaf
from statedict.state import StateDict, Storage, contiguous, dtype
from statedict.state.mapping import _read_ahead

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
def test_comparisons_of_keys(look):
    """Keys are compared a few times for each tensor, however many there are."""
    Key.compared = 0
    look(state_of(Counting(), 2000))
    assert Key.compared < 20 * 2000


@pytest.mark.parametrize("path", ["state.pt", "state.safetensors", "state.npz", "shards.safetensors"])
@pytest.mark.parametrize("look", [dict, lambda s: [s.pop(n) for n in list(s)], lambda s: [s[n] for n in reversed(s)]])
def test_looking_at_all_of_a_file_is_linear(tmp_path, path, look):
    """Four times as many tensors take about four times as many calls."""

    def cost(count):
        state = {f"t{number}": np.full(2, number, "float32") for number in range(count)}
        options = {"max_shard_size": 300} if path.startswith("shards") else {}
        statedict.save(state, tmp_path / path, durable=False, **options)
        index = f"{path}.index.json" if options else path
        with statedict.open(tmp_path / index) as checkpoint:
            read = checkpoint.state_dict().numpy()
            return calls(lambda: look(read))

    cost(60)  # What is imported and compiled once.
    assert cost(240) < 5 * cost(60)


def test_reading_ahead(monkeypatch):
    """Whoever reads one tensor after the other reads ever more of them together, up to a number of bytes."""
    monkeypatch.setattr(_read_ahead, "MOST", 64)
    source = Counting()
    state = state_of(source, 13)
    seen = iter(state.values())
    next(seen)
    assert source.batches == [1]
    assert [value[0] for value in seen] == list(range(1, 13))
    assert source.batches == [1, 2, 4, 4, 2]


def test_reading_ahead_leaves_large_tensors(monkeypatch):
    """A tensor that would exceed the number of bytes is read when its turn comes."""
    monkeypatch.setattr(_read_ahead, "MOST", 40)
    source = Counting()
    large = Leaf(contiguous(FLOAT, (9,)), Storage(source, "large", 36, bytes(36)))
    state = state_of(source, 4) | {"large": large}
    list(state.values())
    assert source.batches == [1, 2, 1, 1]


def test_changes_while_a_tensor_is_read():
    """What another thread deletes, replaces or reads while this one reads ahead stays as that thread has left it."""

    class Changing(Counting):
        def read_into(self, reads, **options):
            super().read_into(reads, **options)
            if len(reads) == 2:
                del state["t1"]
                state["t2"] = 7

    state = state_of(Changing(), 6)
    assert state["t0"][0] == 0
    with pytest.raises(UnknownNameError, match="t1"):
        state["t1"]
    assert state["t2"] == 7
    assert list(state) == ["t0", "t2", "t3", "t4", "t5"]


def test_a_value_that_is_deleted_while_it_is_read_stays_deleted():
    """Tensors inside a value (extra state) that another thread deletes meanwhile do not bring its name back."""

    class Deleting(Counting):
        def read_into(self, reads, **options):
            super().read_into(reads, **options)
            del state["extra"]

    state = StateDict({"extra": {"inner": state_of(Deleting(), 1).leaf("t0")}})
    with pytest.raises(UnknownNameError, match="extra"):
        state["extra"]
    assert "extra" not in state
    with pytest.raises(UnknownNameError, match="extra"):
        del state["extra"]


def test_threads_read_a_state_at_once():
    """Each tensor is the same object for all of them, and ties are kept."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(5):
            state = state_of(Counting(), 40, tied=["a", "b"])
            with ThreadPoolExecutor(4) as threads:
                found = list(
                    threads.map(lambda names, s=state: {n: s[n] for n in names}, [[*state], [*reversed(state)]] * 2)
                )
            assert all(each[name] is state[name] for each in found for name in state)
            assert np.shares_memory(state["a"], state["t0"])
            assert np.shares_memory(state["a"], state["b"])
    finally:
        sys.setswitchinterval(interval)


def test_reading_here_and_there():
    """A tensor that does not follow the one read before is read by itself, as is one added later."""
    source = Counting()
    state = state_of(source, 10)
    for name in ("t5", "t2", "t8", "t0"):
        assert state[name][0] == int(name[1:])
    state["new"] = state_of(source, 1).leaf("t0")
    assert state["new"][0] == 0
    assert source.batches == [1] * 5


@pytest.mark.parametrize("error", [statedict.ChecksumError("damaged"), ValueError("damaged"), MemoryError("damaged")])
def test_a_damaged_tensor_does_not_hide_its_neighbours(error):
    """A tensor can be read although one that would be read with it cannot."""

    class Damaged(Counting):
        def read_into(self, reads, **options):
            if any(read.storage.key.number == 5 for read in reads):
                raise error
            super().read_into(reads, **options)

    state = state_of(Damaged(), 10)
    for number, name in enumerate(state):
        if number == 5:
            with pytest.raises(type(error), match="damaged"):
                state[name]
        else:
            assert state[name][0] == number


@pytest.mark.parametrize("add", [lambda s, **new: s.update(new), lambda s, t: s.__setitem__("t", t)])
def test_ties_added_after_the_first_read(tmp_path, add):
    """A leaf that is added to the rows of a file's table is tied to the row that it is a view of."""
    path = tmp_path / "state.safetensors"
    statedict.save({"a": np.arange(4.0), "b": np.ones(2)}, path)
    with statedict.open(path) as checkpoint:
        state = checkpoint.state_dict().numpy()
        state["b"]
        row = state.leaf("a")
        add(state, t=Leaf(contiguous(row.spec.dtype, (2,), 1), row.storage))
        assert np.shares_memory(state["t"], state["a"])


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
