"""The usual hand-written code around load_state_dict: a plan gives the same result."""

import copy

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict.plan import KeyMap, match
from statedict.state import StateDict

torch = pytest.importorskip("torch")
nn = torch.nn


class Net(nn.Module):
    """A small model of each kind of layer: a stem, blocks, position embeddings, a vocabulary and a head."""

    def __init__(self, classes=10, tokens=17, words=30, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.pos_embed = nn.Parameter(torch.randn(1, tokens, 4))
        self.words = nn.Embedding(words, 4)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4)) for _ in range(2)])
        self.head = nn.Linear(4, classes)


class Compiled(nn.Module):
    """What torch.compile makes of a model, as far as names go; compiling would take seconds."""

    def __init__(self, model):
        super().__init__()
        self._orig_mod = model


def loaded(model, source, **options):
    """A copy of the model with the planned state in it, put there by PyTorch itself."""
    model = copy.deepcopy(model)
    plan = match(source, model.state_dict(), **options)
    assert plan.ok, str(plan)
    result = model.load_state_dict(plan.execute(source), strict=False)
    assert set(result.missing_keys) <= plan.withheld  # BatchNorm makes its counter up
    assert result.unexpected_keys == []
    return model.state_dict()


def by_hand(model, state):
    """The same, done with PyTorch alone."""
    model = copy.deepcopy(model)
    model.load_state_dict(state, strict=False)
    return model.state_dict()


def same(a, b):
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def test_a_new_head():
    """Fine-tuning: everything but the head, which keeps its own values."""
    old, new = Net().state_dict(), Net(classes=3)
    expected = by_hand(new, {name: value for name, value in old.items() if not name.startswith("head.")})
    assert same(loaded(new, old, exclude="head"), expected)
    assert same(loaded(new, old, mismatched={"head": "skip"}), expected)


def test_an_encoder_only():
    """A sub-module from the whole model's state, and from a state under another prefix."""
    old, new = Net().state_dict(), Net().blocks
    expected = by_hand(new, {n.removeprefix("blocks."): v for n, v in old.items() if n.startswith("blocks.")})
    assert same(loaded(new, old, include="blocks", rename="blocks.{*p} -> {*p}"), expected)
    assert same(loaded(new, StateDict(old).sub("blocks")), expected)


def test_distributed_and_compiled():
    """DataParallel around a compiled model into the bare one, and back."""
    bare, wrapped = Net(), nn.DataParallel(Compiled(Net()))
    assert [n.removeprefix("module._orig_mod.") for n in wrapped.state_dict()] == list(bare.state_dict())
    assert same(
        loaded(bare, wrapped.state_dict()), by_hand(bare, dict(zip(bare.state_dict(), wrapped.state_dict().values())))
    )
    back = match(bare.state_dict(), wrapped.state_dict()).execute(StateDict(bare.state_dict()))
    assert str(wrapped.load_state_dict(back)) == "<All keys matched successfully>"


def test_versions_travel_with_the_names():
    """`_metadata` follows, so that an old BatchNorm is still known as one after its wrapper is gone."""
    state = nn.DataParallel(Net()).state_dict()
    executed = match(state, Net().state_dict()).execute(state)
    assert executed._metadata == Net().state_dict()._metadata


def test_another_library_and_back():
    """A map renames and converts to another library's names, and its inverse brings back every bit."""
    key_map = KeyMap(
        """
        blocks.{i}.0.{*p} -> layers.{i}.up.{*p}
        blocks.{i}.2.weight -> layers.{i}.down.kernel | transpose
        blocks.{i}.2.bias -> layers.{i}.down.{scale,shift} | split 0
        head -> classifier.out
        """
    )
    state = Net().state_dict()
    there = key_map.rename(state)
    assert torch.equal(there["layers.1.down.kernel"], state["blocks.1.2.weight"].T)
    assert torch.equal(there["layers.0.down.shift"], state["blocks.0.2.bias"][2:])
    assert same(loaded(Net(), there, rename=key_map.inverse), state)


def test_what_two_models_have_in_common():
    """The part that fits is loaded; the rest is listed, and nothing is lost silently."""
    old, new = Net(classes=5).state_dict(), Net()
    del new.norm
    old["extra.w"] = torch.ones(1)
    plan = match(old, new.state_dict(), mismatched="skip")
    common = {n: v for n, v in old.items() if n in new.state_dict() and v.shape == new.state_dict()[n].shape}
    report = plan.report()
    assert report.loaded == list(common)
    assert set(report.unexpected) == {n for n in old if n.startswith("norm.")} | {"extra.w"}
    assert [one.name for one in report.skipped] == ["head.weight", "head.bias"]
    copied = copy.deepcopy(new)
    copied.load_state_dict(plan.execute(old), strict=False)
    assert same(copied.state_dict(), by_hand(new, common))


paths = st.sampled_from(["stem", "norm", "pos_embed", "words", "blocks", "blocks.0", "blocks.1.2", "head"])


@settings(max_examples=30)
@given(
    st.lists(st.sampled_from(["module", "_orig_mod", "_fsdp_wrapped_module"]), max_size=2),
    st.dictionaries(
        st.sampled_from(["stem", "norm", "words", "blocks", "head"]), st.sampled_from(["a", "b.c", "d.0"]), max_size=1
    ),
    st.lists(paths, max_size=3),
)
def test_any_plan_is_as_by_hand(wrappers, renamed, excluded):
    """Whatever is wrapped, renamed and left out: the model is as after the same with dicts and PyTorch."""
    source, model = Net().state_dict(), Net()
    names = {}
    for name in source:
        first, dot, rest = name.partition(".")
        names[name] = ".".join([*wrappers, renamed.get(first, first) + dot + rest])
    wrapped = {names[name]: value for name, value in source.items()}
    chosen = {n: v for n, v in source.items() if not any(n == path or n.startswith(f"{path}.") for path in excluded)}
    rename = {new: old for old, new in renamed.items()} or None
    assert same(loaded(model, wrapped, rename=rename, exclude=excluded), by_hand(model, chosen))
