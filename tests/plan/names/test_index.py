"""The search for the rule of a name finds what trying the rules in order finds, in time independent of their number."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.plan import KeyMap, infer
from statedict.plan.names import _index

TEMPLATES = [
    "a.{i}.b",
    "a.{i}.{*p}",
    "{i}.b.c",
    "{*p}.c",
    "x{i}.b",
    "a.{*p}.b.c",
    "{*p}.b{i}.c",
    "{i}{j}",
    "{*p}",
    "a.{*p}.{*q}.c",
]
components = st.sampled_from(["a", "b", "c", "x1", "xb", "b2"])


@pytest.fixture(params=[0, 32])
def few(request, monkeypatch):
    """Templates on shelves, and all in one expression."""
    monkeypatch.setattr(_index, "_FEW", request.param)


@pytest.mark.usefixtures("few")
@given(st.permutations(TEMPLATES), st.lists(components, min_size=1, max_size=6).map(".".join))
def test_the_first_of_many_rules_counts(templates, name):
    """The first rule that matches applies, in whatever order and however they are indexed."""
    rules = [f"{template} -> new{n}.{template}" for n, template in enumerate(templates)]
    alone = (new for rule in rules if (new := KeyMap(rule)(name)) != name)
    assert KeyMap(rules)(name) == next(alone, name)


class Counted:
    """A pattern that counts how many templates it holds each time it is asked."""

    templates = 0

    def __init__(self, pattern):
        self.pattern = pattern

    def fullmatch(self, name):
        Counted.templates += self.pattern.groups
        return self.pattern.fullmatch(name)


def test_thousands_of_rules_are_searched_as_few(monkeypatch):
    """Among rules for names without a common part, each name is compared with its own rule only."""
    real = re.compile
    monkeypatch.setattr(_index.re, "compile", lambda text, flags=0: Counted(real(text, flags)))
    names = KeyMap([f"old{n}.{{i}} -> new{n}.{{i}}" for n in range(2000)])
    assert [names(f"old{n}.7") for n in range(2000)] == [f"new{n}.7" for n in range(2000)]
    assert Counted.templates < 10 * 2000


def test_names_that_have_nothing_in_common_are_inferred(monkeypatch):
    """A proposal for thousands of such names compares each with a few templates."""
    real = re.compile
    Counted.templates = 0
    monkeypatch.setattr(_index.re, "compile", lambda text, flags=0: Counted(real(text, flags)))
    zero = np.zeros(1)
    found = infer({f"w{n:x}q.{n}": zero for n in range(1500)}, {f"v{n:x}r.{n}": zero for n in range(1500)})
    assert len(found.steps) == 1500
    assert Counted.templates < 200 * 1500
