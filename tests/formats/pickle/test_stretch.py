"""Records that are found with arrays give the same as the machine: leaves, errors and memo."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from tests.formats.pickle.test_fast import outcome, slots, state

from statedict.errors import FormatError
from statedict.formats._pickle import StorageId
from statedict.formats._pickle.reading import _opcodes, _record_columns, _record_runs, _records
from statedict.state import Leaf, Table, leaf_of, leaves_of, rows_of

SHAPES = [(4, 4), (4,), (2, 3, 3), (300,), (2,) * 5, ()]
DTYPES = ["f4", "f2", "i8", "u1"]


@pytest.fixture(autouse=True)
def _short_stretches(monkeypatch):
    """Stretches of a few records, so that small pickles do."""
    monkeypatch.setattr(_record_columns, "FEW", 16)


class Rows:
    """A table over the test's storages; its rows are claimed when the machine arrives at their records."""

    have_rows = True

    def __init__(self, storages) -> None:
        self.single: list[Leaf] = []
        self.table = Table(self)
        self.storages = storages
        self.offered = []
        self.found = {}
        self.claimed = 0

    def offer(self, kinds, claims, of, keys):
        first = len(self.offered)
        self.offered += [(kinds[kind], claims[kind], str(key)) for kind, key in zip(of.tolist(), keys.tolist())]
        return np.arange(first, len(self.offered))

    def claim(self, number: int, count: int) -> list[Leaf] | None:
        offered = self.offered[number : number + count]
        keys = {key for _, _, key in offered}
        if len(keys) < count or not keys.isdisjoint(self.storages.made):
            return None
        first = len(self.table)
        try:
            for row, (kind, claim, key) in enumerate(offered, first):
                dtype = kind.spec.dtype
                self.found[row] = self.storages(StorageId(dtype, key, kind.location, claim // dtype.itemsize)).storage
        except FormatError:
            return None
        for kind, claim, _ in offered:
            self.table.extend([len(self.table.kinds)], [0], [claim])
            self.table.kinds.append(kind)
        self.claimed += count
        return leaves_of(self.table, range(first, first + count))

    def storage_of(self, table, row: int):
        return self.found[row]


@pytest.fixture(name="both")
def both_fixture(read, storages, monkeypatch):
    """A pickle's outcome with stretches, and by the machine alone; how many records were found in stretches."""

    def both(data: bytes):
        callback = storages()
        rows = Rows(callback)
        quick = outcome(read, data, storage=callback, rows=rows)
        with monkeypatch.context() as patch:
            patch.setattr(_opcodes, "read_records", lambda machine, at: at)
            slow = outcome(read, data)
        return quick, slow, rows.claimed

    return both


def plain(count: int, kinds: int = 6) -> dict[str, Leaf]:
    """A flat state; its names and keys are of many lengths."""
    made = {}
    for number in range(count):
        kind = number % kinds
        array = np.zeros(SHAPES[kind % len(SHAPES)], DTYPES[kind % len(DTYPES)])
        made[f"läyers.{number}.{'weight' * (number % 4)}"] = leaf_of(array)
    return made


@pytest.mark.parametrize("count", [80, 1100, 5000])
def test_a_plain_state_is_found_whole(both, write, count):
    """All records of a plain state are found, except the first, whose slots have other opcodes, and the first of
    each 1,000."""
    quick, slow, found = both(write(plain(count)))
    assert quick == slow
    assert found >= count - 36


def test_stretches_in_several_dicts(both, write):
    """States beside and inside each other are found, with other values between them."""
    quick, slow, found = both(
        write({"epoch": 3, "model": plain(300), "more": [plain(40), {"ema": plain(1200)}], "end": None})
    )
    assert quick == slow
    assert found > 1200


def test_what_is_not_plain_ends_a_stretch(both, write):
    """Ties, views, empty tensors and other values among the tensors are left to the other readers."""
    mixed = plain(600)
    names = list(mixed)
    mixed |= {"tied": mixed[names[-3]], "view": Leaf(mixed[names[7]].spec, mixed[names[7]].storage), "step": 7}
    mixed |= {f"late{number}": leaf_of(np.zeros(3, "f8")) for number in range(200)}
    quick, slow, found = both(write(mixed))
    assert quick == slow
    assert found > 400


def test_many_small_dicts(both, write):
    """Records are found wherever they are: between other values too, and where a name is used again."""
    states = {number: {"a": leaf_of(np.zeros(2)), "b": 1, "c": leaf_of(np.zeros(3, "f4"))} for number in range(500)}
    quick, slow, found = both(write(states))
    assert quick == slow
    assert found > 900


def optimizer(count: int, entries: str, numbers: range | None = None) -> dict[int, dict[str, Leaf]]:
    """The state of an optimizer: a small dict of tensors for each parameter. All have the same objects as names."""
    return {
        number: {name: leaf_of(np.zeros((4,) * index, "f4")) for index, name in enumerate(entries)}
        for number in numbers or range(count)
    }


@pytest.mark.parametrize("entries", ["abc", "ab", "a"])
@pytest.mark.parametrize("before", [0, 60])
def test_the_state_of_an_optimizer_is_a_run(both, write, monkeypatch, entries, before):
    """The small dicts of all parameters are read together, also after a state whose names fill the first slots."""
    runs = []
    push = _record_runs._push
    monkeypatch.setattr(_record_runs, "_push", lambda m, *args: runs.append(len(args[2])) or push(m, *args))
    keys = range(70_000 - 300, 70_000) if before else None
    states = {"state": optimizer(1100, entries), "more": optimizer(300, entries, keys), "lr": 0.1}
    quick, slow, found = both(write({"model": plain(before), "optimizer": states}))
    assert quick == slow
    assert found > len(entries) * 1300
    assert max(runs) > len(entries) * 500


def test_any_mutant_of_an_optimizer_is_read_alike(both, write):
    """Changed bytes between the small dicts give the same values, or the same error at the same byte."""
    generator = random.Random(5)
    errors = set()
    for entries in ("ab", "a"):
        whole = write({"before": plain(40), "state": optimizer(40, entries), "more": optimizer(20, entries)})
        closing = re.compile(rb"[us](?=K.\}r)", re.DOTALL)
        gaps = [match.start() for match in closing.finditer(whole, whole.index(b"state"))]
        for _ in range(80):
            raw = bytearray(whole)
            at = generator.choice(gaps) + generator.randrange(-3, 20)
            if generator.random() < 0.4:
                raw[at] ^= 1 << generator.randrange(8)
            elif generator.random() < 0.7:
                raw[at] = generator.choice(b"KMJXhjqrsu}()0N")
            else:
                raw[at:at] = bytes([generator.choice(b"suN0(})K")])
            quick, slow, _ = both(bytes(raw))
            assert quick == slow
            errors.add(quick[0] if isinstance(quick[0], type) else None)
    assert len(errors) >= 2


def test_the_slots_of_small_dicts_can_be_asked_for(both, read, write):
    """A GET of any slot of an optimizer's state gives what the machine would have put there."""
    data = write(optimizer(40, "ab"))
    end = read(data).end
    quick, slow, found = both(data[: end - 1] + b"0](" + slots(256 + 300) + b"e.")
    assert quick == slow
    assert found > 20


def test_the_mixed_state_of_the_quick_path(both, write):
    """The mixed state of `test_fast` is read in the same way."""
    quick, slow, _ = both(write({"a": state(200), "b": plain(100)}))
    assert quick == slow


def test_any_mutant_is_read_alike(both, write):
    """Changed bytes give the same values, or the same error at the same byte."""
    generator = random.Random(11)
    whole = write(plain(1100, 3))
    errors = set()
    for _ in range(150):
        raw = bytearray(whole)
        for _ in range(generator.choice((1, 1, 2))):
            at = generator.randrange(3000, len(raw))
            change = generator.random()
            if change < 0.5:
                raw[at] ^= 1 << generator.randrange(8)
            elif change < 0.8:
                raw[at] = generator.choice(b"KMJhjqrtRQ)(\x85\x86\x87\x88\x89.0NuX")
            else:
                del raw[at : at + generator.choice((1, 2, 5))]
        quick, slow, _ = both(bytes(raw))
        assert quick == slow
        errors.add(quick[0] if isinstance(quick[0], type) else None)
    assert len(errors) >= 2


def test_every_byte_of_a_record_counts(both, write):
    """Whichever byte of a record is changed, the outcome is the machine's."""
    whole = write(plain(60, 1))
    start = whole.index("läyers.50".encode()) - 5
    stop = whole.index("läyers.51".encode()) - 5
    for at in range(start, stop):
        for change in (1, 0x20, 0x80):
            raw = bytearray(whole)
            raw[at] ^= change
            quick, slow, _ = both(bytes(raw))
            assert quick == slow


def test_a_key_that_is_set_twice(both, write):
    """A name that comes again, in the same thousand or in another, is refused at the same byte."""
    whole = write(plain(2300, 1))
    for one, other in ((1500, 1501), (1500, 2200), (100, 2200)):
        names = [next(name for name in plain(2300, 1) if name.startswith(f"läyers.{n}.")) for n in (one, other)]
        old, new = (name.encode() for name in names)
        raw = whole.replace(len(old).to_bytes(4, "little") + old, len(new).to_bytes(4, "little") + new, 1)
        assert raw != whole
        quick, slow, _ = both(raw)
        assert quick == slow
        assert issubclass(quick[0], FormatError)


def test_the_slots_inside_a_stretch_can_be_asked_for(both, read, write):
    """A GET of any slot of a stretch gives what the machine would have put there."""
    data = write(plain(70))
    end = read(data).end
    top = 256
    while True:  # Count the slots that the file sets.
        try:
            read(data[: end - 1] + b"0" + b"j" + top.to_bytes(4, "little") + b".")
        except FormatError:
            break
        top += 1
    quick, slow, found = both(data[: end - 1] + b"0](" + slots(top) + b"e.")
    assert quick == slow
    assert found > 20


def test_names_that_are_left_alone(both, write):
    """Names with control characters, and names that could be a device, are left to the machine."""
    for odd in ("a\nb", "a\0b", "cpu", "((h\x04h\x05X\0\0\0"):
        made = plain(100)
        quick, slow, _ = both(write({**made, odd: leaf_of(np.zeros(1)), **{f"z{name}": made[name] for name in made}}))
        assert quick == slow


def test_a_storage_that_is_missing(both, write, storages):
    """If a storage is missing, the machine reports which."""
    data = write(plain(200))

    class Short(storages):
        def __call__(self, identity):
            if identity.key == "150":
                raise FormatError("there is no storage '150'")
            return super().__call__(identity)

    from statedict.formats._pickle import parse

    callback = Short()
    with pytest.raises(FormatError, match="no storage '150'") as quick:
        parse(data, storage=callback, rows=Rows(callback))
    with pytest.raises(FormatError) as slow:
        parse(data, storage=Short())
    assert quick.value.offset == slow.value.offset


def test_a_stretch_of_a_mapped_pickle(read, write, storages, tmp_path):
    """A pickle that is mapped from a file is read as one in memory."""
    import mmap

    data = write(plain(300))
    (tmp_path / "x.pkl").write_bytes(data)
    with (tmp_path / "x.pkl").open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
        callback = storages()
        found = outcome(read, mapped, storage=callback, rows=Rows(callback))
    assert found == outcome(read, data)


def test_leaves_of_a_stretch_are_rows(read, write, storages):
    """The leaves are rows of one table as long as they are unchanged."""
    callback = storages()
    rows = Rows(callback)
    leaves = list(read(write(plain(200)), storage=callback, rows=rows).value.values())[-100:]
    assert rows_of(leaves) is not None
    assert {leaf.table for leaf in leaves} == {rows.table}
    leaves[3].become(leaves[4].spec, leaves[4].storage, leaves[4].traits)
    assert rows_of(leaves) is None
    assert rows_of([*leaves[:3], leaves[0]]) is None


def test_scanning_in_vain_is_cheap(read, write, storages, monkeypatch):
    """Each byte is scanned a few times at most, however many records cannot be rows: after ever more misses."""
    scanned = []
    scan = _record_columns.scan_ahead
    monkeypatch.setattr(_record_columns, "scan_ahead", lambda *args: scanned.append(args[2]) or scan(*args))
    callback = storages()
    rows = Rows(callback)
    monkeypatch.setattr(rows, "offer", lambda kinds, claims, of, keys: np.full(len(keys), -1))
    data = write([{"a": leaf_of(np.zeros(2)), "b": leaf_of(np.zeros(2))} for _ in range(400)])
    read(data, storage=callback, rows=rows)
    assert 0 < len(scanned) <= 5
    assert len(rows.single) == 800
    assert _records.IMPORTED >= 1 << 20


def test_a_type_that_comes_late(both, write):
    """Records of a storage type that the memo had not yet, when the pickle was scanned, are found by another scan."""
    late = {f"late{number}": leaf_of(np.zeros(3, "f8")) for number in range(300)}
    quick, slow, found = both(write(plain(100, 1) | late))
    assert quick == slow
    assert found > 250
