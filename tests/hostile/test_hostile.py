"""Every case of the tables, read: what it gives, what it runs, what it costs."""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
from functools import cache
from pathlib import Path

import pytest
from tests.hostile.cases import damage, meanings, proportion
from tests.hostile.cases._case import Case
from tests.hostile.cases.table import GROUPS

TOLD = {**damage.TOLD, **meanings.TOLD, **proportion.TOLD}
ROOT = Path(__file__).parents[2]
# Processor time in units of `tests.cost.yardstick`, so that slow machines do not count: the costliest cases take 16.
UNITS, UNITS_A_MEGABYTE = 30, 5
# Objects are larger without the GIL.
FLOOR = (80 if sysconfig.get_config_var("Py_GIL_DISABLED") else 64) << 20
ALL = [pytest.param(group, case, id=case.name) for group, cases in GROUPS.items() for case in cases]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """A function that gives what happened to each case of a group, by name; each group is run once."""

    @cache
    def run(group: str) -> dict[str, dict]:
        told: dict[str, dict] = {}
        names = [case.name for case in GROUPS[group]]
        while len(told) < len(names):
            first = names[len(told)]
            folder = tmp_path_factory.mktemp(group)
            told |= observe(group, folder, first)
        return told

    return run


def observe(group: str, folder: Path, first: str) -> dict[str, dict]:
    """The outcomes of a group's cases from the first one on; the last is a crash where the process died of it."""
    command = [sys.executable, "-m", "tests.hostile.run", group, str(folder), first]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=250)
    told: dict[str, dict] = {}
    for line in map(json.loads, done.stdout.splitlines()):
        name = line.get("begins") or line["name"]
        told[name] = {"outcome": "crash", "text": done.stderr[-2000:]} if "begins" in line else line
    assert told, done.stderr[-2000:]
    return told


@pytest.mark.parametrize(("group", "case"), ALL)
def test_a_hostile_file(group: str, case: Case, outcomes):
    """A right file loads, a wrong one is an error that names it, a doubtful one is either. Nothing else happens that the
    interpreter can tell of: nothing is run, imported or opened. Reading takes at most thirty yardsticks (more for large
    files), and 64 MiB and four times the file of memory."""
    told = outcomes(group)[case.name]
    assert told["outcome"] != "crash", told["text"]
    allowed = {"error": ["error"], "detected": ["error"], "loads": ["loads"]}.get(case.gives, ["error", "loads"])
    assert told["outcome"] in allowed, told
    if told["outcome"] == "error":
        assert told["clean"], told["text"]
        assert case.gives != "detected" or told["detected"], told["text"]
        assert TOLD.get(case.name, "") in told["text"]
    elif case.gives == "unsafe":
        assert told["refused"]
    else:
        assert told["wrong"] is None
    assert told.get("events") == []
    assert not told["ran"]
    assert told["cost"] <= UNITS + UNITS_A_MEGABYTE * told["size"] / 1e6
    assert told["memory"] <= FLOOR + 4 * told["size"]
