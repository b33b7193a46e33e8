"""The command line as a whole: documented, quick, and never a traceback for a user's mistake."""

import gc
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import statedict
from statedict.cli import main
from statedict.cli._main import app
from statedict.cli._options import in_options
from statedict.cli._show import TERMINAL
from statedict.errors import TruncatedError, UnsafeFileError

REFERENCE = Path(__file__).parents[2] / "docs" / "reference" / "cli.md"
COMMANDS = {name: app.get_command(None, name) for name in app.list_commands(None)}


def test_help_lists_the_commands(call):
    """`statedict --help`, `-h` and nothing at all list every command."""
    for arguments in (["--help"], ["-h"], []):
        out = call(*arguments).out
        assert all(re.search(rf"^\W*{name}\b", out, re.MULTILINE) for name in COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_documented(call, name):
    """Each command has an example in its help, and a chapter of the reference; an option has a help text, and neither a flag
    nor an argument shows its Python type."""
    shown = call(name, "--help").out
    assert not re.search(r"<(bool|str|path|int|float)>|\{", shown.partition("Examples:")[0])
    command = COMMANDS[name]
    assert f"statedict {name}" in shown
    assert f"\n## {name}\n" in REFERENCE.read_text()
    assert all(parameter.help for parameter in command.params if parameter.name != "help")


@pytest.mark.parametrize("name", COMMANDS)
def test_help_in_a_narrow_terminal(call, monkeypatch, name):
    """In a narrow terminal no option is cut, and each example is one line, to be copied; they are the last thing there."""
    monkeypatch.setenv("COLUMNS", "50")
    written = COMMANDS[name].callback.__doc__.partition("Examples:")[2].split("\n")
    described, _, shown = call(name, "--help").out.partition("Examples:")
    assert [
        option for p in COMMANDS[name].params for option in p.opts if option[:2] == "--" and option not in described
    ] == []
    shown = shown.split("\n")
    assert [line.strip() for line in shown if line.strip()] == [line.strip() for line in written if line.strip()]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_in_the_reference(name):
    """The reference names every option of every command."""
    chapter = REFERENCE.read_text().partition(f"\n## {name}\n")[2].partition("\n## ")[0]
    options = [
        option for p in COMMANDS[name].params for option in p.opts if option.startswith("--") and option != "--help"
    ]
    assert [option for option in options if option not in chapter] == []


def test_a_file_without_a_command_is_inspected(call, tmp_path):
    """`statedict FILE` is `statedict inspect FILE`, with its options; a wrong path is an error about the file."""
    statedict.save({"w": np.zeros(2)}, tmp_path / "model.pt")
    assert call(tmp_path / "model.pt", "--json").out == call("inspect", tmp_path / "model.pt", "--json").out
    missing = call(tmp_path / "missing.pt")
    assert (missing.code, missing.out) == (2, "")
    assert "missing.pt: No such file" in missing.err


def test_the_version_is_the_installed_one(call):
    """`statedict --version` prints `statedict.__version__`."""
    assert call("--version").out == f"statedict {statedict.__version__}\n"


@pytest.mark.parametrize("arguments", [["inspekt"], ["inspect"], ["inspect", "a.pt", "--nonsense"]])
def test_a_wrong_call_is_explained(call, arguments):
    """A call that makes no sense exits with 2, says so on standard error, and prints nothing else."""
    ended = call(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "Traceback" not in ended.err
    assert ("Did you mean 'inspect'" in ended.err) == (arguments == ["inspekt"])


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (UnsafeFileError("it would run\ncode", file="x.pt"), "statedict: x.pt: it would run\\ncode\n"),
        (FileNotFoundError(2, "No such file or directory", "x.pt"), "statedict: x.pt: No such file or directory\n"),
        (TruncatedError("it ends after 3 bytes", file="x.pt"), "statedict: x.pt: it ends after 3 bytes\n"),
        (OSError("the disk is on fire"), "statedict: the disk is on fire\n"),
        (MemoryError(), "statedict: out of memory\n"),
        (MemoryError("Unable to allocate 2 TiB"), "statedict: Unable to allocate 2 TiB\n"),
    ],
)
def test_errors_become_one_line(call, monkeypatch, error, said):
    """What this library or the system refuses is one line on standard error, exit code 2."""

    def fail(path):
        raise error

    monkeypatch.setattr(statedict, "open", fail)
    assert call("inspect", "x.pt") == (2, "", said)


