"""The benchmark runs; what it measures is no test."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def test_every_way_is_measured(tmp_path: Path) -> None:
    """At the smallest size all ways of all operations get a time, ours comes first, and nothing is left behind."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    torch.save({"layer.weight": torch.ones(2, 2), "layer.bias": torch.ones(2)}, tmp_path / "real.pt")
    asked = (
        f"--tiny --device cpu --case mid --real {tmp_path}/real.pt --folder {tmp_path} --json {tmp_path}/figures.json"
    )
    subprocess.run([sys.executable, "-m", "benchmarks", *asked.split()], cwd=ROOT, check=True, timeout=250)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", "real.pt"]
    rows = json.loads((tmp_path / "figures.json").read_text())["rows"]
    names = {"state_dict", "load_state_dict", "snapshot", "save", "load", "load into a model", "list"}
    names |= {"verify", "cold start", "load into a model on the device", "load onto the device", "save from the device"}
    assert {(row["case"], row["operation"]) for row in rows} == {
        (case, name) for case in ("mid", "real") for name in names
    }
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in rows)
    first = {(row["case"], row["operation"]): row for row in reversed(rows)}
    assert all(row["way"].startswith("statedict") and row["ratio"] == 1 for row in first.values())


@pytest.mark.slow
def test_a_large_file_is_measured(tmp_path: Path) -> None:
    """Loads and saves fit into the memory of the model and little more; what needs it twice is shown as such."""
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    ways = ["statedict", "torch", "statedict, save"]
    asked = ["--gib", "0.25", "--memory-limit", "0.5", "--rounds", "1", "--folder", str(tmp_path)]
    command = [sys.executable, "-m", "benchmarks.large", *asked, *(part for way in ways for part in ("--way", way))]
    shown = subprocess.run(command, cwd=ROOT, check=True, timeout=250, capture_output=True, text=True).stdout
    fits = {way: "does not fit" not in line for way in ways for line in shown.splitlines() if f"│ {way} " in line}
    assert fits == {way: way != "torch" for way in ways}
    assert not list(tmp_path.iterdir())
