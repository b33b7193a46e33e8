"""How a notebook shows a StateDict: folded, escaped, short, and from specs alone."""

from html.parser import HTMLParser

import numpy as np
import pytest
from tests.cost import calls

from statedict.state import PLAIN, Leaf, StateDict, Storage, contiguous, dtype


class Unreadable:
    """A source that fails when it is asked for bytes."""

    def read_into(self, reads, *, verify=True):
        raise AssertionError("bytes were read")

    verify = view = read_into


class Balance(HTMLParser):
    """Notes the tags, and that each is closed."""

    def __init__(self):
        super().__init__()
        self.open, self.seen = [], set()

    def handle_starttag(self, tag, attrs):
        self.open.append(tag)
        self.seen.add(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def tags(html):
    parser = Balance()
    parser.feed(html)
    parser.close()
    assert parser.open == []
    return parser.seen


def unread(names, shape=(2, 3)):
    spec = contiguous(dtype("float32"), shape)
    source = Unreadable()
    return StateDict({name: Leaf(spec, Storage(source, name, spec.nbytes), PLAIN) for name in names})


def test_layers_are_one_line():
    """Repeated layers are one line with their count, dtype and shape; totals come first; nothing is read."""
    html = unread([f"layers.{i}.weight" for i in range(12)])._repr_html_()
    assert "StateDict: 12 tensors, 72 elements, 288 bytes (12 float32)" in html
    assert "<code>layers.{0…11}.weight  ×12</code></td><td>float32 [2, 3]</td>" in html
    assert tags(html) == {"div", "p", "b", "details", "summary", "table", "tr", "td", "code"}


def test_ties_and_other_entries():
    """Tied names, and entries that are not tensors, are listed."""
    weight = np.zeros(3)
    html = StateDict({"a": weight, "b": weight, "_extra_state": {"x": 1}})._repr_html_()
    assert "<code>a = b</code>" in html
    assert "<code>_extra_state</code>" in html


@pytest.mark.parametrize("name", ["<script>alert(1)</script>", '"><img src=x onerror=y>', "a&b", "\x1b[31m"])
def test_names_are_text(name):
    """A name from a file is escaped."""
    assert tags(unread([name])._repr_html_()) <= {"div", "p", "b", "details", "summary", "table", "tr", "td", "code"}
    assert "\x1b" not in unread([name])._repr_html_()


def test_it_is_short_whatever_it_shows():
    """100,000 names that cannot be folded, or names of a megabyte, make a page of at most 20 kB, in linear time."""

    def state(count):
        return unread([f"{chr(97 + i % 26)}{i}.{'x' * 200}" for i in range(count)])

    html = state(100_000)._repr_html_()
    assert "… and 99,960 more" in html
    assert calls(state(8_000)._repr_html_) <= 6 * calls(state(2_000)._repr_html_)
    assert len(html) < 20_000
    assert len(unread(["x\n" * 100_000, "y" * 1_000_000])._repr_html_()) < 20_000


def test_an_empty_state():
    """An empty state has a short page of its own."""
    assert "StateDict: 0 tensors, 0 elements, 0 bytes" in StateDict()._repr_html_()


def test_the_short_form_counts_tensors_and_elements():
    """`repr` has the same totals as a notebook, and the first names."""
    state = StateDict({"a": np.ones((3, 2), "f4"), "epoch": 3})
    assert repr(state) == "<StateDict of 1 tensor, 6 elements, 24 bytes (1 float32): a, epoch>"
