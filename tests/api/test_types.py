"""The public types, as a type checker sees them in the program of a user."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

import statedict

PROGRAM = """
import statedict
from statedict import LoadError, LoadReport, Resumed, Saved, StateDict, nn

model = nn.Linear(3, 2)
reveal_type(statedict.state_dict(model))  # StateDict
reveal_type(statedict.snapshot(model))  # StateDict
reveal_type(statedict.snapshot(statedict.state_dict(model)).select("weight"))  # StateDict
reveal_type(statedict.state_dict(model).rename("a -> b").rename(statedict.KeyMap("b -> c")))  # StateDict
reveal_type(statedict.load_state_dict(model, "model.pt"))  # LoadReport
reveal_type(statedict.open("model.pt").state_dict())  # StateDict
reveal_type(statedict.match(model, "model.pt").key_map)  # KeyMap
reveal_type(statedict.diff("a.pt", "b.pt"))  # Diff

try:
    statedict.load_state_dict(model, {"w": 1}, mismatched={"head": "skip"}, rename="a -> b", allow_casts="overflow")
except LoadError as error:
    print(error.report.missing)

manager = statedict.CheckpointManager("run", keep=statedict.any_of(3, statedict.best("loss")))
reveal_type(manager.latest)  # Saved | None
reveal_type(manager.resume(model=model))  # Resumed | None

statedict.load("model.pt", backend="jax")  # error: arg-type
statedict.load_state_dict(model, "model.pt", mismatched="skipp")  # error: arg-type
statedict.load_state_dict(model, "model.pt", allow_casts="overflown")  # error: arg-type
statedict.best("loss", mode="mx")  # error: arg-type
"""


EXPECTED = {
    number: line.split("  # ")[1] for number, line in enumerate(PROGRAM.splitlines(), start=1) if "  # " in line
}


def by_mypy(program):
    """What mypy says about each line: a revealed type or the code of an error."""
    # Checking these libraries too takes 20 seconds, and the types here do not depend on them.
    config = program.with_name("mypy.ini")
    config.write_text("[mypy]\n[mypy-torch.*,numpy.*,ml_dtypes.*]\nfollow_imports = skip\n")
    lines = printed("mypy", "--strict", "--no-error-summary", f"--config-file={config}", program).splitlines()
    for number, text in (line.split(":", 2)[1:] for line in lines):
        error = re.search(r"error: .*\[(.*)\]$", text)
        # note: Revealed type is "statedict.state.StateDict"
        shown = re.search(r'"(?:tuple.*fallback=)?([^"]*?)\]?"', text)
        yield int(number), f"error: {error[1]}" if error else re.sub(r"[\w.]+\.", "", shown[1])


def by_pyright(program):
    """What pyright says about each line; it has another name for the kind of error."""
    options = {"typeCheckingMode": "strict", "reportUnusedImport": False}
    options["extraPaths"] = [str(Path(statedict.__file__).parents[1])]
    program.with_name("pyrightconfig.json").write_text(json.dumps(options))
    for said in json.loads(printed("basedpyright", "--outputjson", program))["generalDiagnostics"]:
        # Type of "statedict.state_dict(model)" is "StateDict"
        text = said["message"].rsplit('"', 2)[1] if said["severity"] == "information" else f"error: {said['rule']}"
        yield said["range"]["start"]["line"] + 1, text.replace("reportArgumentType", "arg-type")


def printed(*command):
    command = [sys.executable, "-m", *map(str, command)]
    ended = subprocess.run(command, cwd=command[-1].rpartition("/")[0], capture_output=True, text=True, timeout=280)
    assert ended.returncode == 1, ended.stdout + ended.stderr  # there are errors in the program
    return ended.stdout


@pytest.mark.parametrize(("checker", "package"), [(by_mypy, "mypy"), (by_pyright, "basedpyright")])
def test_types_of_a_users_program(checker, package, tmp_path):
    """States, reports and results have types; a misspelt choice is an error of the type checker."""
    pytest.importorskip(package)
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    assert dict(checker(program)) == EXPECTED
