"""Every command behaves: in a pipe, in a terminal, in a narrow one, with a reader that leaves, with a user who errs."""

import io
import os
import pty
import re
import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

import statedict

# Without torch, whose import would be most of the time, and which no command needs but the tour.
SCRIPT = "import sys; sys.modules['torch'] = None; from statedict.cli import main; main(sys.argv[1:])"
COLOURS = re.compile(rb"\x1b\[[0-9;]*m")
LONG = "a_rather_long_name_of_a_module.and_of_another"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A directory with a run, with two checkpoints that differ in many names, and with wrong files."""
    place = tmp_path_factory.mktemp("manners")
    one = {f"{LONG}.m{i}x.weight": np.full((2, 300), float(i), np.float32) for i in range(200)}
    statedict.save({"model": statedict.StateDict(one), "epoch": 7}, place / "one.pt")
    two = {name: array + 1 for name, array in one.items()} | {"head.bias": np.zeros(3, np.float32)}
    statedict.save(statedict.StateDict(two), place / "two.pt")
    with statedict.CheckpointManager(place / "run", random=False, keep=statedict.last(99)) as manager:
        for step in range(3):
            manager.save(step, {"validation_loss_on_some_set": 0.125 * step}, epoch=step)
    (place / "text.pt").write_text("not a checkpoint")
    (place / "empty.pt").write_bytes(b"")
    (place / "cut.pt").write_bytes((place / "two.pt").read_bytes()[:-100])
    (place / "dir.pt").mkdir()
    return place


COMMANDS = {
    "inspect": ["inspect", "one.pt"],
    "inspect --flat --stats": ["inspect", "one.pt", "--flat", "--stats"],
    "view": ["view", "one.pt", "-o", "page.html"],
    "verify": ["verify", "one.pt", "two.pt"],
    "convert": ["convert", "one.pt", "converted.pt"],
    "diff": ["diff", "one.pt", "two.pt"],
    "merge": ["merge", "one.pt", "one.pt", "-o", "merged.pt"],
    "match": ["match", "one.pt", "--keys", "two.pt"],
    "runs": ["runs", "run", "--keep-last", "1"],
    "help": ["--help"],
}
every_command = pytest.mark.parametrize("arguments", COMMANDS.values(), ids=COMMANDS)


def environment(**settings):
    kept = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS", "FORCE_COLOR", "CI", "PYTHONPATH")}
    return kept | {"TERM": "xterm-256color"} | settings


def piped(place, arguments):
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, timeout=60, cwd=place, env=environment())


def in_terminal(place, arguments, **settings):
    """What a command prints into a (pseudo) terminal, standard error included."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SCRIPT, *arguments]
    process = subprocess.Popen(command, stdout=theirs, stderr=theirs, env=environment(**settings), cwd=place)
    os.close(theirs)
    shown = b""
    try:
        while chunk := os.read(ours, 65536):
            shown += chunk
    except OSError:  # how Linux says that the other end was closed
        pass
    os.close(ours)
    assert process.wait(60) in (0, 1)
    return shown.replace(b"\r\n", b"\n")


@every_command
def test_a_pipe_gets_plain_lines(place, arguments):
    """In a pipe there are no colours, and no line is broken, whatever a terminal's width."""
    done = piped(place, arguments)
    assert done.returncode in (0, 1), done.stderr
    assert b"\x1b" not in done.stdout + done.stderr
    if "--flat" in arguments:
        (line,) = [line for line in done.stdout.decode().splitlines() if "m199x" in line]
        assert line.split() == [
            f"{LONG}.m199x.weight",
            "2×300",
            "float32",
            "2.40",
            "kB",
            *["199"] * 3,
            "0",
            "0",
            "0",
            "0",
        ]


@pytest.mark.parametrize("arguments", [COMMANDS[name] for name in ("inspect", "verify", "runs")])
def test_colours(place, arguments):
    """A terminal gets colours, or at least weights."""
    assert COLOURS.search(in_terminal(place, arguments))


@every_command
def test_a_narrow_terminal_loses_nothing(place, arguments):
    """In forty columns all is there that a wide terminal shows, but for the headings of tables; no line is wider. With
    NO_COLOR neither has colours."""
    wide, narrow = (in_terminal(place, arguments, NO_COLOR="1", COLUMNS=columns) for columns in ("400", "40"))
    assert not re.search(rb"\x1b\[[0-9;]*[34][0-9]m", wide + narrow)
    lost = letters(wide) - letters(narrow)
    assert lost.total() <= HEADINGS
    boxes = [line for line in COLOURS.sub(b"", narrow).decode().splitlines() if "│" in line]
    assert max(map(len, boxes), default=0) <= 40


