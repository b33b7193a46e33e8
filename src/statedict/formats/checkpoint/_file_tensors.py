"""Make leaves of byte ranges of a file, for readers of simple formats, such as those of plugins."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import accumulate
from math import prod
from typing import TYPE_CHECKING, Any, Literal

from statedict.files import File
from statedict.state import DTYPES, Box, DType, Leaf, Piece, Storage, contiguous, join_pieces

from ...errors import FormatError, TruncatedError
from .._limits import LIMITS, Limits
from ..storages._decoded import Coding, decoded
from ..storages._extent import Extent
from ..storages._file_source import FileSource
from ..storages._shape import check_addressable
from ._checkpoint import Finding
from ._verify import check_storages

if TYPE_CHECKING:
    import numpy as np


class FileTensors:
    """The tensors of one file, by name. Nothing is read before their elements are needed.

    What the file says about each tensor is checked: the range is in the file and has the bytes that the dtype and shape
    need, and no name is used twice. `checks` is for the argument of that name of Checkpoint.

    >>> import io, numpy as np
    >>> from statedict import files
    >>> from statedict.formats import FileTensors, read_array
    >>> file = files.open(io.BytesIO(b"HEAD" + np.arange(3, dtype="<f4").tobytes()))
    >>> read_array(FileTensors(file).tensor("weight", "float32", (3,), offset=4))
    array([0., 1., 2.], dtype=float32)
    """

    def __init__(self, file: File, limits: Limits = LIMITS) -> None:
        self._file = file
        self._limits = limits
        self._source = FileSource(file)
        self._storages: dict[str, Storage] = {}

    def tensor(
        self,
        name: str,
        dtype: str,
        shape: Sequence[int],
        offset: int,
        nbytes: int | None = None,
        *,
        crc: int | None = None,
        byteorder: Literal["little", "big"] = "little",
    ) -> Leaf:
        """Return the leaf of a tensor whose elements are in row-major order at byte `offset` of the file.

        `dtype` is PyTorch's name of it (`"bfloat16"`). `nbytes`: how many bytes the file says that it has. `crc`: their
        CRC-32, which is compared whenever they are read.

        Raises FormatError, TruncatedError or LimitError, with the name, if the file cannot contain this tensor.
        """
        found = self._checked(name, dtype, shape)
        needed = prod(shape) * found.itemsize
        if nbytes not in (None, needed):
            raise self._invalid(name, f"a {found} tensor of shape {list(shape)} has {needed:,} bytes, not {nbytes:,}")
        swap = 1 if byteorder == "little" else found.itemsize // (2 if found.is_complex else 1)
        return Leaf(contiguous(found, shape), self._storage(name, offset, needed, crc, found.itemsize, swap))

    def decoded(
        self,
        name: str,
        dtype: str,
        shape: Sequence[int],
        offset: int,
        nbytes: int,
        decode: Callable[[np.ndarray[Any, np.dtype[np.uint8]]], np.ndarray[Any, Any]],
        *,
        block: tuple[int, int],
        crc: int | None = None,
    ) -> Leaf:
        """Return the leaf of a tensor that is decoded when it is read, such as quantised weights.

        It is stored in blocks: `block` is the bytes of one, and the elements in it. `decode` gets some consecutive
        blocks, an array of `uint8` with one in each row, and returns their elements in row-major order. Large tensors
        are decoded in pieces.
        """
        found = self._checked(name, dtype, shape)
        size, elements = block
        count = prod(shape)
        if count % elements or nbytes != count // elements * size:
            raise self._invalid(
                name,
                f"{count:,} elements in blocks of {elements:,} elements and {size:,} bytes do not have {nbytes:,} bytes",
            )
        raw = self._storage(name, offset, nbytes, crc)
        return decoded(shape, Coding(raw, size, elements, found, decode, name))

    def joined(self, name: str, shape: Sequence[int], parts: Sequence[Leaf]) -> Leaf:
        """Return the leaf of a tensor that is stored in parts: its elements, in row-major order, are those of the first
        part, then those of the next … Nothing is read or copied here.
        """
        dtype = self._checked(name, parts[0].spec.dtype.name if parts else "", shape)
        if {part.spec.dtype for part in parts} != {dtype} or prod(shape) != sum(part.spec.numel for part in parts):
            raise self._invalid(
                name, f"its {len(parts):,} parts are not those of a {dtype} tensor of shape {list(shape)}"
            )
        counts = [part.spec.numel for part in parts]
        flat = [Leaf(contiguous(dtype, (part.spec.numel,)), part.storage) for part in parts]
        boxes = [Box((end - count,), (count,)) for end, count in zip(accumulate(counts), counts)]
        whole = join_pieces(dtype, (sum(counts),), map(Piece, boxes, flat))
        return Leaf(contiguous(dtype, shape), whole.storage)

    def checks(self) -> Iterator[Finding]:
        """Yield an error for each tensor whose bytes do not match their checksum."""
        return check_storages(self._source, self._storages)

    def _checked(self, name: str, dtype: str, shape: Sequence[int]) -> DType:
        if len(shape) > self._limits.dimensions:
            raise self._limits.exceeded("dimensions", f"a tensor of {len(shape)} dimensions").located(
                file=self._file.name, member=name
            )
        if not all(isinstance(size, int) and size >= 0 for size in shape):
            raise self._invalid(name, f"{list(shape)} is not a shape")
        if dtype not in DTYPES:
            raise self._invalid(name, f"{dtype!r} is not a dtype")
        check_addressable(shape, DTYPES[dtype].itemsize, file=self._file.name, member=name)
        return DTYPES[dtype]

    def _storage(
        self, name: str, offset: int, nbytes: int, crc: int | None, itemsize: int = 1, swap: int = 1
    ) -> Storage:
        if name in self._storages:
            raise self._invalid(name, "the file has two tensors of this name")
        if offset < 0:
            raise self._invalid(name, f"its offset is {offset:,}")
        if offset + nbytes > self._file.size:
            raise TruncatedError(
                f"its bytes {offset:,} to {offset + nbytes:,} are not in the file, which has {self._file.size:,}",
                file=self._file.name,
                member=name,
            )
        storage = self._source.storage(name, nbytes, Extent(offset, nbytes, name, crc, itemsize, swap))
        self._storages[name] = storage
        return storage

    def _invalid(self, name: str, problem: str) -> FormatError:
        return FormatError(problem, file=self._file.name, member=name)
