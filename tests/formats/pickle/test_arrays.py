"""NumPy's arrays, scalars and dtypes are read as pickle.loads reads them, from exactly the bytes that they declare."""

from __future__ import annotations

import pickle

import ml_dtypes
import numpy as np
import pytest
from tests.hostile.build import pickles as p

from statedict.errors import FormatError, LimitError
from statedict.state import Opaque

KINDS = [
    "?",
    "i1",
    "u1",
    "<i2",
    ">i4",
    "<u8",
    "<f2",
    "<f4",
    ">f8",
    "<c8",
    ">c16",
    "S3",
    "<U4",
    ">U2",
    "V5",
    "<M8[s]",
    ">m8[25us]",
    "M8",
]
RECORD = np.dtype([("a", "<f4"), ("b", ">i2", (2,)), ("c", "S3")])
ALIGNED = np.dtype([("a", "u1"), ("b", "<f8")], align=True)


def same(found, expected):
    assert type(found) is type(expected)
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    assert found.tobytes() == expected.tobytes()


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_of_every_kind(read, kind, protocol):
    """Arrays of every dtype, order and rank, in every protocol."""
    raw = np.arange(1, 200, dtype="u1").tobytes()
    dtype = np.dtype(kind)
    if dtype.kind == "U":
        raw = np.arange(1, 200, dtype=np.dtype("u4").newbyteorder(dtype.byteorder)).tobytes()
    for shape in [(), (3,), (2, 3), (0,), (2, 0)]:
        count = int(np.prod(shape))
        array = (
            np.frombuffer((raw * 3)[: count * dtype.itemsize] if kind != "?" else b"\1\0" * 3, dtype, count)
            .reshape(shape)
            .copy()
        )
        for value in (array, np.asfortranarray(array)):
            data = pickle.dumps(value, protocol)
            found, expected = read(data), pickle.loads(data)
            same(found.value, expected)
            assert found.value.flags.f_contiguous == expected.flags.f_contiguous
            assert found.value.flags.writeable
            assert found.dangerous == []


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("dtype", [RECORD, ALIGNED], ids=["record", "aligned"])
def test_records(read, dtype, protocol):
    """Structured arrays, with their fields' orders and offsets."""
    array = np.zeros(2, dtype)
    array["a"] = [1, 2]
    same(read(pickle.dumps(array, protocol)).value, array)
    same(read(pickle.dumps(array[0], protocol)).value, array[0])


@pytest.mark.parametrize("protocol", range(6))
def test_scalars_and_dtypes(read, protocol):
    """Scalars and dtypes are read as they were written; a dtype from a file is never one of NumPy's own objects."""
    values = [
        np.float32(1.5),
        np.int64(-3),
        np.bool_(True),
        np.complex64(1 + 2j),
        np.str_("ab"),
        np.bytes_(b"x"),
        np.datetime64("2020-01-01"),
    ]
    for value in [*values, ml_dtypes.bfloat16(2)]:
        same(read(pickle.dumps(value, protocol)).value, value)
    for dtype in [
        np.dtype("f4"),
        np.dtype(">i8"),
        RECORD,
        np.dtype("M8[ns]"),
        np.dtype("U3"),
        np.dtype(ml_dtypes.float8_e5m2),
    ]:
        assert read(pickle.dumps(dtype, protocol)).value == dtype


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_other_dtypes(read, protocol):
    """bfloat16 arrays are arrays of ml_dtypes."""
    same(
        read(pickle.dumps(np.arange(3).astype(ml_dtypes.bfloat16), protocol)).value,
        np.arange(3).astype(ml_dtypes.bfloat16),
    )


def test_sharing_is_kept(read):
    """One array under two names stays one array."""
    array = np.arange(3)
    found = read(pickle.dumps({"a": array, "b": array}, 2)).value
    assert found["a"] is found["b"]


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_of_objects_are_opaque(read, protocol):
    """An array of objects is Opaque, its elements data in its state; so are subclasses and masked arrays."""
    found = read(pickle.dumps(np.array([{"a": 1}, None], object), protocol)).value
    assert isinstance(found, Opaque)
    assert found.state[-1] == [{"a": 1}, None]
    assert isinstance(read(pickle.dumps(np.ma.zeros(2), protocol)).value, Opaque)


def test_random_states_are_data(read):
    """NumPy's random state, which many checkpoints contain, is Opaque or plain, and not dangerous."""
    for state in (np.random.RandomState(0).get_state(), np.random.RandomState(0), np.random.default_rng(0)):
        assert read(pickle.dumps(state, 2)).dangerous == []


