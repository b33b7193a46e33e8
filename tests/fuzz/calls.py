"""Pickles of calls: every constructor that the reader has, with arguments that are right, nearly right, or anything; what
they make is given states, used as keys, put into sets and into each other."""

from __future__ import annotations

import struct
from collections.abc import Callable
from random import Random

from tests.hostile.build import pickles as p

from statedict.formats._pickle.reading._calls import CONSTRUCTORS, HARMLESS

NAMES = sorted({*CONSTRUCTORS, *HARMLESS, ("torch", "FloatTensor"), ("numpy", "ndarray"), ("unknown", "Thing")})
TEXTS = (
    *("", "a", "sNaN", "nan", "-1/3", "1e400", "0" * 40, "\ud800", "\U0010ffff"),
    *("f4", "<U2", "V8", "m8", "M8[s]", "latin1", "utf-8"),
    *("m8:1", "cpu", "cuda:1", "meta", "torch.strided", "torch.sparse_coo"),
    *("items", "_metadata", "__class__", "int"),
)
NUMBERS = (
    *(0, 1, 2, 3, 4, 5, 8, 16, 64, 127, 255, -1, -8),
    *(2**31 - 1, 2**31, 2**62, 2**63 - 1, 2**63, 2**64, 2**200, -(2**31), -(2**63)),
)
BYTES = (
    *(b"", b"\0" * 4, b"\xff" * 4, b"\xff\xff\xff\x7f", b"\0" * 8, b"\0" * 16),
    *(bytes(range(10)), b"\x07\xe8\1\1\0\0\0\0\0\0"),
)
DTYPES = ("f4", "f8", "i4", "u1", "?", "U1", "U2", "S3", "V4", "V8", "m8", "M8", "c8", "f2")
STORAGES = ("FloatStorage", "LongStorage", "ByteStorage", "QInt8Storage", "BFloat16Storage", "ComplexFloatStorage")
LOCATIONS = ("cpu", "cpu:x", "cuda:0", "meta", "m8", "distributed")


def some_call(random: Random) -> bytes:
    """A pickle of a few values that calls make."""
    maker = _Maker(random)
    return p.pickled(p.list_(*(maker.value(4) for _ in range(random.choice((1, 1, 2, 4))))), protocol=4)


