"""The part of a state below one module."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from statedict.tree._local import Below, Watched, grouped, raw_items, raw_value

names = st.lists(st.sampled_from(["a", "b", "a.b", "", "w", "ab"]), min_size=1, max_size=5).map(".".join)
states = st.lists(names, max_size=12, unique=True).map(lambda keys: {key: number for number, key in enumerate(keys)})


def filtered(state: dict[str, Any], prefix: str) -> dict[str, Any]:
    """The state below each child, found as PyTorch does it: with one scan for each child."""
    return {key: value for key, value in state.items() if key.startswith(prefix)}


@given(state=states, prefix=st.sampled_from(["", "a.", "b.", "a.b."]))
def test_dealing_is_filtering_for_every_child_at_once(state: dict[str, Any], prefix: str) -> None:
    """Same names, same order, for whatever component follows the prefix."""
    dealt = grouped(state, prefix)
    components = {key[len(prefix) :].partition(".")[0] for key in filtered(state, prefix) if "." in key[len(prefix) :]}
    assert {name: list(group.items()) for name, group in dealt.items()} == {
        name: list(filtered(state, f"{prefix}{name}.").items()) for name in components
    }


@given(
    state=states, prefix=st.sampled_from(["", "a."]), name=st.sampled_from(["a", "b", "a.b", "a.b.a", "", "c", "a."])
)
def test_a_child_gets_what_pytorch_gives_it(state: dict[str, Any], prefix: str, name: str) -> None:
    """A child gets what PyTorch gives it, also if its name contains dots."""
    assert list(Below(state, prefix).of(prefix, name).items()) == list(filtered(state, f"{prefix}{name}.").items())


def test_children_do_not_share_what_they_are_given() -> None:
    """A child that removes names does not affect the others."""
    below = Below({"a.b.w": 1}, "")
    below.of("", "a").clear()
    assert below.of("", "a.b") == {}
    below = Below({"a.b.w": 1}, "")
    below.of("", "a.b").clear()
    assert below.of("", "a") == {"a.b.w": 1}


def watched() -> tuple[Watched, list[Any]]:
    seen: list[Any] = []

    def look(value: Any) -> Any:
        if isinstance(value, str):
            seen.append(value)
            return len(value)
        return value

    return Watched({"a": "x", "b": "xx", "c": "xxx"}, look), seen


def test_every_way_to_a_value_is_watched() -> None:
    """Each value is materialized once, at the first access of any kind."""
    ways = [
        lambda local: local["b"],
        lambda local: local.get("b"),
        lambda local: local.pop("b"),
        lambda local: local.setdefault("b", 5),
        lambda local: list(local.values())[1],
        lambda local: dict(local.items())["b"],
        lambda local: dict(local)["b"],
        lambda local: {**local}["b"],
        lambda local: OrderedDict(local)["b"],
        lambda local: local.copy()["b"],
        lambda local: (local | {})["b"],
    ]
    for way in ways:
        local, seen = watched()
        assert way(local) == 2
        assert way(watched()[0]) == 2
        assert "xx" in seen


def test_asking_for_names_reads_nothing() -> None:
    """Length, membership, iteration and changes of other names read nothing."""
    local, seen = watched()
    assert ("a" in local, len(local), list(local), list(reversed(local))) == (True, 3, ["a", "b", "c"], ["c", "b", "a"])
    local["d"] = "new"
    del local["c"]
    assert (local.get("zz", 7), local.pop("zz", 8), local.setdefault("e", 9)) == (7, 8, 9)
    assert (list(raw_items(local)), raw_value(local, "a")) == ([("a", "x"), ("b", "xx"), ("d", "new"), ("e", 9)], "x")
    assert seen == []
    assert local.popitem() == ("e", 9)
    assert local.popitem(last=False) == ("a", 1)
    assert seen == ["x"]
