"""Every invalid pickle raises FormatError with the place of the error, and runs nothing."""

from __future__ import annotations

import mmap
import pickle
import struct
import sysconfig
import threading
import tracemalloc

import numpy  # noqa: F401  (imported before a test watches for imports)
import pytest
from tests.cost import seconds
from tests.hostile.build import pickles as p

from statedict.errors import FormatError, LimitError, TruncatedError
from statedict.formats._limits import Limits

DEEP = 200_000
BROKEN = {
    "unknown opcode": (b"\x80\x02\xff.", "unknown opcode", 2),
    "protocol 6": (b"\x80\x06N.", "protocol 6", 0),
    "protocol 255": (b"\x80\xffN.", "protocol 255", 0),
    "second header": (b"\x80\x02\x80\x02N.", "a protocol header occurs in the middle", 2),
    "EXT1": (b"\x80\x02\x82\x01.", "extension registry", 2),
    "EXT2": (b"\x80\x02\x83\x01\0.", "extension registry", 2),
    "EXT4": (b"\x80\x02\x84\x01\0\0\0.", "extension registry", 2),
    "NEXT_BUFFER": (b"\x80\x05\x97.", "out-of-band", 2),
    "READONLY_BUFFER": (b"\x80\x05\x98.", "out-of-band", 2),
    "stack underflow": (b"\x80\x02\x87.", "needs more values", 2),
    "append to nothing": (b"Na.", "needs more values", 1),
    "mark underflow": (b"\x80\x02t.", "needs more values", 2),
    "pop of nothing": (b"0.", "needs more values", 0),
    "dup of nothing": (b"2.", "needs more values", 0),
    "values left over": (b"NN.", "more than one value", None),
    "mark left over": (b"(N.", "more than one value", None),
    "memo unset": (b"h\x05.", "entry 5 of the memo is read", 0),
    "memo unset, long": (b"j\x05\0\0\0.", "entry 5 of the memo is read", 0),
    "memo unset, text": (b"g5\n.", "entry 5 of the memo is read", 0),
    "memo index no number": (b"Npx\n.", "decimal integer", 1),
    "setitems odd": (b"}(Nu.", "key has no value", 3),
    "dict odd": (b"(Nd.", "key has no value", 2),
    "key is a list": (b"}]Ns.", "list cannot be a dictionary key", 3),
    "key is a dict": (b"}}Ns.", "dict cannot be a dictionary key", 3),
    "key holds a list": (b"}]\x85Ns.", "list cannot be a dictionary key", 4),
    "set of lists": (b"\x8f(]\x90.", "list cannot be a dictionary key", 3),
    "append to a tuple": (b")Na.", "appends list items to an object of type tuple", 2),
    "appends to a dict": (b"}(Ne.", "appends list items to an object of type dict", 3),
    "setitem on a list": (b"]NNs.", "sets dictionary items on an object of type list", 3),
    "additems to a list": (b"](N\x90.", "adds set items to an object of type list", 3),
    "append to a class": (p.name("a", "b") + b"Na.", "appends list items to an object of type Opaque", None),
    "build on a list": (b"]}b.", "sets attributes on an object of type list", 2),
    "build on a class": (p.name("a", "b") + b"}b.", "class or function a.b itself", None),
    "build twice": (p.call(p.name("a", "b")) + b"}b}b.", "twice on the same a.b", None),
    "key twice": (p.dict_((p.text("w"), p.NONE), (p.text("w"), p.TRUE)) + b".", "'w'", None),
    "key twice, apart": (b"}" + (p.text("w") + b"Ns") * 2 + b".", "set twice", None),
    "equal keys": (p.dict_((p.integer(1), p.NONE), (p.TRUE, p.NONE)) + b".", "set twice", None),
    "item twice": (b"\x8f(K\x01K\x01\x90.", "added twice", None),
    "call of a number": (b"K\x01)R.", "calls an object of type int, which is not callable", 3),
    "call of a string": (b"U\x01a)R.", "calls an object of type str, which is not callable", None),
    "arguments no tuple": (p.name("a", "b") + b"]R.", "a tuple, not list", None),
    "keyword arguments no dict": (p.name("a", "b") + b")]\x92.", "not a dict of names", None),
    "name of an import no string": (b"K\x01K\x02\x93.", "should be strings", None),
    "name of an import empty": (b"ca\n\n.", "empty", 0),
    "name of an import with CR": (b"cos\r\nsystem\r\n.", "unprintable", 0),
    "name of an import with an escape": (b"cos\n\x1b[2J\n.", "unprintable", 0),
    "name of an import too long": (b"ca\n" + b"b" * 2000 + b"\n.", "longer than the limit of 1,024", 0),
    "name of an import too long, stacked": (p.stack_name("a", "b" * 2000) + b".", "too long", None),
    "name of an import not UTF-8": (b"c\xff\nx\n.", "UTF-8", 0),
    "text not UTF-8": (b"X\x01\0\0\0\xff.", "UTF-8", 0),
    "unicode escape cut": (b"V\\u12\n.", "raw-unicode-escape", 0),
    "string without quotes": (b"Sabc\n.", "quotes", 0),
    "string with one quote": (b"S'\n.", "quotes", 0),
    "integer with letters": (b"I12x\n.", "decimal integer", 0),
    "integer with a leading zero": (b"I010\n.", "decimal integer", 0),
    "integer in hexadecimal": (b"L0x10L\n.", "decimal integer", 0),
    "float beyond all": (b"F1e400\n.", "out of range", 0),
    "key that has no hash": (
        p.dict_((p.call(p.name("decimal", "Decimal"), p.text("sNaN")), p.NONE)) + b".",
        "cannot be constructed: TypeError: Cannot hash a signaling NaN",
        None,
    ),
    "dtype of an enormous size": (
        p.build(
            p.call(p.name("numpy", "dtype"), p.text("V8"), p.FALSE, p.TRUE),
            p.tuple_(
                *(p.integer(3), p.text("|"), p.NONE, p.tuple_(), p.dict_()),
                *(p.integer(2**80), p.integer(-1), p.integer(0)),
            ),
        )
        + b".",
        "cannot be constructed: OverflowError",
        None,
    ),
    "deep value in an error": (b"(" + b")" + b"\x85" * 50_000 + b"]N\x85\xff", "unknown opcode", None),
    "deep value as an argument": (
        b"K\1)" + b"\x85" * 50_000 + b"a.",
        "appends list items to an object of type int",
        None,
    ),
    "integer with underscores": (b"I1_0\n.", "decimal integer", 0),
    "float of words": (b"F1_0.5\n.", "floating-point", 0),
    "negative length": (b"T\xff\xff\xff\xff.", "expected the length of a string in bytes, found -1", 0),
    "negative long": (b"\x8b\xff\xff\xff\xff.", "expected the length of an integer in bytes, found -1", 0),
    "persistent id as text": (b"Pstorage\n.", "a persistent id is text", 0),
    "persistent id an int": (b"K\x01Q.", "does not identify a storage", 2),
    "persistent id empty": (b")Q.", "does not identify a storage", 1),
    "persistent id short": (p.tuple_(p.text("storage")) + b"Q.", "1 fields", None),
    "storage type a dict": (p.storage(kind=b"}") + b".", "not a storage type", None),
    "storage type a class": (p.storage(kind=p.name("torch", "Tensor")) + b".", "not a storage type", None),
    "storage type of another": (p.storage(kind=p.name("evil", "FloatStorage")) + b".", "not a storage type", None),
    "storage key a list": (p.storage(key=b"]") + b".", "key is not a string", None),
    "storage numel negative": (p.storage(numel=-4) + b".", "not a non-negative integer", None),
    "storage numel a float": (
        p.tuple_(p.text("storage"), p.name("torch", "FloatStorage"), p.text("0"), p.text("cpu"), p.real(4.0)) + b"Q.",
        "not a non-negative integer",
        None,
    ),
    "storage called": (
        p.call(p.name("torch", "UntypedStorage"), p.integer(64 << 30)) + b".",
        "would make a storage without bytes",
        None,
    ),
    "tensor type called": (
        p.call(p.name("torch", "FloatTensor"), p.integer(2**34)) + b".",
        "without any data in the file",
        None,
    ),
    "bytearray of a size": (
        p.call(p.name("builtins", "bytearray"), p.integer(64 << 30)) + b".",
        "than the size of the file justifies",
        None,
    ),
    "bytes of a size": (
        p.call(p.name("builtins", "bytes"), p.integer(64 << 30)) + b".",
        "than the size of the file justifies",
        None,
    ),
    "ordered dict shadowed": (
        p.build(p.ordered_dict(), p.dict_((p.text("items"), p.NONE))) + b".",
        "replace one of its methods",
        None,
    ),
    "ordered dict's class": (
        p.build(p.ordered_dict(), p.dict_((p.text("__class__"), p.NONE))) + b".",
        "replace one of its methods",
        None,
    ),
}

