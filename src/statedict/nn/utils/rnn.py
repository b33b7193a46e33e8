"""The functions of `torch.nn.utils.rnn`: sequences of different lengths as one array, packed or padded.

A packed array holds the first steps of all sequences, then all second steps, and so on. The longest sequence is first, so
the sequences that are still running are the first rows of each step.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from .._arrays import Array, asarray, full, unwrap
from .._variable import raw


class PackedSequence(NamedTuple):
    """Packed sequences; created by `pack_padded_sequence`.

    Attributes:
        data: (all steps of all sequences, …).
        batch_sizes: the number of sequences at each step; int64 in NumPy.
        sorted_indices: the positions of the sequences before sorting, or None if they were sorted already.
        unsorted_indices: the inverse.

    >>> packed = pack_sequence([np.array([1, 2, 3]), np.array([4])])
    >>> packed.data.tolist(), packed.batch_sizes.tolist()
    ([1, 4, 2, 3], [2, 1, 1])
    """

    data: Any
    batch_sizes: Any
    sorted_indices: Any = None
    unsorted_indices: Any = None

    def to(self, *args: Any, **kwargs: Any) -> Self:
        """Return the same with its data moved or cast, like `Module.to`."""
        from .._conversion import converter

        return self._replace(data=converter(*args, **kwargs)(raw(self.data)))


def invert_permutation(permutation: Any) -> Any:
    """Return the inverse permutation; None for None.

    >>> invert_permutation(np.array([2, 0, 1])).tolist()
    [1, 2, 0]
    """
    return None if permutation is None else np.argsort(np.asarray(permutation), kind="stable")


def pack_padded_sequence(
    input: Any, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack sequences that are padded to the same length.

    Args:
        input: (steps, sequences, …), or (sequences, steps, …) with `batch_first`.
        lengths: the number of valid steps of each sequence.
        enforce_sorted: require that they are sorted, longest first; otherwise they are sorted here.

    Raises RuntimeError for an invalid length, or if they should be sorted but are not.

    >>> packed = pack_padded_sequence(np.array([[1, 2, 3], [4, 0, 0]]), np.array([3, 1]), batch_first=True)
    >>> packed.data.tolist(), packed.batch_sizes.tolist()
    ([1, 4, 2, 3], [2, 1, 1])
    """
    xp, x = unwrap(input)
    x = xp.permute_dims(x, (1, 0, *range(2, x.ndim))) if batch_first else x
    sizes = np.asarray(raw(lengths), dtype=np.int64)
    if sizes.shape != (x.shape[1],):
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} (batch_size={x.shape[1]})"
        )
    order = None
    if not enforce_sorted:
        order = np.argsort(-sizes, kind="stable")
        sizes = sizes[order]
        x = xp.take(x, asarray(x, order), axis=1)
    if len(sizes) and (sizes[-1] if enforce_sorted else sizes.min()) <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' that is <= 0"
        )
    if (np.diff(sizes) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. You can pass "
            "`enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to sidestep this requirement if you "
            "do not need ONNX exportability."
        )
    if sizes[0] > x.shape[0]:
        raise RuntimeError(
            f"Expected sequence length to be larger than or equal to the largest length {sizes[0]}, got {x.shape[0]}"
        )
    batch_sizes = (sizes[None, :] > np.arange(sizes[0])[:, None]).sum(axis=1)
    data = xp.concat([x[step, :count, ...] for step, count in enumerate(batch_sizes.tolist())], axis=0)
    return PackedSequence(data, batch_sizes, order, invert_permutation(order))


def pad_packed_sequence(
    sequence: PackedSequence, batch_first: bool = False, padding_value: float = 0.0, total_length: int | None = None
) -> tuple[Array, Any]:
    """The partner of `pack_padded_sequence`: return (padded array, lengths), in the original order.

    >>> padded, lengths = pad_packed_sequence(pack_sequence([np.array([1, 2, 3]), np.array([4])]), batch_first=True)
    >>> padded.tolist(), lengths.tolist()
    ([[1, 2, 3], [4, 0, 0]], [3, 1])
    """
    data, batch_sizes, _, unsorted = sequence
    xp, data = unwrap(data)
    counts = np.asarray(batch_sizes).tolist()
    if total_length is not None and total_length < len(counts):
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, but got "
            f"total_length={total_length} and max sequence length being {len(counts)}"
        )
    steps = []
    for end, count in zip(np.cumsum(counts).tolist(), counts):
        rows = data[end - count : end, ...]
        missing = full(rows, (counts[0] - count, *rows.shape[1:]), padding_value)
        steps.append(rows if count == counts[0] else xp.concat([rows, missing], axis=0))
    steps += [full(data, (counts[0], *data.shape[1:]), padding_value)] * ((total_length or len(counts)) - len(counts))
    padded = xp.stack(steps, axis=1 if batch_first else 0)
    lengths = (np.asarray(counts)[:, None] > np.arange(counts[0])).sum(axis=0)
    if unsorted is not None:
        padded = xp.take(padded, asarray(padded, unsorted), axis=0 if batch_first else 1)
        lengths = lengths[unsorted]
    return padded, lengths


def pad_sequence(
    sequences: Iterable[Any], batch_first: bool = False, padding_value: float = 0.0, padding_side: str = "right"
) -> Array:
    """Combine sequences (steps, …) into one array: (steps, sequences, …), or with `batch_first` (sequences, steps, …).

    >>> pad_sequence([np.array([1, 2, 3]), np.array([4])], batch_first=True).tolist()
    [[1, 2, 3], [4, 0, 0]]
    """
    xp, *arrays = unwrap(*sequences)
    longest = max(array.shape[0] for array in arrays)
    padded = []
    for array in arrays:
        missing = full(array, (longest - array.shape[0], *array.shape[1:]), padding_value)
        pieces = [array, missing] if padding_side == "right" else [missing, array]
        padded.append(xp.concat(pieces, axis=0))
    return xp.stack(padded, axis=0 if batch_first else 1)


def unpad_sequence(padded_sequences: Any, lengths: Any, batch_first: bool = False) -> list[Array]:
    """The partner of `pad_sequence`: return a list of sequences.

    >>> padded = np.array([[1, 2, 3], [4, 0, 0]])
    >>> [row.tolist() for row in unpad_sequence(padded, np.array([3, 1]), batch_first=True)]
    [[1, 2, 3], [4]]
    """
    xp, x = unwrap(padded_sequences)
    x = x if batch_first else xp.permute_dims(x, (1, 0, *range(2, x.ndim)))
    return [x[i, :length, ...] for i, length in enumerate(np.asarray(raw(lengths)).tolist())]


def pack_sequence(sequences: Sequence[Any], enforce_sorted: bool = True) -> PackedSequence:
    """Pack sequences (steps, …) of different lengths.

    >>> packed = pack_sequence([np.array([1, 2, 3]), np.array([4])])
    >>> packed.data.tolist(), packed.batch_sizes.tolist()
    ([1, 4, 2, 3], [2, 1, 1])
    """
    lengths = [raw(sequence).shape[0] for sequence in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Array]:
    """The partner of `pack_sequence`: return a list of sequences.

    >>> [row.tolist() for row in unpack_sequence(pack_sequence([np.array([1, 2, 3]), np.array([4])]))]
    [[1, 2, 3], [4]]
    """
    return unpad_sequence(*pad_packed_sequence(packed_sequences, batch_first=True), batch_first=True)
