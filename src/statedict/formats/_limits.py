"""Resource limits for reading a file, as one frozen value.

Each number that a file claims (a length, a count, a depth) is compared with these limits and with the bytes that exist
before anything is allocated for it. The defaults are far above what real checkpoints need. A LimitError names the limit
and says how to raise it.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import LimitError


@dataclass(frozen=True, slots=True)
class Limits:
    """Resource limits for reading one file.

    >>> Limits(pickle_bytes=1 << 30).depth
    1000

    Attributes:
        pickle_bytes: bytes of one pickle.
        operations: opcodes of one pickle.
        depth: nesting depth of values, and number of nested marks in a pickle.
        key_depth: nesting depth inside a dict key: Python hashes keys by recursion in C.
        key_items: values inside one dict key, which is hashed as a whole at each use.
        equal_hashes: keys of one dict with the same hash: Python's dict is quadratic in them.
        string_bytes: bytes of one string.
        digits: decimal digits of one integer (the conversion is quadratic); long_bytes: bytes of a binary integer.
        name_bytes: bytes of the name of a module or class.
        value_bytes: memory for the values of a pickle, in addition to `value_ratio` times the size of its file: an empty
            list or tuple takes 64 bytes of memory for one or two bytes of pickle, and a pickle can be compressed by a
            factor of a thousand.
        value_ratio: see `value_bytes`. Ordinary pickles of many small values need 10 to 50 times their size.
        copied_bytes: memory for calls in a pickle, in addition to four times the size of its file: a call of a few bytes
            can copy a long string from the memo, or create a container much larger than its opcodes.
        dtype_depth, dtype_fields: nesting depth of NumPy's structured dtypes, and fields of one, including nested ones.
        dimensions: dimensions of one tensor; PyTorch and NumPy support at most 64.
        nested: pickles inside pickles (a tensor pickled without torch.save contains one).
        zip_members, zip_name_bytes: members of an archive, and bytes of the name of one.
        inflated_bytes, inflated_ratio: decompressed size of an archive: at most the larger of `inflated_bytes` and
            `inflated_ratio` times its size.
        parsed_bytes: replaces `inflated_bytes` for one compressed member that is parsed (a pickle).
        member_ratio: decompressed size of one member, as a multiple of its compressed size (deflate reaches 1,032).
        json_bytes, json_depth: size and nesting depth of a JSON header or index.
        folders: folders in a folder in which checkpoints are searched for, at any depth. Symbolic links can lead to the
            same folder any number of times.
        expansion: elements of a view, as a multiple of its storage, that are written out without an explicit request.
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
    folders: int = 1_000
    expansion: int = 16

    def exceeded(self, budget: str, what: str) -> LimitError:
        """Return the LimitError for `what` (such as "a string of 5,000,000,000 bytes") that exceeds the limit `budget`."""
        allowed: int = getattr(self, budget)
        return LimitError(
            f"{what} exceeds the limit of {allowed:,}",
            hint=f"if you trust the file, raise the limit: statedict.open(path, limits=statedict.Limits({budget}=…))",
        )


LIMITS = Limits()
