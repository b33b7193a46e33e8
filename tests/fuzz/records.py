"""Pickles of many tensors, written opcode by opcode: records as torch.save writes them, and now and then an odd one.

What is odd: a PUT or GET of another slot, or with another opcode; slot numbers around the one from which they take four
bytes; a BUILD that makes a tensor another one; ties, parameters, arguments that are used again; names, keys, shapes and
lengths that do not fit.
"""

from __future__ import annotations

from itertools import count
from random import Random

from tests.hostile.build import pickles as p

SIZES = (16, 64, 8, 48, 128)
STORAGES = 160
KINDS = {"FloatStorage": 4, "LongStorage": 8, "ByteStorage": 1, "BFloat16Storage": 2}
REBUILD, WORD, CPU, HOOKS, FIRST_KIND = range(5)
# Records of a pickle begin before and after the slots whose numbers need four bytes.
EDGE = 256
HOW_ODD = (0, 0, 0.002, 0.01, 0.05, 0.2)


class _Writer:
    """A pickle under way: its bytes, the next slot, and slots that hold tensors, their arguments, or anything."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.odd = random.choice(HOW_ODD)
        self.body = bytearray(b"\x80\x02")
        self.top = 0
        self.tensors: list[int] = []
        self.arguments: list[int] = []
        self.key = count()

    def is_odd(self) -> bool:
        return self.random.random() < self.odd

    def put(self) -> int:
        slot = self.top
        if self.is_odd():
            slot = self.random.choice((slot + 1, max(slot - 1, 0), self.random.randrange(slot + 2), slot + 300))
            if self.random.random() < 0.2:
                return slot  # which is not set
        long = slot >= EDGE or self.is_odd()
        self.body += b"r" + slot.to_bytes(4, "little") if long else p.put(slot)
        self.top = slot + 1
        return slot

    def get(self, slot: int) -> None:
        if self.is_odd():
            slot = self.random.randrange(self.top + 1)
        long = slot >= EDGE or self.is_odd()
        self.body += b"j" + slot.to_bytes(4, "little") if long else p.get(slot)

    def constants(self) -> None:
        """What records refer to, and slots up to near the edge."""
        words = p.name("torch._utils", "_rebuild_tensor_v2"), p.text("storage"), p.text("cpu")
        for value in (*words, p.name("collections", "OrderedDict"), *(p.name("torch", kind) for kind in KINDS)):
            self.body += value
            self.put()
            self.body += b"0"
        if self.random.random() < 0.8:
            while self.top < self.random.choice((EDGE, EDGE - self.random.randrange(24))):
                self.body += b"N"
                self.put()
                self.body += b"0"

    def name(self) -> None:
        text = f"layer.{next(self.key)}.weight"
        if self.is_odd():
            text = self.random.choice(("cpu", "a\nb", "", "ä" * 70, "((h\4h\5X\0\0\0", "layer.0.weight"))
        self.body += p.text(text)
        self.put()

    def value(self) -> None:
        if self.tensors and self.is_odd():
            self.random.choice((self.tie, self.again, self.other))()
            return
        self.record()
        while self.tensors and self.is_odd():
            self.build(on_top=self.random.random() < 0.5)

    def record(self) -> None:
        random = self.random
        number = next(self.key) % STORAGES if not self.is_odd() else random.choice((0, 3, STORAGES, 10**17))
        kind = random.randrange(len(KINDS)) if random.random() < 0.2 else 0
        numel = SIZES[number % len(SIZES)] // list(KINDS.values())[kind]
        shape = random.choice(((numel,), (numel // 2, 2), (2, numel // 4, 2), (numel,))) if numel > 3 else (numel,)
        strides, offset = _strides(shape), 0
        if self.is_odd():
            shape, strides = random.choice(
                (((), ()), ((0, 3), (3, 1)), ((2, 3), (1, 2)), ((9, 9), (0, 0)), (shape, (1,)))
            )
        if self.is_odd():
            offset = random.choice((1, 2, 7, 2**31 - 1))
        if self.is_odd():
            numel = random.choice((numel + 1, max(numel - 1, 0), 0, 2**31 - 1))
        parameter = self.is_odd()
        if parameter:
            self.body += p.name("torch._utils", "_rebuild_parameter")
            self.put()
            self.body += b"("
        self.get(REBUILD)
        self.body += b"(("
        self.get(WORD)
        self.get(FIRST_KIND + kind)
        self.body += p.text(str(number) if not self.is_odd() else f"0{number}")
        self.put()
        self.get(CPU)
        self.body += _integer(numel) + b"t"
        self.put()
        self.body += b"Q" + _integer(offset)
        for values in (shape, strides):
            self.body += _tuple(values)
            if values:
                self.put()
        self.body += p.TRUE if random.random() < 0.2 else p.FALSE
        self.get(HOOKS)
        self.body += b")R"
        self.put()
        self.body += b"t"
        self.arguments.append(self.put())
        self.body += b"R"
        self.tensors.append(self.put())
        if parameter:
            self.body += p.TRUE
            self.get(HOOKS)
            self.body += b")R"
            self.put()
            self.body += b"t"
            self.put()
            self.body += b"R"
            self.put()

    def tie(self) -> None:
        self.get(self.random.choice(self.tensors))

    def again(self) -> None:
        """The call with the arguments of a record that was read before."""
        self.get(REBUILD)
        self.get(self.random.choice(self.arguments))
        self.body += b"R"
        self.tensors.append(self.put())

    def other(self) -> None:
        self.body += self.random.choice((b"N", b"K\1", b"]", b"}", b")", p.text("cpu"), b"\x94", b"2", b"0"))

    def build(self, *, on_top: bool) -> None:
        """Have a tensor be another one, as the Variables of old files are: the one on top of the stack, or any."""
        if not on_top:
            self.get(self.random.choice(self.tensors))
        hooks = b"N"
        if self.random.random() < 0.5:
            self.body += p.FALSE + hooks + p.TRUE + b"\x87"
        else:
            self.body += b"("
            self.get(self.random.choice(self.tensors))
            self.body += b"K\0" + hooks + self.random.choice((p.FALSE, p.TRUE)) + b"Nt"
        self.body += b"b" if on_top else b"b0"


def generated(random: Random) -> bytes:
    """A pickle of a state, or of several."""
    w = _Writer(random)
    w.constants()
    w.body += b"]("
    for _ in range(random.choice((1, 1, 2))):
        w.body += b"}"
        w.put()
        w.body += b"("
        batch = random.choice((5, 40, 1000))
        for number in range(random.choice((2, 12, 60, 150))):
            if number and number % batch == 0:
                w.body += b"u("
            w.name()
            w.value()
        w.body += b"u"
    if w.arguments and random.random() < 0.5:
        w.build(on_top=False)
        w.again()
    for _ in range(random.choice((0, 0, 3))):
        w.get(random.randrange(w.top + 1))
    return bytes(w.body + b"e.")


def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * size)
    return tuple(strides)


def _integer(value: int) -> bytes:
    return b"M" + value.to_bytes(2, "little") if 256 <= value < 65536 else p.integer(value)


def _tuple(values: tuple[int, ...]) -> bytes:
    inner = b"".join(map(_integer, values))
    return (b")", inner + b"\x85", inner + b"\x86", inner + b"\x87")[len(values)]
