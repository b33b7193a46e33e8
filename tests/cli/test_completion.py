"""Shell completion: commands and options are offered, and file names are left to the shell."""

import io
import subprocess
import sys
from contextlib import redirect_stdout

import pytest

from statedict.cli import main
from statedict.cli._main import app

COMMANDS = {name: app.get_command(None, name) for name in app.list_commands(None)}
SCRIPT = "from statedict.cli import main; main()"


def complete(instruction, **settings):
    """What the program answers to a shell, which asks by environment variables."""
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(io.TextIOWrapper(io.BytesIO())) as answer:
        for name, value in {"_STATEDICT_COMPLETE": instruction, **settings}.items():
            patch.setenv(name, value)
        with pytest.raises(SystemExit):
            main([])
        return answer.buffer.getvalue().decode()


def in_bash(*words):
    """The values that are offered; `file,mod` for a name that the shell completes."""
    answer = complete("bash_complete", COMP_WORDS=" ".join(("statedict", *words)), COMP_CWORD=str(len(words)))
    return [line.removeprefix("plain,") for line in answer.split()]


def test_commands():
    """All commands, and those that begin so."""
    assert set(in_bash("")) == set(COMMANDS)
    assert in_bash("ins") == ["inspect"]


@pytest.mark.parametrize("name", COMMANDS)
def test_options(name):
    """Every option of a command."""
    options = {o for p in COMMANDS[name].params for o in (*p.opts, *p.secondary_opts) if o.startswith("--")}
    assert set(in_bash(name, "--")) - {"--help"} == options - {"--help"}


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("doctor", "tour")])
def test_files_are_the_shells(name):
    """Where a value is free, the shell is asked to complete its files."""
    assert in_bash(name, "mod") == ["file,mod"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_scripts(shell):
    """Each shell has its script, which asks the program."""
    script = complete(f"{shell}_source")
    assert f"_STATEDICT_COMPLETE={shell}_complete" in script


def test_bash_takes_it(tmp_path):
    """The script is bash: sourced, it completes with bash's own machinery."""
    (tmp_path / "completion").write_text(complete("bash_source").replace("$1)", f'{sys.executable} -c "{SCRIPT}")'))
    asked = (
        f"source {tmp_path}/completion; COMP_WORDS=(statedict con); COMP_CWORD=1;"
        ' _statedict_completion statedict 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
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
