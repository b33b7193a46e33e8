"""One table of values and their pickles, for the reader and the writer both.

A row has a value, the bytes that `torch.save` (or, for plain values, pickle in protocol 2) writes for it, and other
bytes that mean the same.
"""

from __future__ import annotations

import datetime
import pickle
from collections import Counter, OrderedDict, defaultdict, deque
from collections.abc import Callable, Iterable
from fractions import Fraction
from typing import Any, NamedTuple

import pytest

from statedict.errors import FormatError, TruncatedError
from statedict.formats._pickle import Size, TorchConstant, TypedStorage
from statedict.state import DTYPES, Compound, Leaf, Opaque, Storage, Traits, contiguous


class Row(NamedTuple):
    """A value, its exact bytes, other bytes that read as the same value, and the same value in torch (None: it is plain).

    `python`: whether Python's own pickler can write the value.
    """

    value: Callable[[], Any]
    written: bytes
    also: Iterable[bytes] = ()
    torch: Callable[[Any], Any] | None = None
    python: bool = True


class Zeros:
    """The Source of storages that nobody reads."""

    def read_into(self, reads: Any, *, verify: bool = True) -> None:
        raise AssertionError

    def verify(self, storages: Any) -> None:
        raise AssertionError

    def view(self, storage: Storage, *, writable: bool = False) -> memoryview | None:
        raise AssertionError


def tensor(*shape: int, dtype: str = "float32", **traits: bool) -> Leaf:
    spec = contiguous(DTYPES[dtype], shape)
    return Leaf(spec, Storage(Zeros(), object(), spec.nbytes, location="cpu"), Traits(**traits))


def module_state(values: dict[str, Any]) -> Any:
    state: Any = OrderedDict(values)
    state._metadata = OrderedDict({"": {"version": 1}})
    return state


def unknown(*, new: bool = False) -> Opaque:
    number = 1
    value = Opaque("mine", "Thing", (number,), new=new)  # a new tuple each time
    value.state = {"x": 2}
    return value


def sparse() -> Compound:
    parts = {"indices": tensor(2, 0, dtype="int64"), "values": tensor(0)}
    return Compound("sparse_coo", DTYPES["float32"], (2, 2), parts, {"coalesced": True})