def test_faults_of_ours_are_not_hidden(monkeypatch):
    """Any other exception is a fault, and keeps its traceback."""
    monkeypatch.setattr(statedict, "open", lambda path: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        main(["inspect", "x.pt"])


def test_as_a_module():
    """`python -m statedict` is the same app."""
    done = subprocess.run([sys.executable, "-m", "statedict", "--version"], capture_output=True, text=True, timeout=60)
    assert re.fullmatch(r"statedict \d+\.\d+\S*\n", done.stdout)


def test_the_garbage_collector_of_another_program_is_left_alone(call, tmp_path):
    """`main` with arguments runs inside of another program, whose threshold for garbage collection it does not change."""
    np.save(tmp_path / "a.npy", np.zeros(2))
    before = gc.get_threshold()
    call("inspect", str(tmp_path / "a.npy"))
    assert gc.get_threshold() == before
    code = "import atexit, gc; atexit.register(lambda: print(gc.get_threshold()[0])); from statedict.cli import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "--version"], capture_output=True, text=True, timeout=60)
    assert done.stdout.splitlines()[-1] == "100000"


UNNEEDED = {
    "statedict.cli._convert",
    "statedict.formats.zip._write",
    "statedict.plan",
    "numpy",
    "rich",
    "sklearn",
    "torch",
}


def test_a_command_is_imported_when_it_is_asked_for(tmp_path):
    """Inspecting a small file, with a pipe as output, imports no other command or writer, nor NumPy, torch or rich."""
    statedict.save({"weight": [1.0]}, tmp_path / "a.pt")
    script = "import sys; from statedict.cli import main\ntry: main(['inspect', 'a.pt'])\nfinally: print(*sys.modules)"
    environment = {name: value for name, value in os.environ.items() if name not in TERMINAL}
    options = {"cwd": tmp_path, "env": environment, "capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run([sys.executable, "-c", script], **options)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "statedict.cli._inspect" in loaded
    assert not UNNEEDED & loaded


@pytest.mark.parametrize("name", ["a.pt", "a.safetensors"])
def test_describing_a_file_imports_only_what_it_needs(tmp_path, name):
    """Describing a small file imports nothing that only pages, pipes and retries need."""
    statedict.save({"weight": [1.0]} if name == "a.pt" else {"weight": np.ones(1)}, tmp_path / name)
    script = (
        "import sys, statedict.report\n"
        f"with statedict.open({name!r}) as opened: statedict.report.contents(opened.object)\nprint(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    unneeded = {"email", "gzip", "html", "importlib.metadata", "random", "shutil", "tempfile"}
    assert not unneeded & set(done.stdout.split()), done.stderr


@pytest.mark.parametrize(
    ("arguments", "blamed"),
    [
        (["convert", "a.pt", "out.pt", "--max-shard-size", "1XB"], "--max-shard-size"),
        (["convert", "a.pt", "out.pt", "--max-shard-size", "0", "--format", "torch"], "--max-shard-size"),
        (["convert", "a.pt", "out.pt", "--rename", "w -> x | split 0 7"], "--rename"),
        (["merge", "a.pt", "a.pt", "-o", "out.pt", "--weight", "1"], "--weight"),
        (["merge", "a.pt", "a.pt", "-o", "out.pt", "--method", "mean"], "--method"),
        (["match", "a.pt", "--keys", "a.pt", "--mismatched", "perhaps"], "--mismatched"),
    ],
)
def test_the_option_that_is_wrong_is_blamed(call, tmp_path, monkeypatch, arguments, blamed):
    """A mistake in an option names that option, and none that was not given."""
    monkeypatch.chdir(tmp_path)
    statedict.save({"w": np.ones((2, 3))}, "a.pt")
    ended = call(*arguments)
    assert (ended.code, ended.out) == (2, "")
    said = re.sub(r"[│╭╮╰╯─\s]+", " ", ended.err)
    assert f"Invalid value for {blamed}:" in said
    assert not (tmp_path / "out.pt").exists()


def test_a_fault_of_the_library_is_no_option_s_mistake():
    """A ValueError where no option was given is not told as one."""
    from statedict.cli._options import as_bad_parameter

    with pytest.raises(ValueError, match="a fault"), as_bad_parameter({"--format": None, "--weight": []}):
        raise ValueError("a fault")


def test_errors_speak_of_options(call, tmp_path, monkeypatch):
    """An error that names an argument of a function names the option of this program instead."""
    monkeypatch.chdir(tmp_path)
    statedict.save({"a": {"w": np.ones(2)}, "b": {"w": np.ones(2)}}, "two.safetensors.pt")
    ended = call("convert", "two.safetensors.pt", "out.pt", "--root", "c")
    assert (ended.code, ended.err.endswith("choose one with --root\n")) == (2, True)
    assert in_options("use statedict.open(path, limits=…)") == "open it in Python: statedict.open(path, limits=…)"
    assert (
        in_options("weights=[1.0]: save in shards (max_shard_size=)")
        == "--weight [1.0]: save in shards (--max-shard-size)"
    )
    assert in_options("x.root=3 and model=") == "x.root=3 and model="
