"""Names come out of files that somebody else made: wherever one becomes text, it can neither command a terminal nor forge a
line."""

import io
import json
import struct
import tarfile
import unicodedata
import zipfile
from collections import OrderedDict

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import statedict
from statedict import errors, formats, plan
from statedict.cli import main
from statedict.errors import StateDictError, printable
from statedict.formats import Finding, TorchConstant
from statedict.state import Opaque, StateDict
from statedict.training.resuming._find import PassedOver

EVIL = "\x1b]0;pwned\x07\x1b[2J\u202e\x85\r\nstatedict: all is well\u2028\u200b"
ORDINARY = "é漢字😀ßя"


def commands(text, lines=False):
    """The unprintable characters of a text, in which line ends are allowed if it has several lines."""
    return [
        c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Zl", "Zp", "Cs") and not (lines and c in "\n\t")
    ]


def test_what_cannot_be_seen_is_escaped():
    """Control characters, line ends, invisible ones, direction marks and lone surrogates; ordinary Unicode stays."""
    assert printable("a\x1b\n\u202e\u200b\ud800b") == r"a\x1b\n\u202e\u200b\ud800b"
    assert printable(ORDINARY) == ORDINARY
    assert printable("a\n\x07", keep="\n") == "a\n\\x07"
    assert printable(printable(EVIL)) == printable(EVIL)


def safetensors(header, body=b"1234"):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def zipped(*names, **content):
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        for name in names:
            archive.writestr(name, content.get("raw", "x"))
    return target.getvalue()


def tarred(name):
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    return target.getvalue()


def saved(value, **options):
    target = io.BytesIO()
    statedict.save(value, target, **options)
    return target.getvalue()


def arrays():
    target = io.BytesIO()
    np.savez(target, **{EVIL: ONES})
    return target.getvalue()


def damaged(raw, at):
    """The file with a byte of its tensor's changed."""
    place = raw.index(at) + len(at) - 1
    return raw[:place] + bytes([raw[place] ^ 1]) + raw[place + 1 :]