HEADINGS = len("nameshapedtypesizeothercontenttypevalue")


def letters(text):
    """How often each letter and digit is in a text, however its lines are broken."""
    return Counter(re.sub(r"[^A-Za-z0-9]", "", COLOURS.sub(b"", text).decode()))


@pytest.mark.parametrize("name", ["inspect --flat --stats", "diff", "help", "runs"])
def test_a_reader_that_leaves_is_no_error(place, name):
    """`| head -1` ends a command quietly."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *COMMANDS[name]], stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=place
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()


FILE_COMMANDS = {
    "inspect": ["inspect", "{}"],
    "view": ["view", "{}", "-o", "out.pt"],
    "verify": ["verify", "{}"],
    "convert": ["convert", "{}", "out.pt"],
    "diff": ["diff", "one.pt", "{}"],
    "merge": ["merge", "one.pt", "{}", "-o", "out.pt"],
    "match": ["match", "one.pt", "--keys", "{}"],
}
WRONG = {
    "absent.pt": "No such file",
    "text.pt": "unrecognised file format",
    "empty.pt": "empty",
    "cut.pt": "",
    "dir.pt": "dir.pt",
    "absent/one.pt": "No such file",
    "x" * 300: "too long",
    "/dev/null": "",
    "-": "",
}


@pytest.mark.parametrize("file", WRONG)
@pytest.mark.parametrize("name", FILE_COMMANDS)
def test_a_wrong_file_is_one_line(call, place, monkeypatch, name, file):
    """Whatever is named in the place of a checkpoint, there is no traceback, no output and no file, but one line."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"no checkpoint")))
    ended = call(*(argument.format(file) for argument in FILE_COMMANDS[name]))
    if ended.code == 1 and name == "verify":
        assert "NOT SOUND" in ended.out
    else:
        assert (ended.code, ended.out) == (2, "")
        assert ended.err.startswith("statedict: ")
        assert ended.err.count("\n") == 1
        assert WRONG[file] in ended.err
    assert not (place / "out.pt").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", "one.pt", "absent/out.pt"],
        ["convert", "one.pt", "dir.pt"],
        ["convert", "one.pt", "out.pt", "--max-shard-size", "huge"],
        ["convert", "one.pt", "out.pt", "--max-shard-size", "0"],
        ["convert", "one.pt", "out.pt", "--map", "dir.pt"],
        ["convert", "one.pt", "out.pt", "--map", "cut.pt"],
        ["convert", "one.pt", "out.pt", "--rename", "a.{*p} -> {*q}"],
        ["convert", "one.pt", "out.pt", "--rename", "{*p} -> same"],
        ["convert", "one.pt", "out.pt", "--include", "["],
        ["convert", "one.pt", "out.pt", "--dtype", "=float32="],
        ["convert", "one.pt", "out.pt", "--root", "*", "--include", "x"],
        ["convert", "one.pt", "out.safetensors", "--root", "*"],
        ["convert", "one.pt", "-", "--max-shard-size", "1kB"],
        ["convert", "one.pt"],
        ["merge", "one.pt", "-o", "absent/out.pt"],
        ["merge", "one.pt", "two.pt", "-o", "out.pt"],
        ["merge", "one.pt", "one.pt", "-o", "out.pt", "--weight", "x"],
        ["merge", "one.pt", "one.pt", "-o", "out.pt", "--weight", "nan", "--weight", "1", "--weight", "2"],
        ["merge", "one.pt", "one.pt", "-o", "out.pt", "--method", "union"],
        ["match", "one.pt", "--model", "os:getcwd"],
        ["match", "one.pt", "--model", "json:dumps"],
        ["match", "one.pt", "--keys", "two.pt", "--infer", "--save-map", "absent/map.toml"],
        ["match", "one.pt", "--keys", "two.pt", "--map", "text.pt"],
        ["inspect", "one.pt", "--values", "nothing"],
        ["inspect", "one.pt", "--root", "nothing"],
        ["diff", "one.pt", "two.pt", "--second-root", "nothing"],
        ["runs", "one.pt"],
        ["runs", "run", "--keep-last", "0"],
        ["tour", "one.pt"],
    ],
    ids=" ".join,
)
def test_a_mistake_is_told(call, place, monkeypatch, arguments):
    """A call that cannot be done is told on standard error with exit code 2, and leaves nothing behind."""
    monkeypatch.chdir(place)
    before = sorted(place.iterdir())
    ended = call(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err
    assert "Traceback" not in ended.err
    assert sorted(place.iterdir()) == before
