"""What reading a file may cost: every budget in one frozen value.

A claim in a file (a length, a count, a depth) is compared with these and with the bytes that exist before anything is
allocated for it. The defaults are far beyond any honest checkpoint; a LimitError names the budget and how to raise it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import LimitError


@dataclass(frozen=True, slots=True)
class Limits:
    """Budgets of one reading.

    >>> Limits(pickle_bytes=1 << 30).depth
    1000

    Attributes:
        pickle_bytes: bytes of one pickle.
        operations: opcodes of one pickle.
        depth: how deep values may lie in each other, and open marks in a pickle.
        key_depth: the same inside a dict key: Python hashes keys by recursion in C.
        key_items: values inside one dict key, since it is hashed as a whole wherever it is used.
        equal_hashes: keys of one dict that share a hash value: Python's dict is quadratic in them.
        string_bytes: bytes of one string.
        digits: decimal digits of one integer (its conversion is quadratic); long_bytes: bytes of a binary one.
        name_bytes: bytes of a module's or class's name.
        value_bytes: memory that the values of a pickle may take, beyond `value_ratio` times the size of its file: a list or
            a tuple in a list takes 64 bytes for one or two of pickle, and a pickle can be compressed a thousandfold.
        value_ratio: see `value_bytes`. Python's own pickles of many small values take 10 to 50 times their size.
        copied_bytes: memory that calls in a pickle may use, beyond four times the size of its file: a call of a few bytes
            can copy a long string that was named before, or make a container that takes far more than its opcodes.
        dtype_depth, dtype_fields: NumPy's structured dtypes inside each other, and fields of one, those inside included.
        dimensions: of one tensor; PyTorch and NumPy know no more than 64.
        nested: pickles inside pickles (a tensor that was pickled without torch.save holds one).
        zip_members, zip_name_bytes: members of an archive and bytes of one's name.
        inflated_bytes, inflated_ratio: an archive may inflate to the larger of the first and the second times its size.
        parsed_bytes: the same for one compressed member that is parsed (a pickle), in place of `inflated_bytes`.
        member_ratio: one member may inflate to this many times its compressed size (deflate itself gives 1,032 at most).
        json_bytes, json_depth: of a JSON header or index.
        expansion: elements shown by a view, as a multiple of its storage, that are written out without being asked for.
    """

    pickle_bytes: int = 256 << 20
    operations: int = 50_000_000
    depth: int = 1_000
    key_depth: int = 16
    key_items: int = 128
    equal_hashes: int = 16
    string_bytes: int = 64 << 20
    digits: int = 4_300
    long_bytes: int = 4_096
    name_bytes: int = 1_024
    value_bytes: int = 32 << 20
    value_ratio: int = 64
    copied_bytes: int = 32 << 20
    dtype_depth: int = 16
    dtype_fields: int = 10_000
    dimensions: int = 64
    nested: int = 1
    zip_members: int = 1_000_000
    zip_name_bytes: int = 1_024
    inflated_bytes: int = 64 << 20
    inflated_ratio: int = 20
    parsed_bytes: int = 2 << 20
    member_ratio: int = 1_032
    json_bytes: int = 100_000_000
    json_depth: int = 4
    expansion: int = 16

    def exceeded(self, budget: str, what: str) -> LimitError:
        """The error to raise where `what` ("a string of 5,000,000,000 bytes") is beyond the budget of that name."""
        allowed: int = getattr(self, budget)
        return LimitError(
            f"{what} is beyond the limit of {allowed:,}",
            hint=f"if you trust the file, statedict.open(path, limits=statedict.Limits({budget}=…))",
        )


LIMITS = Limits()
