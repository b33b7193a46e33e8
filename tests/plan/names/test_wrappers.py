"""Wrappers: names that differ in what DDP, compile, FSDP and checkpointing put into them are the same."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from statedict.errors import CollisionError
from statedict.plan import match
from statedict.plan.names._wrappers import CERTAIN, WRAPPERS, bare, follow, pair

BARE = ["embed.weight", "layers.0.weight", "layers.1.weight", "head.bias"]
CHILD = ["weight", "module.weight", "module.bias"]  # a model with a real child called `module`


def below(prefix, names):
    return [prefix + name for name in names]


def inside(wrapper, names):
    return [name.replace("layers.", f"layers.{wrapper}.") for name in names]


CASES = {
    "DataParallel": (below("module.", BARE), BARE),
    "compile": (below("_orig_mod.", BARE), BARE),
    "FSDP": (below("_fsdp_wrapped_module.", BARE), BARE),
    "checkpointing": (below("_checkpoint_wrapped_module.", BARE), BARE),
    "DeepSpeed": (below("_forward_module.", BARE), BARE),
    "nested twice": (below("module._orig_mod.", BARE), BARE),
    "inside": (inside("0._checkpoint_wrapped_module", BARE), inside("0", BARE)),
    "inside, by module": (inside("0.module", BARE), inside("0", BARE)),
    "on the model's side": (BARE, below("_orig_mod.", BARE)),
    "on both sides, unlike": (below("module._orig_mod.", BARE), below("_forward_module.", BARE)),
    "on both sides, in another order": (below("module._orig_mod.", BARE), below("_orig_mod.module.", BARE)),
    "outside and inside": (below("module.", inside("0._fsdp_wrapped_module", BARE)), inside("0", BARE)),
    "a child called module": (CHILD, CHILD),
    "a child called module, wrapped": (below("module.", CHILD), CHILD),
    "a child called module, wrapped twice": (below("module._orig_mod.", CHILD), CHILD),
    "a child called module, in a wrapped model": (CHILD, below("module.", CHILD)),
    "nothing but a child called module": (CHILD[1:], CHILD[1:]),
    "nothing but a child called module, wrapped": (below("module.", CHILD[1:]), CHILD[1:]),
    "a child called module inside checkpointing": (
        ["a._checkpoint_wrapped_module.module.w", "a._checkpoint_wrapped_module.w"],
        ["a.module.w", "a.w"],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wrapped_names_find_their_slots(case):
    """Every slot is filled from its own name, wrapped or not."""
    sources, slots = CASES[case]
    plan = match({name: n for n, name in enumerate(sources)}, {name: n for n, name in enumerate(slots)})
    assert plan.ok
    assert dict(plan.execute(plan.given)) == {name: n for n, name in enumerate(slots)}


@pytest.mark.parametrize("case", CASES)
def test_wrappers_can_be_left_alone(case):
    """Without `wrappers` only equal names are paired."""
    sources, slots = CASES[case]
    assert pair(sources, slots, wrappers=False).pairs == {name: name for name in sources if name in slots}


def test_exact_names_win():
    """A name that has its slot keeps it, and its wrapped double is unexpected."""
    plan = match({"w": 1, "module.w": 2}, {"w": 0})
    assert [(step.sources, step.target) for step in plan.steps] == [(("w",), "w")]
    assert len(plan.unexpected) == 1


def test_two_wrapped_sources_for_one_slot_raise():
    """Two names that would fill one slot are never settled silently."""
    with pytest.raises(CollisionError, match=r"'_orig_mod\.a\.w' and '_forward_module\.a\.w' would both become 'a\.w'"):
        match({"_orig_mod.a.w": 1, "_forward_module.a.w": 2}, {"a.w": 0})
    with pytest.raises(CollisionError):
        match({"module.a.w": 1, "a.module.w": 2}, {"a.w": 0})


def test_what_is_ambiguous_is_left_alone_and_noted():
    """A name that could fill two slots fills neither, and the report says so."""
    plan = match({"module.module.w": 1}, {"w": 0, "module.w": 0})
    assert plan.missing == ("w", "module.w")
    assert "'module.module.w' may be 'w' or 'module.w'" in plan.notes[0]


def test_the_last_component_is_never_a_wrapper():
    """A parameter may be called `module`."""
    assert bare("module.a.module") == "a.module"
    assert match({"module.a.module": 1}, {"a.module": 0}).ok


def test_names_of_no_slot_go_where_their_module_went():
    """Names that only a module's hook knows follow their module, and never replace another name."""
    plan = match({"module.conv.bias": 1, "module.conv.weight_g": 2, "module.x.y": 3}, {"conv.bias": 0, "z": 0})
    assert plan.unexpected == ("conv.weight_g", "x.y")
    assert dict(plan.execute(plan.given)) == {"conv.bias": 1, "conv.weight_g": 2, "x.y": 3}
    assert follow(["a.old"], {"a.w": "a.w"}) == {}
    assert follow(["module.w", "w"], {"module.b": "b"}) == {}


names = st.lists(st.sampled_from(["a", "b", "module", "_orig_mod", "0"]), min_size=1, max_size=4).map(".".join)


@given(st.sets(names, max_size=12), st.sets(names, max_size=12))
def test_pairs_are_one_to_one_and_equal_but_for_wrappers(sources, slots):
    """A pair is equal without wrappers, no slot is filled twice, and no pair is lost that plain equality would give."""
    try:
        pairs = pair(sorted(sources), sorted(slots)).pairs
    except CollisionError:
        assert len(set(map(bare, sources))) < len(sources)
        return
    assert len(set(pairs.values())) == len(pairs)
    assert all(source in sources and slot in slots and bare(source) == bare(slot) for source, slot in pairs.items())
    assert len(pairs) >= len(sources & slots)
    if sources == slots:
        assert all(source == slot for source, slot in pairs.items())


@given(
    st.sets(names.filter(lambda n: not set(n.split(".")) & WRAPPERS), max_size=10), st.sampled_from(sorted(WRAPPERS))
)
def test_any_wrapper_at_the_root_comes_off(slots, wrapper):
    """A wrapper around a whole model never keeps a name from its slot."""
    pairs = pair([f"{wrapper}.{slot}" for slot in sorted(slots)], slots).pairs
    assert pairs == {f"{wrapper}.{slot}": slot for slot in slots}


def test_the_certain_wrappers():
    """`module` is the only wrapper whose name is also used by people."""
    assert sorted(WRAPPERS - CERTAIN) == ["module"]
