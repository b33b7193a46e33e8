"""Shell completion: commands and options are offered, and file names are left to the shell."""

import io
import subprocess
import sys
from contextlib import redirect_stdout

import pytest
import typer

from statedict.cli import main
from statedict.cli._main import app

PROGRAM = typer.main.get_group(app)
COMMANDS = {name: PROGRAM.get_command(None, name) for name in PROGRAM.list_commands(None)}
SCRIPT = "from statedict.cli import main; main()"


def complete(instruction, **settings):
    """What the program answers to a shell, which asks by environment variables."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.StringIO()) as answer:
        for name, value in {"_STATEDICT_COMPLETE": instruction, **settings}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit):
            main([])
    return answer.getvalue()


def in_bash(*words):
    return complete("complete_bash", COMP_WORDS=" ".join(("statedict", *words)), COMP_CWORD=str(len(words))).split()


def test_commands():
    """All commands, and those that begin so."""
    assert set(in_bash("")) == set(COMMANDS)
    assert in_bash("ins") == ["inspect"]


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name):
    """Every option of a command."""
    options = {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
    assert set(in_bash(name, "--")) - {"--help"} == options - {"--help"}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "tour"])
def test_files_are_the_shells(name):
    """Where a file is meant nothing is offered, so that the shell completes its files."""
    assert in_bash(name, "mod") == []


def test_the_scripts_turn_to_files():
    """bash's default completion, zsh's `_files`, fish's own: each shell completes files where nothing is offered."""
    assert "complete -o default -F" in complete("source_bash")
    assert complete("complete_zsh", _TYPER_COMPLETE_ARGS="statedict inspect mod") == "_files\n"
    fish = {"_TYPER_COMPLETE_FISH_ACTION": "is-args", "_TYPER_COMPLETE_ARGS": "statedict inspect mod"}
    assert complete("complete_fish", **fish) == ""


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell):
    """Each shell has its script, which asks the program."""
    script = complete(f"source_{shell}")
    assert f"_STATEDICT_COMPLETE=complete_{shell}" in script


def test_bash_takes_it(tmp_path):
    """The script is bash: sourced, it completes with bash's own machinery."""
    (tmp_path / "completion").write_text(complete("source_bash").replace("$1 )", f'{sys.executable} -c "{SCRIPT}" )'))
    asked = (
        f"source {tmp_path}/completion; COMP_WORDS=(statedict con); COMP_CWORD=1;"
        ' _statedict_completion statedict; printf "%s\\n" "${COMPREPLY[@]}"'
    )
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("convert\n", "")


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["merge", "--method", "ti"], ["ties"]),
        (["merge", "--method", "dare"], ["dare_linear", "dare_ties"]),
        (["convert", "--format", "s"], ["safetensors"]),
        (["match", "--mismatched", "sl"], ["slice"]),
        (["match", "--mismatched", "head.*=sl"], ["head.*=slice"]),
        (["convert", "--dtype", "bf"], ["bfloat16"]),
        (["convert", "--dtype", "norm=float3"], ["norm=float32"]),
        (["convert", "--dtype", "int"], []),
    ],
)
def test_closed_sets(words, offered):
    """Options with a closed set of values complete them, with the pattern in front of them."""
    assert in_bash(*words) == offered
