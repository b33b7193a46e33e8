"""NearMisses misses: what a person may have meant, found without looking at everything."""

import time

from statedict.plan.names._near_misses import NearMisses, near_pattern


def test_the_nearest_names():
    """The best comes first, numbers do not count, and nothing is said where nothing is close."""
    near = NearMisses(["layers.0.attention.query", "layers.1.attention.query", "layers.0.attention.key", "head"])
    assert near.to("layers.7.attn.query") == ["layers.0.attention.query"]
    assert near.to("layers.7.attn.query", 2) == ["layers.0.attention.query", "layers.0.attention.key"]
    assert near.to("zzz") == []


def test_a_pattern_is_compared_by_its_beginning():
    """What is literal in a pattern is held against what names begin with."""
    names = ["backbone.layers.0.w", "head.w"]
    assert near_pattern("backbon.*", names) == ["backbone.layers.0.w"]
    assert near_pattern("backbone.layer.{i}.x", names) == ["backbone.layers.0.w"]
    assert near_pattern("hed", names) == ["head.w"]
    assert near_pattern("*.q", names) == []


def test_many_names_are_quick():
    """Among 50,000 different names the nearest is found among those that share a part with it."""
    near = NearMisses(
        [f"{chr(97 + i % 26) * (i % 50 + 1)}.{i:x}g.attention_{chr(97 + i // 26 % 26)}.weight" for i in range(50_000)]
    )
    start = time.process_time()
    found = near.to("aaaa.attention_q.weight")
    assert time.process_time() - start < 1
    assert found