ONES = np.arange(1, 40, dtype="f4")
ENTRY = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
FILES = {
    "dtype": safetensors({EVIL: {"dtype": "X", "shape": [1], "data_offsets": [0, 4]}}),
    "dtype's name": safetensors({"a": {"dtype": EVIL, "shape": [1], "data_offsets": [0, 4]}}),
    "hole": safetensors({EVIL: {**ENTRY, "data_offsets": [4, 8]}}, bytes(8)),
    "overlap": safetensors({EVIL: ENTRY, EVIL + "2": ENTRY}),
    "extra key": safetensors({EVIL: {**ENTRY, EVIL: 1}}),
    "not an entry": safetensors({EVIL: 3}),
    "metadata": safetensors({"__metadata__": {EVIL: 3}, "a": ENTRY}),
    "sound": safetensors({EVIL: ENTRY, "__metadata__": {EVIL: EVIL}}),
    "zip": zipped(EVIL, "b"),
    "zip's folder": zipped(f"{EVIL}/data.pkl", f"{EVIL}/version"),
    "npz member": zipped(f"{EVIL}.npy"),
    "npz array": arrays(),
    "npz damaged": damaged(arrays(), ONES.tobytes()),
    "torch": saved({EVIL: ONES, "n": EVIL}),
    "torch damaged": damaged(saved({EVIL: ONES}), ONES.tobytes()),
    "torch roots": saved({EVIL: {"w": ONES}, f"{EVIL}2": {"w": ONES}}),
    "safetensors damaged": damaged(saved({EVIL: ONES}, format="safetensors"), ONES.tobytes()),
    "tar": tarred(EVIL),
    "index of a path": json.dumps({"weight_map": {EVIL: f"../{EVIL}"}}).encode(),
    "index of a name": json.dumps({"weight_map": {EVIL: EVIL}}).encode(),
    "index of nothing": json.dumps({"weight_map": {EVIL: "absent.bin"}}).encode(),
    "index twice": b'{"weight_map": {%s: "x", %s: "y"}}' % ((json.dumps(EVIL).encode(),) * 2),
    "unknown": EVIL.encode(),
}
COMMANDS = {
    "inspect": ["inspect", "{}"],
    "flat": ["inspect", "{}", "--flat", "--stats"],
    "values": ["inspect", "{}", "--values", EVIL],
    "root": ["inspect", "{}", "--root", EVIL],
    "verify": ["verify", "{}", "--values"],
    "convert": ["convert", "{}", "out\x1b[2J.npz"],
    "diff": ["diff", "{}", "good.pt"],
    "merge": ["merge", "{}", "good.pt", "-o", "out\x1b[2J.pt"],
    "match": ["match", "{}", "--keys", "good.pt"],
    "infer": ["match", "{}", "--keys", "good.pt", "--infer"],
    "rename": ["convert", "{}", "out.pt", "--rename", f"{EVIL} -> {{x}}"],
    "view": ["view", "{}", "-o", "out\x1b[2J.html"],
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("escapes")
    for number, raw in enumerate(FILES.values()):
        (folder / f"{number}\x1b]0;name\x07.bin").write_bytes(raw)
    statedict.save({f"{EVIL}.w": ONES, "b": ONES}, folder / "good.pt")
    return folder


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("kind", FILES)
def test_no_command_prints_what_a_file_says(place, monkeypatch, capsys, kind, command):
    """Whatever is in a file, and whatever its name is, no command prints an unprintable character."""
    monkeypatch.chdir(place)
    file = f"{[*FILES].index(kind)}\x1b]0;name\x07.bin"
    with pytest.raises(SystemExit):
        main([part.format(file) if part == "{}" else part for part in COMMANDS[command]])
    told = capsys.readouterr()
    assert commands(told.out, lines=True) == commands(told.err, lines=True) == []
    assert not any(line.startswith("statedict: all is well") for line in (told.out + told.err).splitlines())


@pytest.mark.parametrize("kind", FILES)
def test_errors_do_not_repeat_what_a_file_says(place, kind):
    """The text of an error is one line without control characters, and so is its representation."""
    path = place / f"{[*FILES].index(kind)}\x1b]0;name\x07.bin"
    for read in (statedict.open, lambda path: statedict.load(path, backend="numpy")):
        told = ""
        try:
            told = repr(read(path)).replace("\n", "")  # NumPy's own line ends
        except StateDictError as error:
            told = f"{error}{error!r}"
        assert commands(told) == []


WILD = "\x00\x07\x1b\n\r\t\x7f\x85\u202e\u2028\u200f.{}*ab0"
NAMES = st.text(st.one_of(st.sampled_from(WILD), st.characters()), min_size=1)


def shown(name):
    """Everything public that has text, made of this name; those that have several lines second."""
    state = StateDict({name: np.ones(2), f"{name}.w": np.ones((2, 2))}, OrderedDict({name: {}}))
    other = {f"x.{name}": np.ones(2), f"{name}\n2": np.ones(3)}
    slots = {f"{name}3": np.zeros(2), f"{name}.w": np.zeros(5)}
    matched = plan.match(other | dict(state), slots)
    inferred = plan.infer(slots, other)
    report = matched.report()
    opaque = Opaque(name, name, (1,))
    template = name.replace("{", "{{").replace("}", "}}")
    key_map = plan.KeyMap({template: f"{template}2"})
    one = [
        *(repr(each) for each in (state, opaque, report, inferred, matched, key_map)),
        *(repr(each) for each in (Finding("note", name, name), TorchConstant("device", name))),
        *(str(each) for each in (state, opaque, Finding("note", name, name), TorchConstant("device", name))),
        str(PassedOver(1, name, name)),
        *(str(rule) for rule in key_map.rules),
        *(str(error) for error in every_error(name)),
        *(repr(error) for error in every_error(name)),
    ]
    several = [str(each) for each in (report, inferred, matched, plan.diff(state, other))]
    several.append(str(errors.LoadError(plan.error_text("Net", report), report=report)))
    return one, several


def every_error(name):
    yield errors.UnknownNameError(name, near=[name])
    yield errors.CollisionError(name, [name])
    yield errors.MergeError(name, names=[name])
    yield errors.RootError(name, file=name, choices=[name])
    yield errors.SaveError(name)
    yield errors.NotAStateError(name)
    yield errors.DiskFullError(name, needed=1, free=0)
    yield errors.FileChangedError(name, name)
    yield errors.RemoteError(name, name)
    yield errors.LockedError(name, name)
    yield errors.RunGoneError(name)
    yield errors.RunDeniedError(name, name)
    yield errors.MissingDependencyError(name, needed_for=name)
    for kind in (errors.FormatError, errors.UnsafeFileError, errors.LimitError, errors.TruncatedError):
        yield kind(name, file=name, member=name, offset=3, hint=name)


@settings(max_examples=60)
@given(NAMES)
def test_no_text_of_ours_has_what_a_name_has(name):
    """Whatever a name is, no `str` or `repr` of a public value or error contains a character that is no ink; those of
    several lines have no line that begins as the name's second."""
    one, several = shown(name)
    for text in one:
        assert commands(text) == []
    for text in several:
        assert commands(text, lines=True) == []


def test_no_line_is_forged():
    """A name with a line end begins no line."""
    _, several = shown("a\nnothing is wrong")
    for text in several:
        assert not any(line.strip().startswith("nothing is wrong") for line in text.splitlines())
        assert r"a\nnothing is wrong" in text


def test_ordinary_names_are_left_alone():
    """Text in any language is shown as it is."""
    one, several = shown(ORDINARY)
    assert all(ORDINARY in text for text in (*one[:2], *several))


def test_html_is_escaped_too():
    """What a notebook shows has the same escapes."""
    state = StateDict({EVIL: np.ones(2)})
    target = io.BytesIO(saved({EVIL: ONES}))
    with formats.open(target) as checkpoint:
        for html in (state._repr_html_(), checkpoint._repr_html_()):
            assert commands(html, lines=True) == []