def array(
    shape: bytes = p.integers((3,)),
    dtype: bytes | None = None,
    raw: bytes = b"C\x0c" + bytes(12),
    version: bytes = b"K\1",
) -> bytes:
    made = p.call(
        p.name("numpy.core.multiarray", "_reconstruct"), p.name("numpy", "ndarray"), p.integers((0,)), b"C\1b"
    )
    return p.build(made, p.tuple_(version, shape, dtype or kind("f4"), b"\x89", raw))


def kind(code: str, *state: bytes) -> bytes:
    made = p.call(p.name("numpy", "dtype"), p.text(code), p.FALSE, p.TRUE)
    return p.build(
        made, p.tuple_(*(state or (b"K\3", p.text("<"), b"N", b"N", b"N", p.integer(-1), p.integer(-1), b"K\0")))
    )


def fields(size: int = 8, **changed: bytes) -> bytes:
    parts = {
        "order": p.text("|"),
        "sub": b"N",
        "names": p.tuple_(p.text("a")),
        "fields": p.dict_((p.text("a"), p.tuple_(kind("f4"), b"K\4"))),
    }
    parts |= changed
    return kind(
        f"V{size}",
        b"K\3",
        parts["order"],
        parts["sub"],
        parts["names"],
        parts["fields"],
        p.integer(size),
        b"K\1",
        b"K\0",
    )


