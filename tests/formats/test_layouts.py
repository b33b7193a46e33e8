"""A pickle that was read before is not parsed again, and nobody can tell but by the time it takes."""

import argparse
import threading
from collections import OrderedDict

import numpy as np
import pytest
from tests.formats.pickle.test_fast import shown

import statedict
from statedict import formats
from statedict.errors import ChecksumError, FormatError, LimitError
from statedict.formats import _layouts, _torch_zip
from statedict.formats._recent import Recent, forget
from statedict.state import Leaf, StateDict, many, raw_values

COUNT = 700


@pytest.fixture(autouse=True)
def _nothing_known():
    forget()
    yield
    forget()


def state(seed: int = 0, count: int = COUNT) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    shapes = [(4, 4), (3,), (2, 1, 5)]
    return {f"layer{n}.weight": generator.random(shapes[n % 3]).astype("f4") for n in range(count)}


def saved(path, obj) -> str:
    statedict.save(obj, path, durable=False)
    return str(path)


@pytest.fixture(name="parses")
def parses_fixture(monkeypatch):
    """How often a pickle was parsed."""
    seen = []
    parse = _torch_zip.parse
    monkeypatch.setattr(_torch_zip, "parse", lambda *args, **kwargs: seen.append(1) or parse(*args, **kwargs))
    return seen


def opened(path):
    """All that a checkpoint says, leaves by what they are and where they lie."""
    with statedict.open(path) as checkpoint:
        return (
            shown(checkpoint.object),
            checkpoint.globals,
            list(checkpoint.roots),
            checkpoint.producer,
            checkpoint.metadata,
            checkpoint.notes,
            checkpoint.verify(values=True),
        )


TREES = {
    "flat": lambda s: StateDict(s),
    "in a checkpoint": lambda s: {
        "model": StateDict(s),
        "epoch": 3,
        "args": {"lr": [0.1, None, True], "name": ("a", b"c")},
    },
    "two of them": lambda s: {"model": StateDict(s), "ema": StateDict({"".join([*n]): v + 1 for n, v in s.items()})},
    "with metadata": lambda s: StateDict(s, OrderedDict({"": {"version": 1}, "layer0": {"version": 2, "more": [1]}})),
}


@pytest.mark.parametrize("kind", TREES)
def test_a_file_of_the_same_layout_is_not_parsed(tmp_path, parses, kind):
    """The next file of a layout opens to what it holds itself: names, order, containers, specs, `_metadata`, elements."""
    paths = [saved(tmp_path / f"{n}.pt", TREES[kind](state(n))) for n in range(2)]
    expected = []
    for path in paths:
        forget()
        expected.append(opened(path))
    assert len(parses) == 2
    forget()
    opened(paths[0])
    del parses[:]
    assert [opened(path) for path in (paths[1], paths[0], paths[1])] == [expected[1], expected[0], expected[1]]
    assert not parses
    for number, path in enumerate(paths):
        loaded = statedict.load(path, backend="numpy")
        first = next(iter(loaded.values())) if kind in ("in a checkpoint", "two of them") else loaded
        assert all(np.array_equal(first[name], array) for name, array in state(number).items())
        if kind == "with metadata":
            assert loaded._metadata == {"": {"version": 1}, "layer0": {"version": 2, "more": [1]}}


UNKEPT = {
    # A pickle refers to a text that it has already.
    "the same names twice": lambda s: {"model": StateDict(s), "ema": StateDict({n: v + 1 for n, v in s.items()})},
    "tied": lambda s: StateDict({**s, "tied": s["layer0.weight"]}),
    "too few": lambda s: StateDict(dict(list(s.items())[:100])),
    "a tensor elsewhere": lambda s: {"model": StateDict(s), "mean": StateDict({"x": s["layer1.weight"] + 1})},
    "an empty tensor": lambda s: StateDict({**s, "none": np.zeros((0, 3), "f4")}),
    "an array": lambda s: {"model": StateDict(s), "history": np.arange(3)},
    "an unknown class": lambda s: {"model": StateDict(s), "when": argparse.Namespace(x=1)},
}


@pytest.mark.parametrize("kind", UNKEPT)
def test_what_is_not_plain_is_parsed_each_time(tmp_path, parses, kind):
    """A layout that is more than states of plain tensors and plain values is not kept."""
    path = saved(tmp_path / "a.pt", UNKEPT[kind](state()))
    assert opened(path) == opened(path)
    assert len(parses) == 2


def test_a_part_that_is_there_twice_stays_one(tmp_path, parses):
    """A list that the file has in two places is one list each time the file is opened."""
    shared = [1, 2]
    path = saved(tmp_path / "a.pt", {"model": StateDict(state()), "a": shared, "b": shared})
    for _ in range(2):
        with statedict.open(path) as checkpoint:
            assert checkpoint.object["a"] is checkpoint.object["b"]


def test_what_a_caller_changes_stays_with_the_caller(tmp_path):
    """Nothing that one caller does to what a file holds is seen by the next."""
    path = saved(tmp_path / "a.pt", {"model": TREES["with metadata"](state()), "args": {"lr": [0.1]}})
    expected = opened(path)
    for _ in range(2):
        checkpoint = statedict.open(path)
        model = checkpoint.object["model"]
        model._metadata["layer0"]["more"].append(5)
        model._metadata["new"] = {}
        leaf = next(iter(model.values()))
        leaf.become(leaf.spec._replace(shape=(1,), strides=(1,)), leaf.storage, leaf.traits)
        del model["layer1.weight"]
        checkpoint.object["args"]["lr"].append(1)
        checkpoint.globals.clear()
        checkpoint.close()
    assert opened(path) == expected


