"""The public types, as a type checker sees them in the program of a user."""

import re
import subprocess
import sys

import pytest

pytest.importorskip("mypy")

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


def test_types_of_a_users_program(tmp_path):
    """States, reports and results have types; a misspelt choice is an error of the type checker."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    # Checking these libraries too takes 20 seconds, and the types here do not depend on them.
    config = tmp_path / "mypy.ini"
    config.write_text("[mypy]\n[mypy-torch.*,numpy.*,ml_dtypes.*]\nfollow_imports = skip\n")
    command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", f"--cache-dir={tmp_path}"]
    command += [f"--config-file={config}", str(program)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=280, check=False)
    found = [line.split(":", 2)[1:] for line in ended.stdout.splitlines()]
    said = {int(number): text.strip() for number, text in found if "Revealed type" in text or "error:" in text}
    expected = {
        number: line.split("  # ")[1] for number, line in enumerate(PROGRAM.splitlines(), start=1) if "  # " in line
    }
    assert {number: _short(text) for number, text in said.items()} == expected, ended.stdout + ended.stderr


def _short(text):
    """`note: Revealed type is "statedict.state.StateDict"` → `StateDict`; of an error its kind."""
    if text.startswith("error:"):
        return "error: " + text.rpartition("[")[2].rstrip("]")
    text = re.search(r'"(?:tuple.*fallback=)?([^"]*?)\]?"', text)[1]
    return re.sub(r"[\w.]+\.", "", text)
