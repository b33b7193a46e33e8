"""Folding: repeated layers become one row, and nothing is lost."""

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from statedict.report._fold import DEEPEST, Row, fold

labels = st.sampled_from(["a", "b", "0", "1", "2", "10", "01", "l1", "l2"])
names = st.lists(st.lists(labels, min_size=1, max_size=5).map(".".join), unique=True, max_size=40)
kinds = st.sampled_from(["float32", "int64"])


def folded(names, kind="f", nbytes=4):
    """The rows of names that all have the same kind and size."""
    names = list(names)
    return fold(names, [kind] * len(names), [nbytes] * len(names))


def shown(rows):
    return [(row.depth, row.label, row.times) for row in rows]


def test_equal_layers_are_one_row():
    """Layers with equal contents are folded, at any depth, and counted through."""
    entries = [(f"blocks.{i}.experts.{j}.w", "float32", 8) for i in range(4) for j in range(3)]
    entries += [(f"blocks.{i}.norm", "float32", 2) for i in range(4)]
    assert fold(*zip(*entries)) == [
        Row(0, "blocks.{0…3}", 4, 104, ()),
        Row(1, "experts.{0…2}.w", 12, 96, tuple(range(12))),
        Row(1, "norm", 4, 8, tuple(range(12, 16))),
    ]


def test_sizes_are_added_up():
    """The bytes of a row are the sum over its tensors, also where equal kinds have different sizes."""
    assert fold(["l.0.w", "l.1.w"], ["float32"] * 2, [8, 0]) == [Row(0, "l.{0,1}.w", 2, 8, (0, 1))]


def test_layers_that_differ_stay_apart():
    """A layer with another kind or name is not folded into its neighbours."""
    names = [f"layers.{i}.w" for i in (0, 1, 3, 4)]
    for odd, kind in (("layers.2.w", "int8"), ("layers.2.v", "float32")):
        rows = fold([*names, odd], ["float32"] * 4 + [kind], [8] * 5)
        assert [label for _, label, _ in shown(rows)] == ["layers", "{0,1,3,4}.w", f"2.{odd[-1]}"]


def test_numbers_at_the_end_of_a_label_fold_too():
    """`layer1`, `layer2` and `l0`, `l1` fold by their last number; numbers with leading zeros keep their text."""
    assert shown(folded(f"layer{i}.w" for i in (1, 2, 3))) == [(0, "layer{1…3}.w", 3)]
    assert shown(folded(["01", "02"])) == [(0, "0{1,2}", 2)]
    assert shown(folded(["a", "b"])) == [(0, "a", 1), (0, "b", 1)]


def test_a_name_that_is_also_a_prefix_keeps_its_row():
    """`a` and `a.b` in one state are both shown."""
    assert shown(folded(["a", "a.b"])) == [(0, "a", 1), (1, "b", 1)]


@given(names, st.data())
def test_nothing_is_lost(names, data):
    """The rows stand for as many things, and as many bytes, as there were; depths grow by one at most."""
    sizes = [data.draw(st.integers(0, 9)) for _ in names]
    rows = fold(names, [data.draw(kinds) for _ in names], sizes)
    assert sorted(index for row in rows for index in row.which) == list(range(len(names)))
    assert all(row.times == len(row.which) for row in rows if row.which)
    assert sum(row.nbytes for row in rows if row.depth == 0) == sum(sizes)
    assert all(after.depth <= before.depth + 1 for before, after in pairwise(rows))


def test_hostile_names_are_only_long():
    """A name of 100,000 dots is one deep label, not a deep recursion; 30,000 layers are folded in one go."""
    assert len(folded(["." * 100_000, "a" + ".a" * DEEPEST * 2])) == 2
    assert len(folded(f"layers.{i}.weight" for i in range(30_000))) == 1
