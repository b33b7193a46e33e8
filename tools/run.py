"""Run a development task; needs only CPython 3.11 and pip: `python3 tools/run.py TASK [arguments]`.

A task runs in a virtual environment under `.venv/`. This script creates it with the dependency group that the task needs,
and recreates it when `pyproject.toml` changes. The tasks are in the table TASKS.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = "Scripts" if os.name == "nt" else "bin"


class Task(NamedTuple):
    """Command lines that run one after the other in the environment of a dependency group; those joined by " & " run at
    the same time.

    Extra arguments go to the last one.
    """

    group: str
    about: str
    commands: tuple[str, ...]


def main(arguments: Sequence[str]) -> int:
    """Run the task named by the first argument; return its exit code, or 2 if there is no such task."""
    if not arguments or arguments[0] not in TASKS:
        print(__doc__.strip(), *(f"{name:10} {task.about}" for name, task in TASKS.items()), sep="\n")
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036  (this file runs before pip checks the version)
        print(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    task = TASKS[arguments[0]]
    python = environment(task.group)
    for position, line in enumerate(task.commands, start=1):
        extra = arguments[1:] if position == len(task.commands) else []
        running = [start(python, *command.split(), *extra) for command in line.split(" & ")]
        codes = [process.wait() for process in running]
        if any(codes):
            return max(codes, key=abs)
    return 0


def start(python: Path, command: str, *options: str) -> subprocess.Popen[bytes]:
    """Start a command of the environment that this Python belongs to."""
    return subprocess.Popen(
        [str(python.with_name(command)), *options], cwd=ROOT, env=os.environ | SETTINGS.get(command, {})
    )


def environment(group: str) -> Path:
    """Return the Python of the group's environment; create it if it is missing or older than pyproject.toml."""
    home = ROOT / ".venv" / group
    python = home / BIN / "python"
    stamp = home / "made-from"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(
            f"creating .venv/{group} (once; it takes minutes if PyTorch is part of it)",
            file=sys.stderr,
            flush=True,
        )
        create(home)
        # `--group` needs pip 25.1. The group pins torch, because an unpinned version may install CUDA libraries.
        install(python, "--upgrade", "pip>=25.1")
        install(python, "--no-compile", "--group", group, "--editable", str(ROOT))
        # With all processors; pip would compile with one. Some packages contain files that are not Python.
        subprocess.run([str(python), "-m", "compileall", "-qq", "-j", "0", str(home)])
        stamp.write_text(wanted)
    return python


def create(home: Path) -> None:
    """Create an empty environment with pip, also on Debian, where `ensurepip` may not be installed."""
    if importlib.util.find_spec("ensurepip"):
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(home)], check=True)
        return
    subprocess.run([sys.executable, "-m", "venv", "--clear", "--without-pip", str(home)], check=True)
    outer = [sys.executable, "-m", "pip", "--python", str(home / BIN / "python")]
    subprocess.run([*outer, "install", "--quiet", "pip>=25.1"], check=True)


def install(python: Path, *what: str) -> None:
    quiet = ["install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([str(python), "-m", "pip", *quiet, *what], check=True, cwd=ROOT)


SETTINGS = {
    "pytest": {"OMP_NUM_THREADS": "1"},  # torch's threads would compete with the other workers for cores
    "mkdocs": {"NO_MKDOCS_2_WARNING": "1"},
}
LINT = ("ruff check .", "ruff format --check .")
TYPES = ("mypy",)
IMPORTS = ("lint-imports --no-logo",)
DOCS = ("mkdocs build --quiet --strict",)
# What saves, resumes and replaces files, over a simulated system (tests/systems).
SAVING = (
    "tests/files/test_system.py tests/files/test_local.py tests/files/test_atomic.py "
    "tests/formats/many_files/test_shards.py tests/training/test_manager.py tests/training/run_directory "
    "tests/cli/test_inputs.py"
)

TASKS = {
    "tour": Task("tour", "a demonstration on real data: train, kill, resume, transfer, inspect", ("statedict tour",)),
    "test": Task("dev", "every test, including the examples in the docs", ("pytest -n 2",)),
    "light": Task(
        "light", "the parts of the suite that run without PyTorch, where it is not installed", ("pytest -n 2 tests",)
    ),
    "explore": Task(
        "dev",
        "the tests with random examples (hypothesis) on new ones: those of `test` are the same in each run",
        ("pytest -n 2 -m hypothesis --hypothesis-profile explore tests",),
    ),
    "matrix": Task(
        "matrix", "parts of the suite with other versions of Python and the dependencies", ("python tools/matrix.py",)
    ),
    "lint": Task("dev", "lint and format checks of ruff", LINT),
    "types": Task("dev", "mypy, strict", TYPES),
    "systems": Task(
        "dev",
        "types and a part of the tests for Windows and macOS, as far as that can be done on this system",
        (
            "mypy --platform win32 --cache-dir .mypy_cache/win32 & mypy --platform darwin --cache-dir .mypy_cache/darwin",
            f"pytest -n 2 --system=windows {SAVING}",
            f"pytest -n 2 --system=macos {SAVING}",
        ),
    ),
    "imports": Task("dev", "import layers (docs/architecture.md)", IMPORTS),
    "docs": Task("dev", "build the documentation into site/, warnings are errors", DOCS),
    "check": Task(
        "dev", "lint, types, imports and docs: everything except tests", (*LINT, " & ".join((*TYPES, *IMPORTS, *DOCS)))
    ),
    "format": Task("dev", "reformat the code", ("ruff check --fix .", "ruff format .")),
    "coverage": Task(
        "dev",
        "run the tests and list the lines that no test runs",
        ("coverage erase", "coverage run -m pytest", "coverage combine --quiet", "coverage report --skip-covered"),
    ),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