def test_each_file_has_leaves_of_its_own(tmp_path):
    """Leaves of two open files of one layout are never the same storage."""
    paths = [saved(tmp_path / f"{n}.pt", StateDict(state(n))) for n in range(2)]
    with statedict.open(paths[0]) as a, statedict.open(paths[1]) as b:
        ours, theirs = list(a.object.values()), list(b.object.values())
        assert many(ours).table is not many(theirs).table
        assert {leaf.storage.key for leaf in ours}.isdisjoint(leaf.storage.key for leaf in theirs)
        assert [leaf.storage for leaf in ours] == [leaf.storage for leaf in ours]


def test_a_damaged_file_of_a_known_layout(tmp_path):
    """Checksums are the file's own, and each time verified."""
    good, bad = (saved(tmp_path / name, StateDict(state())) for name in ("good.pt", "bad.pt"))
    with statedict.open(bad) as checkpoint:
        place = checkpoint.object["layer5.weight"].storage.where.offset
    raw = bytearray((tmp_path / "bad.pt").read_bytes())
    raw[place] ^= 1
    (tmp_path / "bad.pt").write_bytes(raw)
    statedict.load(good, backend="numpy")
    for _ in range(2):
        with pytest.raises(ChecksumError, match=r"layer5\.weight"):
            statedict.load(bad, backend="numpy")
    statedict.load(good, backend="numpy")


def test_a_layout_whose_members_are_others(tmp_path):
    """The same pickle over members of other sizes is parsed, and refused as it would be the first time."""
    import zipfile

    path = saved(tmp_path / "a.pt", StateDict(state()))
    statedict.load(path, backend="numpy")
    short = tmp_path / "short.pt"
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(short, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name)[: 4 if name.endswith("data/9") else None])
    with pytest.raises(FormatError, match="data/9 has 4 bytes") as again:
        statedict.open(str(short))
    forget()
    with pytest.raises(FormatError) as first:
        statedict.open(str(short))
    assert str(again.value) == str(first.value)


def test_narrower_limits_hold_for_a_known_layout(tmp_path):
    """What was read with the usual limits is refused by narrower ones all the same."""
    path = saved(tmp_path / "a.pt", {"model": StateDict(state()), "text": "x" * 2000})
    statedict.open(path).close()
    with pytest.raises(LimitError):
        formats.open(path, limits=formats.Limits(string_bytes=1000))


def test_no_file_is_held(tmp_path):
    """What is kept holds no file: it can be deleted, and its bytes are gone."""
    import gc
    import weakref

    path = saved(tmp_path / "a.pt", StateDict(state()))
    checkpoint = statedict.open(path)
    source = weakref.ref(next(iter(checkpoint.object.values())).storage.source)
    assert _layouts.RECENT._kept
    checkpoint.close()
    del checkpoint
    gc.collect()
    assert source() is None


def test_threads_open_the_same_file(tmp_path):
    """Many threads that open files of two layouts get what one gets."""
    paths = [saved(tmp_path / f"{n}.pt", StateDict(state(n, COUNT + n % 2))) for n in range(4)]
    expected = [opened(path) for path in paths]
    forget()
    found: list[bool] = []

    def read(number: int) -> None:
        found.extend(opened(paths[number % 4]) == expected[number % 4] for _ in range(3))

    threads = [threading.Thread(target=read, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 24


def test_a_state_is_a_state_either_way(tmp_path):
    """StateDicts of a file are equal value for value, whether it was parsed or found again."""
    path = saved(tmp_path / "a.pt", StateDict(state()))
    with statedict.open(path) as first, statedict.open(path) as second:
        one, two = first.state_dict(), second.state_dict()
        assert list(one) == list(two)
        assert [one.spec(name) for name in one] == [two.spec(name) for name in two]
        assert {type(value) for value in raw_values(two).values()} == {Leaf}
        assert all(np.array_equal(one[name], two[name]) for name in list(one)[:5])


def test_recent_keeps_what_was_asked_for_last():
    """At most so many values and so many bytes are kept; those asked for longest ago go first."""
    recent: Recent[int] = Recent(most=3, nbytes=100)
    for number in range(4):
        recent.keep(bytes([number]) * 10, number)
    assert [recent.find(bytes([number]) * 10) for number in range(4)] == [None, 1, 2, 3]
    recent.find(bytes([1]) * 10)
    recent.keep(b"x" * 75, 5)
    assert [recent.find(bytes([number]) * 10) for number in (1, 2, 3)] == [1, None, 3]
    recent.keep(b"y" * 200, 6)
    assert recent.find(b"y" * 200) is None
    assert recent.find(b"x" * 75) is None
    recent.keep(b"z" * 100, 7)
    recent.keep(b"z" * 100, 8)
    assert recent.find(b"z" * 100) == 8
    recent.forget()
    recent.keep(b"w" * 100, 9)
    assert recent.find(b"w" * 100) == 9
