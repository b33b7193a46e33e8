"""The conversions of transformers, checked rule by rule with its own objects."""

import re

import pytest

from statedict import maps
from statedict.errors import MapError, MissingDependencyError
from statedict.maps._samples import samples

loading = pytest.importorskip("transformers.core_model_loading")
pytestmark = pytest.mark.filterwarnings("ignore")

RENAMES = [
    (r"^blocks\.(\d+)\.norm\.", r"layers.\1.norm.", "invertible", ""),
    ("attention.query", "q_proj", "needs an anchor", "a.q_proj.attention.query.weight"),
    ([r"^model\.old", r"^old"], "model.new", "lossy", "old"),
    ("layer.*.rotary.inv_freq", "rotary.inv_freq", "lossy", "layer.0.rotary.inv_freq"),
]


@pytest.mark.parametrize(("source", "target", "verdict", "name"), RENAMES)
def test_renames(source, target, verdict, name):
    """A rename is invertible, needs an anchor, or is lossy; the name that breaks it really does not come back."""
    rule = loading.WeightRenaming(source, target)
    (found,) = maps.conversion_rules([rule])
    assert (found.verdict, found.name) == (verdict, name)
    if name:
        new, _ = rule.rename_source_key(name)
        assert rule.reverse_transform().rename_source_key(new)[0] != name
        assert repr(name) in str(found)


def test_a_prefix_that_is_removed_is_lossy():
    """A name that never had the prefix gets it when the model is saved."""
    (found,) = maps.conversion_rules([loading.PrefixChange(prefix_to_remove="text_model")])
    assert (found.verdict, found.name) == ("lossy", "x.weight")
    assert "comes back as 'text_model.x.weight'" in found.reason


class Halved(loading.ConversionOps):
    """Loses half of a tensor; its reverse repeats the other half."""

    def __init__(self, back=False):
        self.back = back

    def convert(self, input_dict, source_patterns, target_patterns, **kwargs):
        tensor = next(iter(input_dict.values()))[0]
        return {target_patterns[0]: loading.torch.cat([tensor, tensor]) if self.back else tensor[: len(tensor) // 2]}

    @property
    def reverse_op(self):
        return Halved(not self.back)


class Forward(Halved):
    reverse_op = property(lambda self: (_ for _ in ()).throw(NotImplementedError("no way back")))


OPERATIONS = [
    (
        ["^e.*.w1.weight", "^e.*.w2.weight"],
        "^e.w",
        [loading.MergeModulelist(0), loading.Concatenate(1)],
        "needs an anchor",
    ),
    (r"^a\.qkv\.weight", [r"^a\.q", r"^a\.k", r"^a\.v"], [loading.Chunk(0)], "invertible"),
    ("^w", "^v", [loading.Interleave(0)], "invertible"),
    ("^q", "^p", [loading.PermuteForRope()], "invertible"),
    ("^w", "^v", [Halved()], "lossy"),
    ("^w", "^v", [Forward()], "lossy"),
    ("^w", "^v", [loading.Split(0)], "not tried"),
]


@pytest.mark.parametrize(("source", "target", "operations", "verdict"), OPERATIONS)
def test_operations(source, target, operations, verdict):
    """Operations are tried on small tensors: what does not come back to the bit is lossy."""
    (found,) = maps.conversion_rules([loading.WeightConverter(source, target, operations)])
    assert found.verdict == verdict, found


def test_models_of_the_installed_transformers():
    """The table in the user's environment is read; each verdict but the best has a reason."""
    found = maps.conversion_rules("mixtral")
    assert {rule.verdict for rule in found} <= {"invertible", "needs an anchor", "lossy", "not tried"}
    assert any("MergeModulelist" in rule.rule for rule in found)
    assert all(bool(rule.reason) == (rule.verdict != "invertible") for rule in found)
    with pytest.raises(MapError, match=r"mixtrall: transformers does not have conversions .* did you mean 'mixtral'"):
        maps.conversion_rules("mixtrall")


def test_without_transformers(monkeypatch):
    """Without transformers, or with one before version 5, the error says what to install."""
    monkeypatch.setitem(__import__("sys").modules, "transformers.conversion_mapping", None)
    with pytest.raises(MissingDependencyError, match="pip install 'transformers>=5'"):
        maps.conversion_rules("mixtral")


PATTERNS = [
    r"^a\.(\d+)\.(x|yz)",
    r"[a-z]+_w",
    r"(q|k|v)_norm",
    r"a.b",
    r"\.x(?!y)",
    r"[^.]+\.w",
    r"(?:ab)?c{2}",
    r"(.+)\.w",
]


@pytest.mark.parametrize("pattern", PATTERNS)
def test_samples_match_their_pattern(pattern):
    """Every sample of a regular expression matches it."""
    found = samples(pattern)
    assert found
    assert all(re.search(pattern, text) for text in found)
