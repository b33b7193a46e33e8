"""Near misses: find the name that was probably meant, without comparing all names."""

from tests.cost import calls

from statedict.plan.names._near_misses import NearMisses, near_pattern


def test_the_nearest_names():
    """The best match comes first, numbers are ignored, and the result is empty if no name is close."""
    near = NearMisses(["layers.0.attention.query", "layers.1.attention.query", "layers.0.attention.key", "head"])
    assert near.to("layers.7.attn.query") == ["layers.0.attention.query"]
    assert near.to("layers.7.attn.query", 2) == ["layers.0.attention.query", "layers.0.attention.key"]
    assert near.to("zzz") == []


def test_a_pattern_is_compared_by_its_beginning():
    """The literal start of a pattern is compared with the starts of the names."""
    names = ["backbone.layers.0.w", "head.w"]
    assert near_pattern("backbon.*", names) == ["backbone.layers.0.w"]
    assert near_pattern("backbone.layer.{i}.x", names) == ["backbone.layers.0.w"]
    assert near_pattern("hed", names) == ["head.w"]
    assert near_pattern("*.q", names) == []


def test_a_search_costs_the_same_among_more_names():
    """The nearest of 50,000 different names is found among those that share a part with it: not ten times the calls that
    5,000 names take."""

    def search(count):
        name = "{}.{:x}g.attention_{}.weight"
        near = NearMisses(
            [name.format(chr(97 + i % 26) * (i % 50 + 1), i, chr(97 + i // 26 % 26)) for i in range(count)]
        )
        assert near.to("aaaa.attention_q.weight")
        return calls(lambda: near.to("aaaa.attention_q.weight"))

    assert search(50_000) <= 2 * search(5_000)