LIMITED = {
    "marks": (b"(" * DEEP + b".", "depth"),
    "tuples": (b")" + b"\x85" * DEEP + b".", "depth"),
    "lists": (b"]" * DEEP + b"a" * (DEEP - 1) + b".", "depth"),
    "tuples thrown away": (b")" + b"\x85" * 50_000 + b"0N.", "depth"),
    "lists thrown away": (b"N" + b"]" * 50_000 + b"a" * 49_999 + b"0.", "depth"),
    "tuples that a call takes": (p.name("builtins", "tuple") + b")" + b"\x85" * 50_000 + b"\x85R.", "depth"),
    "unknown values in their states": ((p.name("a", "b") + b")R") * 50_000 + b"b" * 49_999 + b".", "depth"),
    "dicts": (b"}" + b"}N" * 2000 + b".", None),
    "dicts in each other": (b"}" + (b"U\x01a}") * 2000 + b"s" * 2000 + b".", "depth"),
    "a deep key": (b"}" + b")" + b"\x85" * 20 + b"Ns.", "key_depth"),
    "a wide key": (b"}" + b"(" + b"N" * 200 + b"tNs.", "key_items"),
    "a shared key": (b"}" + b"K\x01" + b"2\x86" * 12 + b"Ns.", "key_items"),
    "colliding integers": (
        b"}(" + b"".join(p.integer(k * (2**61 - 1)) + b"N" for k in range(1, 40)) + b"u.",
        "equal_hashes",
    ),
    "colliding items": (
        b"\x8f(" + b"".join(p.integer(k * (2**61 - 1)) for k in range(1, 40)) + b"\x90.",
        "equal_hashes",
    ),
    "colliding keys of copies": (
        p.name("builtins", "dict")
        + b"q\0("
        + b"".join(p.integer(k * (2**61 - 1)) + b"N" for k in range(1, 13))
        + b"d\x85R("
        + b"".join(p.integer(k * (2**61 - 1)) + b"N" for k in range(13, 25))
        + b"u.",
        "equal_hashes",
    ),
    "digits": (b"I" + b"1" * 5000 + b"\n.", None),
    "digits of a long": (b"L" + b"1" * 5000 + b"L\n.", None),
    "digits of a memo index": (b"Np" + b"1" * 5000 + b"\n.", None),
    "digits of a decimal": (p.call(p.name("decimal", "Decimal"), p.text("1" * 5000)) + b".", "digits"),
    "digits of a fraction": (p.call(p.name("fractions", "Fraction"), p.text("1" * 5000)) + b".", "digits"),
    "a long": (b"\x8b" + struct.pack("<i", 5000) + bytes(5000) + b".", "long_bytes"),
    "dimensions": (p.tensor(size=(1,) * 65, stride=(1,) * 65) + b".", "dimensions"),
    "a size of many": (p.call(p.name("torch", "Size"), p.integers((1,) * 65)) + b".", "dimensions"),
    "deques in each other": (
        p.name("collections", "deque") + b"q\0" + b")R" + (b"h\0)R") * 1500 + b"a" * 1500 + b".",
        "depth",
    ),
    "a deque that is inside takes another": (
        p.name("collections", "deque") + b"q\0)Rq\1" + b"h\0)Rq\2" + b"h\0)Raa" + b"0h\2h\0)Ra.",
        None,
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pickle_is_refused_with_its_place(read, watched, name):
    """What the policy refuses is a FormatError with file, member and offset, and nothing runs meanwhile."""
    data, says, offset = BROKEN[name]
    with watched() as events, pytest.raises(FormatError, match=says) as caught:
        read(data)
    assert events == []
    assert (caught.value.file, caught.value.member) == ("x.pt", "data.pkl")
    assert caught.value.offset is not None
    if offset is not None:
        assert caught.value.offset == offset


@pytest.mark.parametrize("name", LIMITED)
def test_a_bomb_is_refused_by_name_of_its_limit(read, name):
    """A pickle that needs more than its size justifies is refused, and the error names the limit."""
    data, limit = LIMITED[name]
    with pytest.raises(FormatError) as caught:
        read(data)
    if limit is not None:
        assert isinstance(caught.value, LimitError)
        assert f"Limits({limit}=" in str(caught.value)


@pytest.mark.parametrize(
    "claim",
    [
        b"X\xff\xff\xff\xffabc",
        b"B\xff\xff\xff\xffabc",
        b"\x8d" + struct.pack("<Q", 2**62) + b"abc",
        b"\x8e" + struct.pack("<Q", 2**62) + b"abc",
        b"\x96" + struct.pack("<Q", 2**36) + b"abc",
        b"\x8b\xff\xff\xff\x7f",
        b"T\xff\xff\xff\x7fabc",
        b"\x95" + struct.pack("<Q", 2**62),
        b"U\xffabc",
        b"C\xffabc",
        b"\x8c\xffabc",
        b"\x8a\xffabc",
    ],
)
def test_a_length_beyond_the_end_is_never_believed(read, claim):
    """A claimed length is compared with the bytes that are left before anything is allocated."""
    with pytest.raises((TruncatedError, LimitError)) as caught:
        read(b"\x80\x04" + claim + b".")
    assert caught.value.offset == 2


def test_a_memo_index_of_any_size_costs_nothing(read):
    """The memo is not an array: slot 4294967280 is one entry."""
    assert read(b"]r\xf0\xff\xff\xff.").value == []


@pytest.mark.parametrize("point", [b"", b"."])
def test_matching_a_line_of_digits_is_linear(read, point):
    """A float's text is matched without trying every split of it: ten times the digits take at most forty times as long;
    trying every split would take a hundred times."""

    def attempt(digits):
        for _ in range(20):
            with pytest.raises(FormatError, match="floating-point"):
                read(b"F" + b"1" * digits + point + b"1" * digits + b"x\n.")

    assert seconds(lambda: attempt(2000)) <= 40 * seconds(lambda: attempt(200))


def test_bombs_fit_into_a_small_stack(read):
    """Reading does not recurse: with 256 KiB of stack every bomb is an error, and its partial values can be freed."""
    caught: list[type] = []

    def run() -> None:
        for data, _ in LIMITED.values():
            try:
                read(data)
            except FormatError as error:
                caught.append(type(error))

    before = threading.stack_size(256 << 10)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)
    assert len(caught) == len(LIMITED)


def test_values_are_in_proportion_to_the_file(read):
    """Memory for values is limited by the size of the file, not of the pickle, which may have been decompressed."""
    data = b"](" + b"N\x85" * 200_000 + b"e."
    assert len(read(data).value) == 200_000
    with pytest.raises(
        LimitError, match=r"the values take at least [0-9,]+ bytes; a file of 10 bytes may use at most 640"
    ):
        read(data, paid=10, limits=Limits(value_bytes=0))
    with pytest.raises(LimitError, match=r"Limits\(value_bytes="):
        read(data, paid=1_000, limits=Limits(value_bytes=1 << 20))


def test_calls_are_in_proportion_to_the_file(read):
    """The copies that calls make are limited in the same way."""
    copies = p.text("x" * 1000) + b"q\0" + p.text("latin1") + b"q\1" + p.name("_codecs", "encode") + b"q\2"
    data = b"](" + copies + b"h\2h\0h\1\x86R" * 10 + b"e."
    assert len(read(data, limits=Limits(copied_bytes=8_000)).value) == 13
    with pytest.raises(LimitError, match="copied_bytes"):
        read(data, paid=10, limits=Limits(copied_bytes=8_000))


def test_files_inside_are_no_more_than_the_file_holds(read):
    """A nested file that is memoised can be referred to again, but not without limit."""
    loader = p.name("torch.storage", "_load_from_bytes") + b"q\0"
    data = b"](" + loader + b"C\1xq\1" + b"h\0h\1\x85R" * 2_000 + b"e."
    inside = read(b"N.")
    with pytest.raises(FormatError, match=r"more than 1,0\d\d nested files"):
        read(data, nested=lambda raw: inside)


@pytest.mark.parametrize("text", ["1e10000000", "1.5", " 1/2 ", "1_0"])
def test_fractions_are_ratios_only(read, text):
    """A Fraction is made from ratios only: a short exponent would stand for an enormous number."""
    made = read(p.call(p.name("fractions", "Fraction"), p.text(text)) + b".").value
    assert (type(made).__name__, made.args) == ("Opaque", (text,))


def test_a_mapped_file_is_read_in_place(read, tmp_path):
    """An mmap is accepted in place of bytes."""
    path = tmp_path / "x.pkl"
    for protocol in range(6):
        path.write_bytes(b"head" + pickle.dumps({"a": [1.5, "x", b"y"]}, protocol) + b"tail")
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            assert read(mapped, start=4, whole=False).value == {"a": [1.5, "x", b"y"]}


def test_memo_laughs_are_shared_not_copied(read):
    """64 levels of [x, x] take 64 lists."""
    data = b"K\x01" + b"".join(b"q%c0](h%ch%ce" % (n, n, n) for n in range(64)) + b"."
    value = read(data).value
    for _ in range(64):
        assert value[0] is value[1]
        value = value[0]


def test_copies_of_one_string_are_paid_for(read):
    """A constructor that is called repeatedly on one memoised string exceeds its limit before memory runs out."""
    text = p.text("x" * (1 << 20)) + b"q\0" + p.text("latin1") + b"q\1" + p.name("_codecs", "encode") + b"q\2"
    with pytest.raises(LimitError, match="copied_bytes"):
        read(b"](" + text + b"h\2h\0h\1\x86R" * 100 + b"e.")


def test_values_that_nothing_waits_for_are_refused(read):
    """No pickler leaves thousands of values on the stack without a mark: such a pickle is refused early."""
    with pytest.raises(LimitError, match="100,000 values nested in unfinished values"):
        read(b"]" * 2_000_000)


def test_empty_containers_cost_themselves(read):
    """Nothing is remembered about each of the many empty containers that a few bytes can create."""
    tracemalloc.start()
    try:
        assert len(read(b"(" + b"]" * 60_000 + b"t.").value) == 60_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 60_000 * (104 if sysconfig.get_config_var("Py_GIL_DISABLED") else 100)


def test_limits_are_the_callers(read):
    """The caller can raise or lower each limit."""
    deep = b")" + b"\x85" * 50 + b"."
    assert read(deep).value != ()
    with pytest.raises(LimitError, match="depth"):
        read(deep, limits=Limits(depth=49))
    with pytest.raises(LimitError, match="string_bytes"):
        read(p.text("x" * 100) + b".", limits=Limits(string_bytes=99))
    with pytest.raises(LimitError, match="operations"):
        read(b"N0" * 200_000 + b"N.", limits=Limits(operations=100_000))
    with pytest.raises(LimitError, match="pickle_bytes"):
        read(p.text("x" * 100) + b".", limits=Limits(pickle_bytes=50))


def test_the_error_tells_of_dangerous_imports_before_the_damage(read):
    """If the end of a payload is damaged, the error still names the dangerous imports before it."""
    with pytest.raises(FormatError, match=r"posix\.system"):
        read(p.shell() + b"\xff")
