"""Normalisation against PyTorch's, on random settings, in training and evaluation."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import nn

shapes = st.tuples(st.integers(2, 4), st.sampled_from([2, 4, 6]), *[st.integers(2, 4)] * 3)


@settings(max_examples=60)
@given(
    shape=shapes,
    count=st.integers(1, 3),
    kind=st.sampled_from(["BatchNorm", "InstanceNorm"]),
    momentum=st.sampled_from([0.1, 0.7, None]),
    affine=st.booleans(),
    tracked=st.booleans(),
    bias=st.booleans(),
)
def test_tracked_norms(shape, count, kind, momentum, affine, tracked, bias, twins, same, same_state):
    """In training the batch's statistics are used and tracked, in evaluation the tracked ones, as PyTorch does."""
    if momentum is None and kind == "InstanceNorm":
        momentum = 0.0
    theirs, ours = twins(f"{kind}{count}d", shape[1], 1e-3, momentum, affine, tracked, bias=bias)
    for training in (True, True, False):
        x = torch.randn(shape[: 2 + count]) * 2 + 1
        same(theirs.train(training)(x), ours.train(training)(x.numpy()))
        same_state(theirs.state_dict(), ours.state_dict())


@settings(max_examples=40)
@given(shape=shapes, last=st.integers(1, 3), affine=st.booleans(), bias=st.booleans(), data=st.data())
def test_norms_of_each_sample(shape, last, affine, bias, data, twins, same):
    """LayerNorm, RMSNorm, GroupNorm and LocalResponseNorm give what PyTorch's give."""
    x = torch.randn(shape)
    made = [
        ("LayerNorm", (list(shape[-last:]), 1e-4, affine, bias), {}),
        ("RMSNorm", (shape[-last:], data.draw(st.sampled_from([None, 1e-3])), affine), {}),
        ("GroupNorm", (data.draw(st.sampled_from([1, 2])), shape[1], 1e-4, affine), {"bias": bias}),
        ("LocalResponseNorm", (data.draw(st.integers(1, 4)), 0.1, 0.6, 2.0), {}),
    ]
    for kind, args, kwargs in made:
        theirs, ours = twins(kind, *args, **kwargs)
        same(theirs(x), ours(x.numpy()))


def test_one_value_a_channel_has_no_variance(both, raised):
    """In training, a batch with one value a channel is refused, with PyTorch's text."""
    texts = {raised(lambda lib=lib: lib.nn.BatchNorm1d(3)(lib.xp.zeros((1, 3), dtype=lib.xp.float32))) for lib in both}
    assert texts == {
        ("ValueError", "Expected more than 1 value per channel when training, got input size torch.Size([1, 3])")
    }


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize("kind", ["BatchNorm", "InstanceNorm"])
def test_inputs_of_other_dimensions(both, raised, kind, count):
    """The number of dimensions is checked, with PyTorch's text."""
    texts = {raised(lambda lib=lib: getattr(lib.nn, f"{kind}{count}d")(3)(lib.xp.zeros((3,) * 6))) for lib in both}
    assert len(texts) == 1
    assert next(iter(texts))[0] == "ValueError"


def test_states_from_before_batches_were_counted():
    """A state of version 1 has no num_batches_tracked: the module keeps its own, and nothing is missing."""
    norm = nn.BatchNorm2d(3)
    state = torch.nn.BatchNorm2d(3).state_dict()
    del state["num_batches_tracked"]
    state._metadata[""]["version"] = 1
    assert str(norm.load_state_dict(state)) == "<All keys matched successfully>"
    state._metadata[""]["version"] = 2
    with pytest.raises(RuntimeError, match="num_batches_tracked"):
        norm.load_state_dict(state)


def test_instance_norm_states_with_statistics_from_before_0_4(both, raised):
    """An InstanceNorm that tracks nothing says what to do with a very old state that holds statistics."""
    texts = set()
    for lib in both:
        state = {"running_mean": lib.xp.zeros((3,)), "running_var": lib.xp.ones((3,))}
        texts.add(raised(lambda lib=lib, state=state: lib.nn.InstanceNorm2d(3).load_state_dict(state)))
    assert len(texts) == 1
    assert "Please remove these keys from state_dict" in next(iter(texts))[1]


def test_statistics_can_be_reset():
    """`reset_running_stats` forgets what was tracked."""
    norm = nn.BatchNorm1d(2)
    norm(torch.randn(4, 2).numpy())
    norm.reset_running_stats()
    assert norm.running_mean.data.tolist() == [0, 0]
    assert norm.running_var.data.tolist() == [1, 1]
    assert norm.num_batches_tracked.data == 0
