"""Recurrent layers and cells against PyTorch's, on random settings, padded and packed."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict import nn

KINDS = ["LSTM", "GRU", "RNN"]

pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported")


@st.composite
def recurrents(draw):
    kind = draw(st.sampled_from(KINDS))
    hidden = draw(st.integers(2, 5))
    chosen = {
        "num_layers": draw(st.integers(1, 3)),
        "bias": draw(st.booleans()),
        "batch_first": draw(st.booleans()),
        "bidirectional": draw(st.booleans()),
    }
    if kind == "LSTM":
        chosen["proj_size"] = draw(st.integers(0, hidden - 1))
    if kind == "RNN":
        chosen["nonlinearity"] = draw(st.sampled_from(["tanh", "relu"]))
    return kind, (draw(st.integers(1, 4)), hidden), chosen


def states(kind, args, chosen, sequences):
    """Random initial states, as tensors."""
    count = chosen["num_layers"] * (2 if chosen["bidirectional"] else 1)
    batch = () if sequences is None else (sequences,)
    h = torch.randn(count, *batch, chosen.get("proj_size") or args[1])
    return (h, torch.randn(count, *batch, args[1])) if kind == "LSTM" else h


def as_arrays(state):
    return tuple(part.numpy() for part in state) if isinstance(state, tuple) else state.numpy()


@settings(max_examples=60)
@given(
    drawn=recurrents(),
    sequences=st.sampled_from([None, 0, 1, 3, 4]),
    steps=st.integers(1, 6),
    given_state=st.booleans(),
)
def test_sequences(drawn, sequences, steps, given_state, twins, same):
    """Outputs and last states are PyTorch's, with and without a batch and an initial state."""
    kind, args, chosen = drawn
    theirs, ours = twins(kind, *args, **chosen)
    shape = [steps, args[0]]
    if sequences is not None:
        shape.insert(0 if chosen["batch_first"] else 1, sequences)
    x = torch.randn(shape)
    state = states(kind, args, chosen, sequences) if given_state else None
    same(theirs(x, state), ours(x.numpy(), None if state is None else as_arrays(state)))


@settings(max_examples=40)
@given(
    drawn=recurrents(),
    lengths=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    given_state=st.booleans(),
)
def test_packed_sequences(drawn, lengths, given_state, twins, same):
    """Sequences of different lengths, packed in any order, give what PyTorch gives, padded again."""
    kind, args, chosen = drawn
    theirs, ours = twins(kind, *args, **chosen)
    first = chosen["batch_first"]
    steps, sequences = max(lengths), len(lengths)
    x = torch.randn((sequences, steps, args[0]) if first else (steps, sequences, args[0]))
    state = states(kind, args, chosen, sequences) if given_state else None
    pack = {"batch_first": first, "enforce_sorted": False}
    packed = torch.nn.utils.rnn.pack_padded_sequence(x, torch.tensor(lengths), **pack)
    expected, last = theirs(packed, state)
    mine = nn.utils.rnn.pack_padded_sequence(x.numpy(), lengths, **pack)
    output, own_last = ours(mine, None if state is None else as_arrays(state))
    same(last, own_last)
    same(
        torch.nn.utils.rnn.pad_packed_sequence(expected, batch_first=first, padding_value=7.0),
        nn.utils.rnn.pad_packed_sequence(output, batch_first=first, padding_value=7.0),
    )


@settings(max_examples=30)
@given(
    kind=st.sampled_from(["LSTMCell", "GRUCell", "RNNCell"]),
    sizes=st.tuples(st.integers(1, 4), st.integers(1, 4)),
    bias=st.booleans(),
    samples=st.sampled_from([None, 1, 3]),
    given_state=st.booleans(),
)
def test_cells(kind, sizes, bias, samples, given_state, twins, same):
    """One step of a cell is PyTorch's, with and without a batch and a state."""
    theirs, ours = twins(kind, *sizes, bias=bias)
    batch = () if samples is None else (samples,)
    x, state = torch.randn(*batch, sizes[0]), None
    if given_state:
        state = torch.randn(*batch, sizes[1])
        state = (state, torch.randn(*batch, sizes[1])) if kind == "LSTMCell" else state
    same(theirs(x, state), ours(x.numpy(), None if state is None else as_arrays(state)))


def test_dropout_between_layers():
    """In training, what one layer gives to the next is dropped with probability `dropout`; in evaluation nothing is."""
    lstm = nn.LSTM(3, 4, num_layers=2, dropout=1.0)
    x = torch.randn(5, 2, 3).numpy()
    only_bias, _ = nn.LSTM(3, 4)(x)
    dropped, _ = lstm(x)
    # The second layer saw zeros only, whatever the first gave: equal for all sequences.
    assert (dropped[:, 0] == dropped[:, 1]).all()
    assert not (only_bias[:, 0] == only_bias[:, 1]).all()
    kept, _ = lstm.eval()(x)
    assert not (kept[:, 0] == kept[:, 1]).all()


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((0, 3), {}),
        ((3, 0), {}),
        ((3, 4), {"num_layers": 0}),
        ((3, 4), {"proj_size": 4}),
        ((3, 4), {"proj_size": -1}),
        ((3, 4), {"dropout": 2}),
        ((3, 4), {"dropout": True}),
        ((3.0, 4), {}),
        ((3, 4), {"bias": 1}),
    ],
)
def test_settings_that_cannot_be(both, raised, args, kwargs):
    """Bad settings are refused, with PyTorch's errors and texts."""
    texts = {raised(lambda lib=lib: lib.nn.LSTM(*args, **kwargs)) for lib in both}
    assert len(texts) == 1
    assert texts != {None}


def test_settings_of_one_kind_only(both, raised):
    """Only LSTMs have projections, and an RNN's nonlinearity is tanh or relu."""
    for made in (
        lambda nn: nn.GRU(3, 4, proj_size=2),
        lambda nn: nn.RNN(3, 4, proj_size=2),
        lambda nn: nn.RNN(3, 4, nonlinearity="sin"),
    ):
        texts = {raised(lambda lib=lib, made=made: made(lib.nn)) for lib in both}
        assert len(texts) == 1
        assert texts != {None}


@pytest.mark.parametrize("shape", [(3,), (5, 2, 4), (5, 4)])
def test_inputs_that_do_not_fit(both, raised, shape):
    """Wrong dimensions and widths are refused with the same kind of error."""
    kinds = {raised(lambda lib=lib: lib.nn.GRU(3, 4)(lib.xp.zeros(shape, dtype=lib.xp.float32)))[0] for lib in both}
    assert len(kinds) == 1


def test_a_state_of_the_wrong_size(both, raised):
    """An initial state of another shape is refused, with PyTorch's text."""
    texts = set()
    for lib in both:
        x, h = lib.xp.zeros((5, 2, 3), dtype=lib.xp.float32), lib.xp.zeros((1, 3, 4), dtype=lib.xp.float32)
        texts.add(raised(lambda lib=lib, x=x, h=h: lib.nn.LSTM(3, 4)(x, (h, h))))
    assert len(texts) == 1


def test_dropout_without_a_second_layer_is_warned_of(both):
    """Dropout comes between layers: with one layer it does nothing."""
    for lib in both:
        with pytest.warns(UserWarning, match="dropout option adds dropout after all but last"):
            lib.nn.LSTM(3, 4, dropout=0.5)
