"""The tasks: one word each, the same words everywhere, and CI runs what the README says."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


def load(name):
    """Import a file of tools/."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def tasks():
    return load("run")


def test_make_has_the_same_tasks(tasks):
    """The Makefile's words are those of tools/run.py."""
    words = re.search(r"^TASKS = (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
    assert words == list(tasks.TASKS)


def test_the_readme_has_two_commands_and_ci_calls_its_tests(tasks):
    """The README's commands are tasks that exist; CI calls the one that runs the tests, last."""
    commands = re.findall(r"^python3 tools/run\.py (\w+)", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert commands == ["tour", "test"]
    assert set(commands) <= set(tasks.TASKS)
    assert (ROOT / ".ci" / "run").read_text().splitlines()[-1] == "exec python3 tools/run.py test"
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_examples_are_code_in_the_reference():
    """The API pages show the examples of docstrings as code, which Markdown alone would show as quotations."""
    pytest.importorskip("griffe")
    extension = load("griffe_examples")
    text = "Add.\n\n    >>> 1 + 1\n    2\n\n    More.\n\n    >>> 2\n    2"
    assert extension.fenced(text) == "Add.\n\n```pycon\n>>> 1 + 1\n2\n```\n\nMore.\n\n```pycon\n>>> 2\n2\n```"


def test_torch_is_pinned(tasks):
    """A task's dependency group names one PyTorch, pinned (others bring CUDA's gigabytes), or none."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text())["dependency-groups"]

    def packages(group):
        for item in groups[group]:
            yield from packages(item["include-group"]) if isinstance(item, dict) else [item]

    for task in tasks.TASKS.values():
        expected = [] if task.group in {"light", "matrix"} else ["torch==2.13.0"]
        assert [p for p in packages(task.group) if re.match(r"torch\b", p)] == expected


@pytest.mark.parametrize("arguments", [[], ["nonsense"]])
def test_a_word_that_is_no_task(tasks, arguments):
    """An unknown task, or none, lists those that there are and makes nothing."""
    command = [sys.executable, str(ROOT / "tools" / "run.py"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert all(f"\n{name} " in done.stdout for name in tasks.TASKS)


def test_commands_run_at_the_same_time_and_one_after_the_other(tasks, tmp_path, monkeypatch):
    """All commands that are joined by " & " run; those of the next line only if none of them has failed."""
    monkeypatch.setattr(tasks, "environment", lambda group: Path(shutil.which("false")))
    lines = f"false & touch {tmp_path}/beside", f"touch {tmp_path}/after"
    monkeypatch.setitem(tasks.TASKS, "some", tasks.Task("dev", "", lines))
    assert tasks.main(["some"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["beside"]


def test_an_environment_without_ensurepip(tasks, tmp_path, monkeypatch):
    """Where Python comes without ensurepip (Debian's), the outer pip fills the environment; else venv does it alone."""
    ran = []
    monkeypatch.setattr(tasks.subprocess, "run", lambda command, **options: ran.append(command[1:]))
    tasks.create(tmp_path)
    monkeypatch.setattr(tasks.importlib.util, "find_spec", lambda name: None)
    tasks.create(tmp_path)
    assert ran[0] == ["-m", "venv", "--clear", str(tmp_path)]
    assert ran[1] == ["-m", "venv", "--clear", "--without-pip", str(tmp_path)]
    assert ran[2] == ["-m", "pip", "--python", str(tmp_path / "bin" / "python"), "install", "--quiet", "pip>=25.1"]


def test_the_versions_that_are_declared_have_passed():
    """Every Python of the classifiers passed in the last run of the matrix, whose table is in the documentation."""
    matrix = load("matrix")
    results = json.loads((ROOT / "tools" / "matrix.json").read_text())
    assert matrix.TABLE.search((ROOT / "docs" / "support.md").read_text())[0] == matrix.table(results)
    passed = {tuple(row["python"].split(".")[:2]) for row in results.values() if row.get("failed") == 0}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = re.findall(r"Python :: (\d)\.(\d+)", " ".join(project["classifiers"]))
    assert sorted(passed) == sorted(declared)
    without_gil = any(row["python"].endswith("t") and row["failed"] == 0 for row in results.values())
    assert without_gil == ("Free Threading" in str(project["classifiers"]))


def test_the_minima_are_read_from_the_project():
    """Every dependency that users get is pinned to the lowest version that is declared."""
    minima = load("matrix").minima()
    assert minima
    assert [pin for pin in minima if not re.fullmatch(r"[\w-]+==\d+(\.\d+)*", pin)] == []
