"""Folding: repeated layers become one row, and nothing is lost."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from statedict.report._fold import DEEPEST, Row, TreeEntry, fold

labels = st.sampled_from(["a", "b", "0", "1", "2", "10", "01", "l1", "l2"])
names = st.lists(st.lists(labels, min_size=1, max_size=5).map(".".join), unique=True, max_size=40)
kinds = st.sampled_from(["float32", "int64"])


def shown(rows):
    return [(row.depth, row.label, row.times) for row in rows]


def test_equal_layers_are_one_row():
    """Layers with equal contents are folded, at any depth, and counted through."""
    entries = [TreeEntry(f"blocks.{i}.experts.{j}.w", "float32", 8) for i in range(4) for j in range(3)]
    entries += [TreeEntry(f"blocks.{i}.norm", "float32", 2) for i in range(4)]
    assert fold(entries) == [
        Row(0, "blocks.{0…3}", 4, 104, ()),
        Row(1, "experts.{0…2}.w", 12, 96, tuple(entries[:12])),
        Row(1, "norm", 4, 8, tuple(entries[12:])),
    ]


def test_layers_that_differ_stay_apart():
    """A layer with another shape, dtype, name or note is not folded into its neighbours."""
    entries = [TreeEntry(f"layers.{i}.w", "float32", 8) for i in (0, 1, 3, 4)]
    for odd in (
        TreeEntry("layers.2.w", "int8", 2),
        TreeEntry("layers.2.v", "float32", 8),
        TreeEntry("layers.2.w", "float32", 8, "!"),
    ):
        rows = fold([*entries, odd])
        assert [label for _, label, _ in shown(rows)] == ["layers", "{0,1,3,4}.w", f"2.{odd.name[-1]}"]


def test_numbers_at_the_end_of_a_label_fold_too():
    """`layer1`, `layer2` and `l0`, `l1` fold by their last number; numbers with leading zeros keep their text."""
    assert shown(fold(TreeEntry(f"layer{i}.w", "f", 4) for i in (1, 2, 3))) == [(0, "layer{1…3}.w", 3)]
    assert shown(fold(TreeEntry(f"{i}", "f", 4) for i in ("01", "02"))) == [(0, "0{1,2}", 2)]
    assert shown(fold(TreeEntry(name, "f", 4) for name in ("a", "b"))) == [(0, "a", 1), (0, "b", 1)]


def test_a_name_that_is_also_a_prefix_keeps_its_row():
    """`a` and `a.b` in one state are both shown."""
    assert shown(fold([TreeEntry("a", "f", 4), TreeEntry("a.b", "f", 4)])) == [(0, "a", 1), (1, "b", 1)]


@given(names, st.data())
def test_nothing_is_lost(names, data):
    """The rows stand for as many things, and as many bytes, as there were; depths grow by one at most."""
    entries = [TreeEntry(name, data.draw(kinds), data.draw(st.integers(0, 9))) for name in names]
    rows = fold(entries)
    assert sorted(entry for row in rows for entry in row.entries) == sorted(entries)
    assert all(row.times == len(row.entries) for row in rows if row.entries)
    assert sum(row.nbytes for row in rows if row.depth == 0) == sum(entry.nbytes for entry in entries)
    assert all(after.depth <= before.depth + 1 for before, after in pairwise(rows))


def test_hostile_names_are_only_long():
    """A name of 100,000 dots is one deep label, not a deep recursion; 30,000 layers are folded in one go."""
    assert len(fold([TreeEntry("." * 100_000, "f", 4), TreeEntry("a" + ".a" * DEEPEST * 2, "f", 4)])) == 2
    assert len(fold(TreeEntry(f"layers.{i}.weight", "f", 4) for i in range(30_000))) == 1
