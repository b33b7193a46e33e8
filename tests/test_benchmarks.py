"""The benchmark runs; what it measures is no test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")


@pytest.fixture
def figures(package: object, tmp_path: Path) -> list[dict[str, object]]:
    """The rows of a run at the smallest size. (`package` is asked for as it puts the project's folder on the path.)"""
    torch = pytest.importorskip("torch")
    from benchmarks.__main__ import main

    torch.save({"layer.weight": torch.ones(2, 2), "layer.bias": torch.ones(2)}, tmp_path / "real.pt")
    asked = (
        f"--tiny --case many --case mid --real {tmp_path}/real.pt --folder {tmp_path} --json {tmp_path}/figures.json"
    )
    main(asked.split())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["figures.json", "real.pt"]
    return list(json.loads((tmp_path / "figures.json").read_text())["rows"])


@pytest.mark.filterwarnings("default")
def test_every_operation_is_measured_in_every_case(figures: list[dict[str, object]]) -> None:
    """All ways of all operations have a time, ours comes first, and nothing is left behind."""
    from benchmarks._operations import OPERATIONS

    pairs = {(row["case"], row["operation"]) for row in figures}
    assert pairs == {(case, name) for case in ("many", "mid", "real") for name in OPERATIONS}
    assert all(row["seconds"] > 0 and row["ratio"] > 0 for row in figures)  # type: ignore[operator]
    firsts = {(row["case"], row["operation"]): row for row in reversed(figures)}
    assert all(str(row["way"]).startswith("statedict") and row["ratio"] == 1 for row in firsts.values())