ROWS = {
    "None": Row(
        lambda: None,
        b"\x80\x02N.",
    ),
    "booleans": Row(
        lambda: [True, False],
        b"\x80\x02]q\x00(\x88\x89e.",
        also=[
            (b"(lI01\naI00\na."),
            b"](\x88\x89e.",
        ],
    ),
    "integers": Row(
        lambda: [0, 255, 256, 65535, 65536, -1, -(1 << 31), 1 << 31, -(1 << 63), 1 << 70],
        (
            b"\x80\x02]q\x00(K\x00K\xffM\x00\x01M\xff\xffJ\x00\x00\x01\x00J\xff\xff\xff\xff"
            b"J\x00\x00\x00\x80\x8a\x05\x00\x00\x00\x80\x00\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x80"
            b"\x8a\t\x00\x00\x00\x00\x00\x00\x00\x00@e."
        ),
        also=[
            (
                b"(lI0\n"
                b"aI255\n"
                b"aL256L\n"
                b"aI65535\n"
                b"aI65536\n"
                b"aI-1\n"
                b"aI-2147483648\n"
                b"aI2147483648\n"
                b"aL-9223372036854775808L\n"
                b"aL1180591620717411303424L\n"
                b"a."
            ),
        ],
    ),
    "floats": Row(
        lambda: [0.0, 1.5, -2e300, float("inf")],
        (
            b"\x80\x02]q\x00(G\x00\x00\x00\x00\x00\x00\x00\x00G?\xf8\x00\x00\x00\x00\x00\x00"
            b"G\xfeG\xe4<\x88\x00u\x9cG\x7f\xf0\x00\x00\x00\x00\x00\x00e."
        ),
        also=[
            (b"(lF0.0\naF1.5\naF-2e+300\naFinf\na."),
        ],
    ),
    "text": Row(
        lambda: ["", "a", "é", "line\nbreak"],
        (
            b"\x80\x02]q\x00(X\x00\x00\x00\x00q\x01X\x01\x00\x00\x00aq\x02X\x02\x00\x00\x00\xc3\xa9q\x03"
            b"X\n\x00\x00\x00line\nbreakq\x04e."
        ),
        also=[
            (b"(lV\naVa\naV\xe9\naVline\\u000abreak\na."),
            b"(lS''\naS'a'\naS'\\xc3\\xa9'\naS'line\\nbreak'\na.",
            b"](U\x00U\x01aT\x02\x00\x00\x00\xc3\xa9\x8c\nline\nbreake.",
            b"](\x8d\x00\x00\x00\x00\x00\x00\x00\x00U\x01aX\x02\x00\x00\x00\xc3\xa9U\nline\nbreake.",
        ],
    ),
    "bytes": Row(
        lambda: [b"", b"a\x00\xff"],
        (
            b"\x80\x02]q\x00(c__builtin__\nbytes\n"
            b"q\x01)Rq\x02c_codecs\nencode\n"
            b"q\x03X\x04\x00\x00\x00a\x00\xc3\xbfq\x04X\x06\x00\x00\x00latin1q\x05\x86q\x06Rq\x07e."
        ),
        also=[
            b"](C\x00B\x03\x00\x00\x00a\x00\xffe.",
            b"](C\x00\x8e\x03\x00\x00\x00\x00\x00\x00\x00a\x00\xffe.",
        ],
    ),
    "a bytearray": Row(
        lambda: bytearray(b"a\xff"),
        (
            b"\x80\x02c__builtin__\nbytearray\n"
            b"q\x00c_codecs\nencode\n"
            b"q\x01X\x03\x00\x00\x00a\xc3\xbfq\x02X\x06\x00\x00\x00latin1q\x03\x86q\x04Rq\x05\x85q\x06R"
            b"q\x07."
        ),
        also=[
            b"\x80\x05\x96\x02\x00\x00\x00\x00\x00\x00\x00a\xff.",
        ],
    ),
    "lists": Row(
        lambda: [[], [1], [1, 2]],
        b"\x80\x02]q\x00(]q\x01]q\x02K\x01a]q\x03(K\x01K\x02ee.",
        also=[
            (b"((l(I1\nl(I1\nI2\nll."),
        ],
    ),
    "tuples": Row(
        lambda: [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        (b"\x80\x02]q\x00()K\x01\x85q\x01K\x01K\x02\x86q\x02K\x01K\x02K\x03\x87q\x03(K\x01K\x02K\x03K\x04tq\x04e."),
        also=[
            (b"((t(I1\nt(I1\nI2\nt(I1\nI2\nI3\nt(I1\nI2\nI3\nI4\ntl."),
        ],
    ),
    "dicts": Row(
        lambda: [{}, {"a": 1}, {"a": 1, 2: None}],
        b"\x80\x02]q\x00(}q\x01}q\x02X\x01\x00\x00\x00aq\x03K\x01s}q\x04(h\x03K\x01K\x02Nue.",
        also=[
            (b"((d(S'a'\nI1\nd(S'a'\nI1\nI2\nNdl."),
        ],
    ),
    "sets": Row(
        lambda: [{1, 2}, frozenset((1,))],
        (
            b"\x80\x02]q\x00(c__builtin__\nset\n"
            b"q\x01]q\x02(K\x01K\x02e\x85q\x03Rq\x04c__builtin__\nfrozenset\n"
            b"q\x05]q\x06K\x01a\x85q\x07Rq\x08e."
        ),
        also=[
            b"](\x8f(K\x01K\x02\x90(K\x01\x91e.",
        ],
    ),
    "a list in itself twice": Row(
        lambda: (lambda inner: [inner, inner])([1]),
        b"\x80\x02]q\x00(]q\x01K\x01ah\x01e.",
        also=[
            b"]q\x05(]K\x01a2e.",
            b"](]\x94K\x01ah\x00e.",
        ],
    ),
    "collections": Row(
        lambda: [OrderedDict(key=1), Counter(["key", "key"]), defaultdict(list, key=[1]), deque((1, 2), 5)],
        (
            b"\x80\x02]q\x00(ccollections\nOrderedDict\n"
            b"q\x01)Rq\x02X\x03\x00\x00\x00keyq\x03K\x01sccollections\nCounter\n"
            b"q\x04}q\x05h\x03K\x02s\x85q\x06Rq\x07ccollections\ndefaultdict\n"
            b"q\x08c__builtin__\nlist\n"
            b"q\t\x85q\n"
            b"Rq\x0bh\x03]q\x0cK\x01asccollections\ndeque\n"
            b"q\r)K\x05\x86q\x0eRq\x0f(K\x01K\x02ee."
        ),
    ),
    "numbers of the library": Row(
        lambda: [complex(1, 2), range(1, 9, 2), Fraction(1, 3)],
        (
            b"\x80\x02]q\x00(c__builtin__\ncomplex\n"
            b"q\x01G?\xf0\x00\x00\x00\x00\x00\x00G@\x00\x00\x00\x00\x00\x00\x00\x86q\x02Rq\x03"
            b"c__builtin__\nxrange\n"
            b"q\x04K\x01K\tK\x02\x87q\x05Rq\x06cfractions\nFraction\n"
            b"q\x07K\x01K\x03\x86q\x08Rq\te."
        ),
    ),
    "times": Row(
        lambda: [datetime.date(2020, 1, 2), datetime.timedelta(1, 2, 3)],
        (
            b"\x80\x02]q\x00(cdatetime\ndate\n"
            b"q\x01c_codecs\nencode\n"
            b"q\x02X\x05\x00\x00\x00\x07\xc3\xa4\x01\x02q\x03X\x06\x00\x00\x00latin1q\x04\x86q\x05Rq\x06"
            b"\x85q\x07Rq\x08cdatetime\ntimedelta\n"
            b"q\tK\x01K\x02K\x03\x87q\n"
            b"Rq\x0be."
        ),
    ),
    "unknown objects": Row(
        lambda: [unknown(), unknown(new=True)],
        (
            b"\x80\x02]q\x00(cmine\nThing\n"
            b"q\x01K\x01\x85q\x02Rq\x03}q\x04X\x01\x00\x00\x00xq\x05K\x02sbh\x01K\x01\x85q\x06\x81q\x07}"
            b"q\x08h\x05K\x02sbe."
        ),
        also=[
            (
                b"](cmine\nThing\n"
                b"K\x01\x85R}X\x01\x00\x00\x00xK\x02sbU\x04mineU\x05Thing\x93K\x01\x85\x81}U\x01xK\x02sbe."
            ),
            (b"]((K\x01imine\nThing\n}U\x01xK\x02sbcmine\nThing\nK\x01\x85\x81}U\x01xK\x02sbe."),
            (b"]((cmine\nThing\nK\x01o}U\x01xK\x02sbcmine\nThing\nK\x01\x85}\x92}U\x01xK\x02sbe."),
        ],
        python=False,
    ),
    "constants of torch": Row(
        lambda: [
            Size((2, 3)),
            DTYPES["int8"],
            TorchConstant("device", "cuda:1"),
            TorchConstant("layout", "sparse_csr"),
        ],
        (
            b"\x80\x02]q\x00(ctorch\nSize\n"
            b"q\x01K\x02K\x03\x86q\x02\x85q\x03Rq\x04ctorch\nint8\n"
            b"q\x05ctorch\ndevice\n"
            b"q\x06X\x04\x00\x00\x00cudaq\x07K\x01\x86q\x08Rq\tctorch.serialization\n_get_layout\n"
            b"q\n"
            b"X\x10\x00\x00\x00torch.sparse_csrq\x0b\x85q\x0cRq\re."
        ),
        torch=lambda torch: [torch.Size((2, 3)), torch.int8, torch.device("cuda:1"), torch.sparse_csr],
    ),
    "a tensor": Row(
        lambda: tensor(2, 3),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x00((X\x07\x00\x00\x00storageq\x01ctorch\nFloatStorage\n"
            b"q\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x06tq\x05QK\x00K\x02K\x03\x86q\x06"
            b"K\x03K\x01\x86q\x07\x89ccollections\nOrderedDict\n"
            b"q\x08)Rq\ttq\n"
            b"Rq\x0b."
        ),
        torch=lambda torch: torch.zeros(2, 3),
    ),
    "a tensor of one number": Row(
        lambda: tensor(),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x00((X\x07\x00\x00\x00storageq\x01ctorch\nFloatStorage\n"
            b"q\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x01tq\x05QK\x00))\x89"
            b"ccollections\nOrderedDict\n"
            b"q\x06)Rq\x07tq\x08Rq\t."
        ),
        torch=lambda torch: torch.zeros(()),
    ),
    "a tensor of four dimensions": Row(
        lambda: tensor(1, 2, 3, 4),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x00((X\x07\x00\x00\x00storageq\x01ctorch\nFloatStorage\n"
            b"q\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x18tq\x05QK\x00(K\x01K\x02K\x03K\x04t"
            b"q\x06(K\x18K\x0cK\x04K\x01tq\x07\x89ccollections\nOrderedDict\n"
            b"q\x08)Rq\ttq\n"
            b"Rq\x0b."
        ),
        torch=lambda torch: torch.zeros(1, 2, 3, 4),
    ),
    "a tracked tensor": Row(
        lambda: tensor(2, requires_grad=True),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x00((X\x07\x00\x00\x00storageq\x01ctorch\nFloatStorage\n"
            b"q\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x02tq\x05QK\x00K\x02\x85q\x06K\x01\x85"
            b"q\x07\x88ccollections\nOrderedDict\n"
            b"q\x08)Rq\ttq\n"
            b"Rq\x0b."
        ),
        torch=lambda torch: torch.zeros(2, requires_grad=True),
    ),
    "a parameter": Row(
        lambda: {"weight": tensor(2, parameter=True, requires_grad=True)},
        (
            b"\x80\x02}q\x00X\x06\x00\x00\x00weightq\x01ctorch._utils\n_rebuild_parameter\n"
            b"q\x02ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\n"
            b"q\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x02tq\x08QK\x00K\x02\x85q\tK\x01\x85"
            b"q\n"
            b"\x89ccollections\nOrderedDict\n"
            b"q\x0b)Rq\x0ctq\rRq\x0e\x88h\x0b)Rq\x0f\x87q\x10Rq\x11s."
        ),
        torch=lambda torch: {"weight": torch.nn.Parameter(torch.zeros(2))},
    ),
    "a new dtype": Row(
        lambda: tensor(2, dtype="uint16"),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v3\n"
            b"q\x00((X\x07\x00\x00\x00storageq\x01ctorch.storage\nUntypedStorage\n"
            b"q\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x04tq\x05QK\x00K\x02\x85q\x06K\x01\x85"
            b"q\x07\x89ccollections\nOrderedDict\n"
            b"q\x08)Rq\tctorch\nuint16\n"
            b"q\n"
            b"tq\x0bRq\x0c."
        ),
        torch=lambda torch: torch.zeros(2, dtype=torch.uint16),
    ),
    "tied tensors": Row(
        lambda: (lambda one: {"a": one, "b": one})(tensor(2)),
        (
            b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x02((X\x07\x00\x00\x00storageq\x03ctorch\nFloatStorage\n"
            b"q\x04X\x01\x00\x00\x000q\x05X\x03\x00\x00\x00cpuq\x06K\x02tq\x07QK\x00K\x02\x85q\x08K\x01\x85"
            b"q\t\x89ccollections\nOrderedDict\n"
            b"q\n"
            b")Rq\x0btq\x0cRq\rX\x01\x00\x00\x00bq\x0eh\ru."
        ),
        torch=lambda torch: (lambda one: {"a": one, "b": one})(torch.zeros(2)),
    ),
    "a view and its tensor": Row(
        lambda: (lambda one: [one, Leaf(one.spec._replace(shape=(2,), strides=(3,), offset=1), one.storage)])(
            tensor(2, 3)
        ),
        (
            b"\x80\x02]q\x00(ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x01((X\x07\x00\x00\x00storageq\x02ctorch\nFloatStorage\n"
            b"q\x03X\x01\x00\x00\x000q\x04X\x03\x00\x00\x00cpuq\x05K\x06tq\x06QK\x00K\x02K\x03\x86q\x07"
            b"K\x03K\x01\x86q\x08\x89ccollections\nOrderedDict\n"
            b"q\t)Rq\n"
            b"tq\x0bRq\x0ch\x01((h\x02h\x03h\x04h\x05K\x06tq\rQK\x01K\x02\x85q\x0eK\x03\x85q\x0f\x89h\t)R"
            b"q\x10tq\x11Rq\x12e."
        ),
        torch=lambda torch: (lambda one: [one, one[:, 1]])(torch.zeros(2, 3)),
    ),
    "a conjugated tensor": Row(
        lambda: tensor(1, dtype="complex64", conj=True),
        (
            b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x00((X\x07\x00\x00\x00storageq\x01ctorch\nComplexFloatStorage\n"
            b"q\x02X\x01\x00\x00\x000q\x03X\x03\x00\x00\x00cpuq\x04K\x01tq\x05QK\x00K\x01\x85q\x06K\x01\x85"
            b"q\x07\x89ccollections\nOrderedDict\n"
            b"q\x08)Rq\t}q\n"
            b"X\x04\x00\x00\x00conjq\x0b\x88stq\x0cRq\r."
        ),
        torch=lambda torch: torch.zeros(1, dtype=torch.complex64).conj(),
    ),
    "a storage": Row(
        lambda: TypedStorage(tensor(2).storage, DTYPES["float32"], 2),
        (
            b"\x80\x02(X\x07\x00\x00\x00storageq\x00ctorch\nFloatStorage\n"
            b"q\x01X\x01\x00\x00\x000q\x02X\x03\x00\x00\x00cpuq\x03K\x02tq\x04Q."
        ),
        torch=lambda torch: torch.zeros(2).storage(),
    ),
    "a module's state": Row(
        lambda: module_state({"w": tensor(2)}),
        (
            b"\x80\x02ccollections\nOrderedDict\n"
            b"q\x00)Rq\x01X\x01\x00\x00\x00wq\x02ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x03((X\x07\x00\x00\x00storageq\x04ctorch\nFloatStorage\n"
            b"q\x05X\x01\x00\x00\x000q\x06X\x03\x00\x00\x00cpuq\x07K\x02tq\x08QK\x00K\x02\x85q\tK\x01\x85"
            b"q\n"
            b"\x89h\x00)Rq\x0btq\x0cRq\rs}q\x0eX\t\x00\x00\x00_metadataq\x0fh\x00)Rq\x10X\x00\x00\x00\x00"
            b"q\x11}q\x12X\x07\x00\x00\x00versionq\x13K\x01sssb."
        ),
        torch=lambda torch: module_state({"w": torch.zeros(2)}),
    ),
    "a sparse tensor": Row(
        lambda: sparse(),
        (
            b"\x80\x02ctorch._utils\n_rebuild_sparse_tensor\n"
            b"q\x00ctorch.serialization\n_get_layout\n"
            b"q\x01X\x10\x00\x00\x00torch.sparse_cooq\x02\x85q\x03Rq\x04("
            b"ctorch._utils\n_rebuild_tensor_v2\n"
            b"q\x05((X\x07\x00\x00\x00storageq\x06ctorch\nLongStorage\n"
            b"q\x07X\x01\x00\x00\x000q\x08X\x03\x00\x00\x00cpuq\tK\x00tq\n"
            b"QK\x00K\x02K\x00\x86q\x0bK\x01K\x01\x86q\x0c\x89ccollections\nOrderedDict\n"
            b"q\r)Rq\x0etq\x0fRq\x10h\x05((h\x06ctorch\nFloatStorage\n"
            b"q\x11X\x01\x00\x00\x001q\x12h\tK\x00tq\x13QK\x00K\x00\x85q\x14K\x01\x85q\x15\x89h\r)Rq\x16t"
            b"q\x17Rq\x18ctorch\nSize\n"
            b"q\x19K\x02K\x02\x86q\x1a\x85q\x1bRq\x1c\x88tq\x1d\x86q\x1eRq\x1f."
        ),
        torch=lambda torch: torch.zeros(2, 2).to_sparse(),
    ),
}
WRITTEN = [pytest.param(row, id=name) for name, row in ROWS.items()]
TORCH = [pytest.param(row, id=name) for name, row in ROWS.items() if row.torch]
PLAIN = [pytest.param(row, id=name) for name, row in ROWS.items() if not row.torch and row.python]
READ = [
    pytest.param(row, raw, id=f"{name} {n}")
    for name, row in ROWS.items()
    for n, raw in enumerate((row.written, *row.also))
]


def shown(value: Any, seen: dict[Any, int]) -> object:
    """A value in a form that can be compared: tensors by their specs, and shared objects and storages by number."""
    kind = type(value)
    if kind in (list, dict, OrderedDict, Leaf) and value:
        if id(value) in seen:
            return "again", seen[id(value)]
        seen[id(value)] = len(seen)
    if kind is Leaf:
        number = seen.setdefault(value.storage.key, len(seen))
        return "leaf", value.spec, value.traits, number, value.storage.nbytes, value.storage.location
    if kind is Opaque:
        parts = (value.args, value.kwargs, value.state, value.items)
        return value.path, value.new, [shown(part, seen) for part in parts]
    if kind is TypedStorage:
        return "storage", value.dtype, value.numel, seen.setdefault(value.storage.key, len(seen)), value.storage.nbytes
    if kind is Compound:
        inner = {role: shown(part, seen) for role, part in value.parts.items()}
        return value.layout, value.dtype, value.shape, inner, value.facts, value.traits
    if isinstance(value, dict):
        items = [(shown(key, seen), shown(item, seen)) for key, item in value.items()]
        return (
            kind,
            items,
            getattr(value, "default_factory", None),
            shown([*getattr(value, "__dict__", {}).items()], seen),
        )
    if kind in (list, tuple):
        return kind, [shown(item, seen) for item in value]
    return kind, repr(value)


@pytest.mark.parametrize("row", WRITTEN)
def test_the_writer_writes_these_bytes(write, row):
    """The writer gives exactly the bytes of the table."""
    assert write(row.value()) == row.written


@pytest.mark.parametrize(("row", "raw"), READ)
def test_the_reader_reads_this_value(read, storages, row, raw):
    """The reader finds the value of the row in each of its pickles, and stops at their end."""
    found = read(raw)
    assert shown(found.value, {}) == shown(row.value(), {})
    assert found.end == len(raw)


@pytest.mark.parametrize("row", WRITTEN)
def test_what_was_read_is_written_again(read, write, row):
    """Reading and writing give the same bytes."""
    assert write(read(row.written).value) == row.written


@pytest.mark.parametrize(("row", "raw"), READ)
def test_every_truncation_is_an_error(read, row, raw):
    """A pickle that ends anywhere before its last byte is a TruncatedError, placed inside what is left."""
    for length in range(len(raw)):
        with pytest.raises(TruncatedError) as caught:
            read(raw[:length])
        assert (caught.value.file, caught.value.member) == ("x.pt", "data.pkl")
        assert 0 <= caught.value.offset <= length


@pytest.mark.parametrize(("row", "raw"), READ)
def test_trailing_bytes_are_an_error(read, row, raw):
    """Bytes after the end are refused, unless the caller reads pickles that follow each other."""
    for tail in (b"\0", b".", raw):
        with pytest.raises(FormatError, match=f"{len(tail)} bytes follow the end of the pickle") as caught:
            read(raw + tail)
        assert caught.value.offset == len(raw)
        assert read(raw + tail, whole=False).end == len(raw)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("row", PLAIN)
def test_every_protocol_reads_the_same(read, row, protocol):
    """The table has the bytes of Python's own pickler, and its pickles of all protocols are read as the same value."""
    raw = pickle.dumps(row.value(), protocol)
    assert protocol != 2 or raw == row.written
    assert shown(read(raw).value, {}) == shown(row.value(), {})


@pytest.mark.filterwarnings("ignore:TypedStorage is deprecated")
@pytest.mark.parametrize("row", TORCH)
def test_torch_writes_these_bytes(saved, row):
    """The table has the bytes of `torch.save`."""
    assert saved(row.torch(pytest.importorskip("torch"))).pickle == row.written
