"""statedict tour: it runs, it proves what it claims, and says what is missing where it cannot."""

import json
import subprocess
import sys

import pytest

FILES = ["digits.pt", "parity.pt", "uninterrupted.pt"]


@pytest.mark.slow
def test_the_tour(tmp_path):
    """The tour reports and proves every step; its files are where it says, and none of them is half-written."""
    pytest.importorskip("torch")
    pytest.importorskip("sklearn")
    command = [sys.executable, "-m", "statedict", "tour", str(tmp_path / "files")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert [line[:2] for line in done.stdout.splitlines() if line[:1].isdigit() and line[1:2] == "."] == [
        "1.", "2.", "3.", "4.", "5.",
    ]  # fmt: skip
    assert "half-written file" in done.stdout
    assert "backbone" in done.stdout
    assert sorted(path.name for path in (tmp_path / "files").iterdir()) == FILES


@pytest.mark.parametrize("missing", ["torch", "sklearn"])
def test_what_it_needs(call, monkeypatch, tmp_path, missing):
    """Without torch or scikit-learn the tour says which to install, and writes nothing."""
    from statedict.cli import _tour

    monkeypatch.setattr(_tour, "find_spec", lambda name: None if name == missing else object())
    ended = call("tour", tmp_path / "files")
    assert ended.code == 2
    assert ended.err.startswith("statedict: the tour needs the package")
    assert not (tmp_path / "files").exists()


def test_json(call, monkeypatch, tmp_path):
    """--json tells the steps, and nothing is printed beside it."""
    from statedict.cli import _tour

    def step(place):
        place.console.print("beside")
        return _tour.StepResult("did it.", "which proves it.")

    monkeypatch.setattr(_tour, "find_spec", lambda name: object())
    monkeypatch.setattr(_tour, "STEPS", (step,))
    ended = call("tour", tmp_path / "files", "--json")
    assert (ended.code, ended.err) == (0, "")
    steps = [{"did": "did it.", "proves": "which proves it."}]
    assert json.loads(ended.out) == {"schema": 1, "directory": str(tmp_path / "files"), "steps": steps}
