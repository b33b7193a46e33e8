"""One word per task, on a machine with nothing but CPython 3.11 and pip: `python3 tools/run.py TASK [arguments]`.

A task runs in a virtual environment under `.venv/` that this script makes, with the dependency group that the task
needs, and makes again when `pyproject.toml` changes. It knows nothing else: what a task does is one line of TASKS.
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
    """Command lines that run one after the other in the environment of a dependency group; extra arguments go to the
    last one."""

    group: str
    about: str
    commands: tuple[str, ...]


def main(arguments: Sequence[str]) -> int:
    """Run the task named first; give its exit code, or 2 where there is no such task."""
    if not arguments or arguments[0] not in TASKS:
        print(__doc__.strip(), *(f"{name:10} {task.about}" for name, task in TASKS.items()), sep="\n")
        return 2
    if sys.version_info < (3, 11):  # noqa: UP036  (this file runs before anything has checked it)
        print(f"Python 3.11 or newer is needed; this is {sys.version.split()[0]}", file=sys.stderr)
        return 2
    task = TASKS[arguments[0]]
    python = environment(task.group)
    for position, line in enumerate(task.commands, start=1):
        extra = arguments[1:] if position == len(task.commands) else []
        command, *options = line.split()
        done = subprocess.run(
            [str(python.with_name(command)), *options, *extra], cwd=ROOT, env=os.environ | SETTINGS.get(command, {})
        )
        if done.returncode:
            return done.returncode
    return 0


def environment(group: str) -> Path:
    """The Python of the environment for a dependency group, made where it is missing or older than pyproject.toml."""
    home = ROOT / ".venv" / group
    python = home / BIN / "python"
    stamp = home / "made-from"
    wanted = hashlib.sha256((ROOT / "pyproject.toml").read_bytes() + sys.version.encode()).hexdigest()
    if not (stamp.exists() and stamp.read_text() == wanted):
        print(f"making .venv/{group} (once; PyTorch's CPU build is about 200 MB)", file=sys.stderr, flush=True)
        create(home)
        # `--group` came with pip 25.1. The exact torch version is in the group: an unpinned one would bring CUDA's.
        install(python, "--upgrade", "pip>=25.1")
        install(python, "--group", group, "--editable", str(ROOT))
        stamp.write_text(wanted)
    return python


def create(home: Path) -> None:
    """An empty environment with pip in it, also on a Debian that keeps `ensurepip` in another package."""
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
    "pytest": {"OMP_NUM_THREADS": "1"},  # torch's own threads would fight with the other workers for the same cores
    "mkdocs": {"NO_MKDOCS_2_WARNING": "1"},
}
LINT = ("ruff check .", "ruff format --check .")
TYPES = ("mypy",)
IMPORTS = ("lint-imports --no-logo",)
DOCS = ("mkdocs build --quiet --strict",)

TASKS = {
    "tour": Task("tour", "the main job, on real data: train, die, resume, transfer, inspect", ("statedict tour",)),
    "test": Task("dev", "every test, the documentation's examples included", ("pytest -n 2",)),
    "lint": Task("dev", "ruff's rules and format", LINT),
    "types": Task("dev", "mypy, strict", TYPES),
    "imports": Task("dev", "imports go down only (docs/architecture.md)", IMPORTS),
    "docs": Task("dev", "the documentation, strictly, into site/", DOCS),
    "check": Task("dev", "lint, types, imports and docs: all that is no test", (*LINT, *TYPES, *IMPORTS, *DOCS)),
    "format": Task("dev", "rewrite the code in its format", ("ruff check --fix .", "ruff format .")),
    "coverage": Task(
        "dev",
        "the tests once more, with what they did not run",
        ("coverage erase", "coverage run -m pytest", "coverage combine --quiet", "coverage report --skip-covered"),
    ),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