WRONG = {
    "too few bytes": array(raw=b"C\x0b" + bytes(11)),
    "too many bytes": array(raw=b"C\x0d" + bytes(13)),
    "shape negative": array(p.integers((-3,))),
    "shape of floats": array(p.tuple_(p.real(3.0))),
    "shape of bools": array(p.tuple_(p.TRUE), raw=b"C\4" + bytes(4)),
    "shape a list": array(b"]"),
    "shape overflows": array(p.integers((2**62, 2**62)), raw=b"C\0"),
    "shape overflows to nothing": array(p.integers((2**62, 2**62, 0)), raw=b"C\0"),
    "65 dimensions": array(p.integers((1,) * 65), raw=b"C\4" + bytes(4)),
    "bytes a list": array(raw=b"]"),
    "dtype a string": array(dtype=p.text("f4")),
    "dtype of nothing": array(dtype=kind("V0"), raw=b"C\0"),
    "filled twice": array()[:-1]
    + b"b"
    + p.tuple_(b"K\1", p.integers((3,)), kind("f4"), b"\x89", b"C\x0c" + bytes(12))
    + b"b",
    "state short": p.build(
        p.call(p.name("numpy.core.multiarray", "_reconstruct"), p.name("numpy", "ndarray"), p.integers((0,)), b"C\1b"),
        b")",
    ),
    "dtype's order": kind("f4", b"K\3", p.text("?"), b"N", b"N", b"N", p.integer(-1), p.integer(-1), b"K\0"),
    "dtype's order a list": kind("f4", b"K\3", b"]", b"N", b"N", b"N", p.integer(-1), p.integer(-1), b"K\0"),
    "dtype's state": kind("f4", b"K\3"),
    "dtype twice": kind("f4")
    + p.tuple_(b"K\3", p.text("<"), b"N", b"N", b"N", p.integer(-1), p.integer(-1), b"K\0")
    + b"b",
    "field outside": fields(fields=p.dict_((p.text("a"), p.tuple_(kind("f4"), b"K\5")))),
    "field negative": fields(fields=p.dict_((p.text("a"), p.tuple_(kind("f4"), p.integer(-1))))),
    "field of objects": fields(
        fields=p.dict_((p.text("a"), p.tuple_(p.call(p.name("numpy", "dtype"), p.text("O8"), p.FALSE, p.TRUE), b"K\0")))
    ),
    "field unnamed": fields(names=p.tuple_(p.text("b"))),
    "names a list": fields(names=p.list_(p.text("a"))),
    "names doubled": fields(names=p.tuple_(p.text("a"), p.text("a"))),
    "fields on a number": kind(
        "f8",
        b"K\3",
        p.text("|"),
        b"N",
        p.tuple_(p.text("a")),
        p.dict_((p.text("a"), p.tuple_(kind("f4"), b"K\4"))),
        b"K\x08",
        b"K\1",
        b"K\0",
    ),
    "subarray of nothing": fields(sub=p.tuple_(b"N", p.integers((2,)))),
    "subarray too large": fields(sub=p.tuple_(kind("f4"), p.integers((3,)))),
    "subarray's shape": fields(sub=p.tuple_(kind("f4"), p.tuple_(p.integer(-2)))),
    "scalar too short": p.call(p.name("numpy.core.multiarray", "scalar"), kind("f8"), b"C\4" + bytes(4)),
    "scalar too long": p.call(p.name("numpy.core.multiarray", "scalar"), kind("f8"), b"C\x10" + bytes(16)),
    "buffer too short": p.call(
        p.name("numpy.core.numeric", "_frombuffer"), b"C\4" + bytes(4), kind("f8"), p.integers((1,)), p.text("C")
    ),
    "unit of time": kind(
        "M8",
        b"K\4",
        p.text("<"),
        b"N",
        b"N",
        b"N",
        p.integer(-1),
        p.integer(-1),
        b"K\0",
        p.tuple_(b"}", p.tuple_(b"C\1X", b"K\1", b"K\1", b"K\1")),
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_array_that_is_not_what_it_says_is_refused(read, name):
    """Bytes, shape and dtype must match exactly; the state of a dtype is set only once."""
    with pytest.raises(FormatError):
        read(WRONG[name] + b".")


@pytest.mark.parametrize(("count", "accepted"), [(0, False), (1, True), ((1 << 31) - 1, True), (1 << 31, False)])
def test_a_unit_of_time_has_a_positive_count(read, count, accepted):
    """The count of a unit of time is from 1 to 2**31 - 1, the values that NumPy can hold."""
    unit = p.tuple_(b"}", p.tuple_(b"C\1s", p.integer(count), b"K\1", b"K\1"))
    state = b"K\4", p.text("<"), b"N", b"N", b"N", p.integer(-1), p.integer(-1), b"K\0", unit
    if accepted:
        assert read(kind("M8", *state) + b".").value == np.dtype(f"<M8[{count}s]")
    else:
        with pytest.raises(FormatError, match="the time unit of a dtype is not valid"):
            read(kind("M8", *state) + b".")


def test_an_array_of_objects_is_opaque_wherever_it_is_used(read):
    """An array of objects that the pickle uses again is the same Opaque there, not the empty array it began as."""
    array = np.array([{"a": 1}, None], object)
    first, second = read(pickle.dumps([array, array], 2)).value
    assert isinstance(first, Opaque)
    assert second is first


def test_a_right_array_of_the_same_builder_loads(read):
    """The builder of the invalid arrays also makes valid ones."""
    assert read(array() + b".").value.tolist() == [0, 0, 0]
    assert read(fields() + b".").value.itemsize == 8


def test_copies_of_an_array_are_paid_for(read):
    """One memoised string of bytes cannot become an unlimited number of arrays."""
    head = b"B" + (1 << 20).to_bytes(4, "little") + bytes(1 << 20) + b"q\0" + kind("u1") + b"q\1"
    each = p.call(p.name("numpy.core.numeric", "_frombuffer"), b"h\0", b"h\1", p.integers((1 << 20,)), p.text("C"))
    with pytest.raises(LimitError, match="copied_bytes"):
        read(b"](" + head + each * 100 + b"e.")


def dtype_of(code, order="|", names=p.NONE, inside=p.NONE, size=-1, sub=p.NONE):
    made = p.call(p.name("numpy", "dtype"), p.text(code), p.FALSE, p.TRUE)
    state = p.integer(3), p.text(order), sub, names, inside, p.integer(size), p.integer(-1), p.integer(0)
    return p.build(made, p.tuple_(*state))


def structure(inside, size, names="a"):
    fields = p.dict_(*((p.text(name), p.tuple_(inside, p.integer(0))) for name in names))
    return dtype_of(f"V{size}", names=p.tuple_(*map(p.text, names)), inside=fields, size=size)


def test_dtypes_inside_each_other_are_limited(read):
    """Nested dtypes are limited, because NumPy's functions recurse into each field."""
    head = dtype_of("i4", "<") + p.put(0) + p.POP
    with pytest.raises(LimitError, match=r"dtypes nested 17 deep.*dtype_depth"):
        read(head + (structure(p.get(0), 4) + p.put(0) + p.POP) * 20 + p.get(0) + b".")
    head = dtype_of("V0") + p.put(0) + p.POP
    with pytest.raises(LimitError, match=r"a dtype of 16,383 fields.*dtype_fields"):
        read(head + (structure(p.get(0), 0, "ab") + p.put(0) + p.POP) * 15 + p.get(0) + b".")
    head = dtype_of("i4", "<") + p.put(0) + p.POP
    deep = head + (dtype_of("V4", sub=p.tuple_(p.get(0), p.integers((1,)))) + p.put(0) + p.POP) * 20
    with pytest.raises(LimitError, match="dtype_depth"):
        read(deep + p.get(0) + b".")


BIG_ENDIAN = p.tuple_(p.integer(3), p.text(">"), p.NONE, p.NONE, p.NONE, p.integer(-1), p.integer(-1), p.integer(0))
ONE = b"C\4" + (1).to_bytes(4, "little")


@pytest.mark.parametrize("name", ["bfloat16", "float8_e5m2"])
def test_a_dtype_of_ml_dtypes_is_never_changed(read, name):
    """There is one object for each dtype of ml_dtypes: a file must not set its byte order for the whole process."""
    made = p.call(p.name("numpy", "dtype"), p.name("ml_dtypes", name), p.FALSE, p.TRUE)
    dtype = np.dtype(getattr(ml_dtypes, name))
    before = dtype.byteorder
    assert read(p.build(made, BIG_ENDIAN) + b".").value is dtype
    assert dtype.byteorder == before


@pytest.mark.parametrize("kind", ["array", "scalar", "buffer"])
def test_a_dtype_that_is_set_later_does_not_change_an_array(read, kind):
    """An array keeps the dtype that it was filled with, although the file sets the state of that dtype afterwards."""
    dtype = p.call(p.name("numpy", "dtype"), p.text("i4"), p.FALSE, p.TRUE) + p.put(0)
    made = {
        "array": lambda: array(p.integers((1,)), dtype, ONE),
        "scalar": lambda: p.call(p.name("numpy.core.multiarray", "scalar"), dtype, ONE),
        "buffer": lambda: p.call(p.name("numpy.core.numeric", "_frombuffer"), ONE, dtype, p.integers((1,))),
    }
    found, later = read(p.tuple_(made[kind](), p.build(p.get(0), BIG_ENDIAN)) + b".").value
    assert later == np.dtype(">i4")
    assert (found.dtype, found.tobytes()) == (np.dtype("<i4"), ONE[2:])


@pytest.mark.parametrize("place", ["array", "field", "subarray"])
def test_text_is_not_changed_after_it_was_checked(read, place):
    """Setting the state of a dtype later does not change the byte order of text that is Unicode in the other order only."""
    letters = p.call(p.name("numpy", "dtype"), p.text("U1"), p.FALSE, p.TRUE) + p.put(0)
    dtype = {
        "array": lambda: letters,
        "field": lambda: structure(letters, 4),
        "subarray": lambda: dtype_of("V4", sub=p.tuple_(letters, p.integers((1,)))),
    }[place]()
    swapped = p.tuple_(p.integer(3), p.text(">"), p.NONE, p.NONE, p.NONE, p.integer(4), p.integer(4), p.integer(8))
    made = array(p.integers((1,)), dtype, b"C\4" + "a".encode("utf-32-le"))
    found, _ = read(p.tuple_(made, p.build(p.get(0), swapped)) + b".").value
    assert found.tobytes() == "a".encode("utf-32-le")
    assert "a" in str(found.tolist())


@pytest.mark.parametrize("order", "<>")
def test_text_ends_with_unicode(read, order):
    """A number above U+10FFFF, which is not a character, is refused wherever text is stored."""
    last, beyond = (number.to_bytes(4, "little" if order == "<" else "big") for number in (0x10FFFF, 0x110000))
    raw = {"last": b"C\4" + last, "beyond": b"C\4" + beyond}
    text = dtype_of("U1", order)
    core = "numpy.core.multiarray"
    for dtype in (text, structure(text, 4)):
        empty = p.call(p.name(core, "_reconstruct"), p.name("numpy", "ndarray"), p.integers((0,)), b"C\1b")
        makers = {
            "scalar": lambda raw, dtype=dtype: p.call(p.name(core, "scalar"), dtype, raw),
            "array": lambda raw, dtype=dtype, empty=empty: p.build(
                empty, p.tuple_(p.integer(1), p.integers((1,)), dtype, p.FALSE, raw)
            ),
            "buffer": lambda raw, dtype=dtype: p.call(
                p.name("numpy.core.numeric", "_frombuffer"), raw, dtype, p.integers((1,))
            ),
        }
        for make in makers.values():
            assert read(make(raw["last"]) + b".").value is not None
            with pytest.raises(FormatError, match="0x110000, which is not a Unicode character"):
                read(make(raw["beyond"]) + b".")
