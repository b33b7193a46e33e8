"""Templates: names with placeholders, matched and filled in."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.plan.names._template import escaped, expand


def matched(template, name):
    """The values of the placeholders in a name."""
    found = re.fullmatch(template.regex(""), name, re.DOTALL)
    return found and found.groupdict()


MATCHES = [
    ("a.{i}.b", "a.3.b", {"i": "3"}),
    ("a.{i}.b", "a.3.x.b", None),
    ("a.{i}.{*p}", "a.3.x.b", {"i": "3", "p": "x.b"}),
    ("h{i}.w", "h12.w", {"i": "12"}),
    ("{*p}.w", "w", None),
    ("{*p}", "a.b", {"p": "a.b"}),
    ("{a}.{a}", "x.x", {"a": "x"}),
    ("{a}.{a}", "x.y", None),
    ("a{{0}}.{i}", "a{0}.7", {"i": "7"}),
    ("a+b.{i}", "a+b.7", {"i": "7"}),
    ("a+b.{i}", "aab.7", None),
]


@pytest.mark.parametrize(("text", "name", "placeholders"), MATCHES)
def test_match_and_fill(text, name, placeholders):
    """Matching a name gives the values that fill the template to the same name."""
    (template,) = expand(text)
    assert matched(template, name) == placeholders
    if placeholders is not None:
        assert template.fill(placeholders) == name
    assert str(template) == text


def test_choices():
    """A choice stands for one template each, the last one varying first."""
    assert [str(t) for t in expand("{a,b}.{i}.{x,y}")] == ["a.{i}.x", "a.{i}.y", "b.{i}.x", "b.{i}.y"]
    assert [str(t) for t in expand("w{,_scale}")] == ["w", "w_scale"]


@pytest.mark.parametrize(
    ("text", "exact"),
    [
        ("a.b", True),
        ("a.{i}.{j}", True),
        ("{*p}.{i}.w", True),
        ("a{i}.b{j}.{*p}", True),
        ("{i}_{j}", False),
        ("{i}{j}", False),
        ("{*p}.{*q}", False),
    ],
)
def test_exact(text, exact):
    """A template that can match a name in two ways is not exact."""
    assert expand(text)[0].exact is exact


@pytest.mark.parametrize("text", ["a.{i", "a.i}", "{}", "{*}", "{3}", "{a b}", "{a.b}"])
def test_a_stray_brace_is_an_error(text):
    """A brace that is not part of a placeholder is refused, and the error says where it is."""
    with pytest.raises(ValueError, match="is not part of a placeholder"):
        expand(text)


def test_an_empty_template_is_an_error():
    """An empty side of a rule is refused."""
    with pytest.raises(ValueError, match="empty"):
        expand("")


components = st.lists(st.text("ab0{}_,", min_size=1, max_size=3), min_size=1, max_size=4).map(".".join)


@given(components)
def test_an_escaped_name_is_its_own_template(name):
    """Whatever is in a name, its escaped text is the template for it alone."""
    (template,) = expand(escaped(name))
    assert template.literal == name
    assert matched(template, name) == {}


@given(st.lists(st.sampled_from(["a", "{i}", "b{j}", "{*p}", "c"]), min_size=1, max_size=5), st.data())
def test_an_exact_template_reads_back_what_it_was_filled_with(parts, data):
    """Matching an exact template gives the values that it was filled with."""
    (template,) = expand(".".join(parts))
    if not template.exact:
        return
    word = st.text("xy0", min_size=1, max_size=3)
    deep = st.lists(word, min_size=1, max_size=3).map(".".join)
    values = {placeholder: data.draw(deep if placeholder == "p" else word) for placeholder in template.placeholders}
    assert matched(template, template.fill(values)) == values
