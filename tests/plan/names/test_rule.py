"""Rules: what a line of a key map may contain, and how it prints."""

import pytest
from tests.cost import seconds

from statedict.plan import KeyMap
from statedict.plan.names._rule import parse

LINES = [
    "encoder -> backbone",
    "model.{*p} -> {*p}",
    "h.{i}.fc.weight -> layers.{i}.fc.weight | transpose",
    "{l}.attn.{q,k,v}.weight -> {l}.attn.qkv.weight | cat 0",
    "{l}.attn.qkv.weight -> {l}.attn.{q,k,v}.weight | split 0 64 16 16",
    "a, b.c -> d | cat 1",
    "experts.{e}.w -> experts.w | stack 0",
    "experts.w -> experts.{e}.w | unstack 0",
    "conv.weight -> conv.weight | permute 3 2 0 1",
    "qkv.weight -> {q,k,v}.weight | transpose | split 0",
]


@pytest.mark.parametrize("line", LINES)
def test_a_rule_prints_as_it_was_written(line):
    """The text of a rule is the line that it came from, and its inverse's inverse is itself."""
    (rule,) = parse(line)
    assert str(rule) == line
    assert rule.inverse().inverse() == rule


def test_choices_on_both_sides_are_several_rules():
    """Without a join, a choice on both sides stands for one rule each."""
    assert list(map(str, parse("{a,b}.{*p} -> {x,y}.{*p}"))) == ["a.{*p} -> x.{*p}", "b.{*p} -> y.{*p}"]


def test_inverse_of_a_converting_rule():
    """Operations are undone in reverse order."""
    (rule,) = parse("c_attn.weight -> {q,k,v}.weight | transpose | split 0")
    assert str(rule.inverse()) == "{q,k,v}.weight -> c_attn.weight | cat 0 | transpose"


WRONG = [
    ("a b", "is not a rule: expected 'OLD -> NEW'"),
    ("a -> b -> c", "is not a rule"),
    ("a -> ", "a name is empty"),
    ("a. -> ", r"'prefix\.{\*p} -> {\*p}' removes a prefix"),
    ("a.{i} -> b.{j}", "{j} is on the right only"),
    ("a, b -> c", "join several tensors with"),
    ("a.{q,k} -> b", "join several tensors with"),
    ("a -> b | cat 0", "only one tensor to join"),
    ("a -> b | split 0", "there is only one target"),
    ("a, b -> c, d | cat 0", "more names than tensors"),
    ("a.w -> a.{e}.w | split 0", "'split' needs a fixed number of"),
    ("a.{i}, b.{j} -> c | cat 0", "must have the same placeholders"),
    ("a -> b | turn", "is not a tensor operation"),
    ("a.{i -> b", "is not part of a placeholder"),
    ("/(/ -> b", "missing \\)"),
    (r"/a/ -> \1", "invalid group reference"),
]


@pytest.mark.parametrize(("line", "message"), WRONG)
def test_an_invalid_rule_is_refused(line, message):
    """The error for a line that cannot be parsed quotes it and says what is wrong."""
    with pytest.raises(ValueError, match=message) as caught:
        parse(line)
    assert repr(line.strip()) in str(caught.value)


NO_INVERSE = [
    ("{a}_{b} -> {b}_{a}", "is ambiguous"),
    ("{*p}.{*q} -> x.{*p}.{*q}", "is ambiguous"),
    ("a.{i}.w -> b.w", "{i} is not on its right side"),
    ("shards.{r}.w -> w | cat 0", "loses the number of tensors"),
    (r"/(.+)\.gamma/ -> \1.weight", "not have an exact inverse"),
]


@pytest.mark.parametrize(("line", "why"), NO_INVERSE)
def test_what_has_no_inverse_says_why(line, why):
    """A rule that cannot be inverted exactly is refused, with the reason."""
    key_map = KeyMap(line)
    assert not key_map.invertible
    with pytest.raises(ValueError, match="cannot be inverted") as caught:
        key_map.inverse
    assert why in str(caught.value)


def test_long_rules_take_linear_time():
    """A rule that stacks eight times as many tensors takes about eight times as long to parse."""

    def parsing(count):
        line = f"{', '.join(f'experts.{n}.w' for n in range(count))} -> experts.w | stack 0"
        return lambda: parse(line)

    assert seconds(parsing(8000), 2) <= 20 * seconds(parsing(1000))
