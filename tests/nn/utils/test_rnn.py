"""Packed and padded sequences against PyTorch's."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from statedict.nn.utils import rnn

THEIRS = torch.nn.utils.rnn
all_lengths = st.lists(st.integers(1, 5), min_size=1, max_size=4)


@settings(max_examples=40)
@given(lengths=all_lengths, first=st.booleans(), total=st.sampled_from([None, 7]))
def test_packing_and_padding(lengths, first, total, same):
    """Data, sizes and order of a packed sequence are PyTorch's, and padding it again gives what there was."""
    torch.manual_seed(0)
    steps, count = max(lengths), len(lengths)
    x = torch.randn((count, steps, 2) if first else (steps, count, 2))
    expected = THEIRS.pack_padded_sequence(x, torch.tensor(lengths), first, enforce_sorted=False)
    actual = rnn.pack_padded_sequence(x.numpy(), lengths, first, enforce_sorted=False)
    same(expected.data, actual.data)
    same(expected.batch_sizes, actual.batch_sizes)
    # Sequences of one length may be sorted either way: each order undoes the other.
    assert (actual.sorted_indices[actual.unsorted_indices] == np.arange(count)).all()
    same(
        THEIRS.pad_packed_sequence(expected, first, -1.0, total),
        rnn.pad_packed_sequence(actual, first, -1.0, total),
    )


@settings(max_examples=20)
@given(lengths=all_lengths, first=st.booleans(), side=st.sampled_from(["left", "right"]))
def test_lists_of_sequences(lengths, first, side, same):
    """Lists are padded, packed and taken apart as PyTorch does."""
    sequences = [torch.randn(n, 2) for n in lengths]
    own = [sequence.numpy() for sequence in sequences]
    same(THEIRS.pad_sequence(sequences, first, 3.0, side), rnn.pad_sequence(own, first, 3.0, side))
    packed = rnn.pack_sequence(own, enforce_sorted=False)
    same(own, rnn.unpack_sequence(packed))
    padded = rnn.pad_sequence(own, first)
    same(own, rnn.unpad_sequence(padded, np.array(lengths), first))


def test_a_packed_sequence_moves():
    """`to` casts and moves the data, and nothing else."""
    packed = rnn.pack_sequence([np.ones((2, 1), np.float32)])
    assert packed.to("float64").data.dtype == np.float64
    assert isinstance(packed.to(torch).data, torch.Tensor)
    assert packed.to(torch).batch_sizes is packed.batch_sizes


def test_orders():
    """A permutation and its inverse; none for none."""
    assert rnn.invert_permutation(np.array([2, 0, 1])).tolist() == [1, 2, 0]
    assert rnn.invert_permutation(None) is None


@pytest.mark.parametrize("lengths", [[1, 2], [0, 0], [2, -1], [9, 1], [2], [2, 1, 1]])
def test_lengths_that_cannot_be(lengths):
    """Lengths that are unsorted, not positive, too long or too many are refused, as PyTorch does."""
    x = torch.zeros(3, 2, 1)
    if lengths != [9, 1]:
        # PyTorch reads beyond the end here.
        with pytest.raises((RuntimeError, ValueError)):
            THEIRS.pack_padded_sequence(x, lengths)
    with pytest.raises(RuntimeError):
        rnn.pack_padded_sequence(x.numpy(), lengths)


def test_a_total_length_that_is_too_short():
    """Padding to less than the longest sequence is refused."""
    packed = rnn.pack_sequence([np.ones((3, 1))])
    with pytest.raises(ValueError, match="Expected total_length to be at least the length of the longest sequence"):
        rnn.pad_packed_sequence(packed, total_length=2)