class _Maker:
    def __init__(self, random: Random) -> None:
        self.random = random
        self.slots = 0

    def value(self, depth: int) -> bytes:
        if not depth or self.random.random() < 0.15:
            return self.atom()
        make: Callable[[int], bytes] = self.random.choice(
            (
                self.call,
                self.call,
                self.usual,
                self.usual,
                self.tensor,
                self.array,
                self.built,
                self.keyed,
                self.held,
                self.kept,
            )
        )
        return make(depth - 1)

    def atom(self) -> bytes:
        choose = self.random.choice
        return choose((
            lambda: p.text(choose(TEXTS)), lambda: _integer(choose(NUMBERS)), lambda: _raw(choose(BYTES)),
            lambda: p.real(choose((0.0, 1.5, float("nan"), float("inf")))), lambda: choose((p.NONE, p.TRUE, p.FALSE)),
            lambda: choose((b")", b"]", b"}", b"\x8f")), lambda: p.name(*choose(NAMES)),
        ))()  # fmt: skip

    def call(self, depth: int) -> bytes:
        """Any constructor with any arguments."""
        args = (self.value(depth) for _ in range(self.random.randrange(5)))
        return p.call(p.name(*self.random.choice(NAMES)), *args)

    def usual(self, depth: int) -> bytes:
        """A constructor with arguments of the kind that it takes."""
        choose = self.random.choice
        number, text = (lambda: _integer(choose(NUMBERS))), (lambda: p.text(choose(TEXTS)))
        inside, raw = (lambda: self.value(depth)), (lambda: _raw(choose(BYTES)))
        tensor, flag = (lambda: self.tensor(depth)), (lambda: choose((p.TRUE, p.FALSE)))
        usual: tuple[tuple[str, str, tuple[Callable[[], bytes], ...]], ...] = (
            ("decimal", "Decimal", (text,)),
            ("fractions", "Fraction", (text,)),
            ("fractions", "Fraction", (number, number)),
            ("builtins", "complex", (number, number)),
            ("builtins", "range", (number,)),
            ("builtins", "slice", (number,)),
            ("builtins", "bytearray", (inside,)),
            ("builtins", "frozenset", (lambda: p.list_(inside()),)),
            ("datetime", "timedelta", (number, number, number)),
            ("datetime", "datetime", (raw,)),
            ("uuid", "UUID", ()),
            ("pathlib", "PosixPath", (text,)),
            ("collections", "deque", (inside, number)),
            ("collections", "Counter", (lambda: p.dict_((inside(), number())),)),
            ("_codecs", "encode", (text, text)),
            ("torch", "device", (text,)),
            ("torch", "device", (text, number)),
            ("torch", "Size", (lambda: p.tuple_(number()),)),
            ("torch.serialization", "_get_layout", (text,)),
            ("torch._utils", "_rebuild_parameter", (tensor, flag, p.ordered_dict)),
        )
        module, name, kinds = choose(usual)
        return p.call(p.name(module, name), *(kind() for kind in kinds))

    def tensor(self, depth: int) -> bytes:
        choose = self.random.choice
        place = p.storage(choose("0012"), choose((0, 1, 2, 4, 16)), choose(STORAGES), choose(LOCATIONS))
        sizes = tuple(choose((0, 1, 2, 4, 2**40, 2**62, 2**63 - 1)) for _ in range(choose((0, 1, 1, 2, 2, 3))))
        strides = tuple(choose((0, 0, 1, 1, 2, 2**62, 2**63 - 1)) for _ in sizes)
        rest = (choose((p.TRUE, p.FALSE)), p.ordered_dict())
        if choose((0, 0, 0, 1)):
            rest = (*rest, p.dict_((p.text(choose(("conj", "neg"))), p.TRUE)))
        made = p.call(
            p.name("torch._utils", "_rebuild_tensor_v2"),
            place, _integer(choose((0, 0, 0, 1, 2**62))), p.integers(sizes), p.integers(strides), *rest,
        )  # fmt: skip
        layout = p.call(p.name("torch.serialization", "_get_layout"), p.text("torch.sparse_coo"))
        return choose((
            lambda: made, lambda: made,
            lambda: p.call(p.name("torch._utils", "_rebuild_sparse_tensor"), layout,
                           p.tuple_(self.value(depth), made, p.integers(sizes))),
            lambda: p.call(p.name("torch._utils", "_rebuild_nested_tensor"), made, *(self.value(depth) for _ in range(3))),
            lambda: p.call(p.name("torch._utils", "_rebuild_meta_tensor_no_storage"), p.name("torch", "int32"),
                           p.integers(sizes), p.integers(strides), p.TRUE),
        ))()  # fmt: skip

    def dtype(self, depth: int) -> bytes:
        choose = self.random.choice
        made = p.call(p.name("numpy", "dtype"), p.text(choose(DTYPES)), p.FALSE, p.TRUE)
        if choose((0, 0, 1)):
            return made
        sub, names, fields, size = p.NONE, p.NONE, p.NONE, _integer(-1)
        if depth > 0 and choose((0, 0, 1)):
            names, size = p.tuple_(p.text("a")), _integer(choose(NUMBERS))
            fields = p.dict_((p.text("a"), p.tuple_(self.dtype(depth - 1), _integer(choose(NUMBERS)))))
        elif depth > 0 and choose((0, 0, 1)):
            sub = p.tuple_(self.dtype(depth - 1), p.integers((choose((0, 1, 2, 2**31 - 1)),)))
        state = (_integer(3), p.text(choose("<>|=")), sub, names, fields, size, _integer(-1), _integer(0))
        if choose((0, 0, 1)):
            state = (
                *state,
                p.tuple_(p.dict_(), p.tuple_(p.text(choose(("s", "generic", "as"))), *map(_integer, (1, 1, 1)))),
            )
        return p.build(made, p.tuple_(*state))

    def array(self, depth: int) -> bytes:
        """A scalar or an array of NumPy's."""
        core = self.random.choice(("numpy.core", "numpy._core"))
        raw = _raw(self.random.choice(BYTES))
        if self.random.random() < 0.5:
            return p.call(p.name(f"{core}.multiarray", "scalar"), self.dtype(depth), raw)
        empty = p.call(
            p.name(f"{core}.multiarray", "_reconstruct"), p.name("numpy", "ndarray"), p.integers((0,)), _raw(b"b")
        )
        shape = p.integers(tuple(self.random.choice((0, 1, 2, 2**40)) for _ in range(self.random.randrange(3))))
        return p.build(empty, p.tuple_(_integer(1), shape, self.dtype(depth), p.FALSE, raw))

    def built(self, depth: int) -> bytes:
        """A value that is given a state."""
        return p.build(self.value(depth), self.random.choice((self.value, self.state))(depth))

    def state(self, depth: int) -> bytes:
        names = ("int", "_metadata", "a", "__class__")
        return p.dict_((p.text(self.random.choice(names)), self.value(depth)))

    def keyed(self, depth: int) -> bytes:
        """Values that are hashed, and compared where two of them are alike."""
        keys = [self.value(depth) for _ in range(self.random.choice((1, 2, 3)))]
        return self.random.choice((
            lambda: p.dict_(*((key, p.NONE) for key in keys)),
            lambda: b"\x8f(" + b"".join(keys) + b"\x90",
            lambda: b"(" + b"".join(keys) + b"\x91",
            lambda: p.dict_((p.tuple_(*keys), p.NONE)),
        ))()  # fmt: skip

    def held(self, depth: int) -> bytes:
        inside = [self.value(depth) for _ in range(self.random.choice((1, 2)))]
        return self.random.choice((p.tuple_, p.list_))(*inside)

    def kept(self, depth: int) -> bytes:
        """A value that is remembered, or one that was."""
        if self.slots and self.random.random() < 0.5:
            return p.get(self.random.randrange(self.slots))
        made = self.value(depth)
        self.slots += 1
        return made + p.put(self.slots - 1)


def _integer(value: int) -> bytes:
    return p.integer(value)


def _raw(content: bytes) -> bytes:
    return b"C" + struct.pack("<B", len(content)) + content
