"""Run the suite with other versions of Python, PyTorch and dependencies: `python3 tools/run.py matrix [--cuda] [CELL ...]`.

A cell is a row of CELLS; without arguments all of them run. uv makes a cell's environment under `.venv/matrix-cells/`, with
the interpreters that it finds or can fetch, and deletes it after the tests. A cell that could not be installed is left out,
with the reason; so is a PyTorch that needs CUDA's libraries (about 6 GB on the disk), unless `--cuda` allows them.
UV_TORCH_BACKEND=cpu takes PyTorch's own CPU builds. The last result of every cell is kept in `tools/matrix.json`, from which
the table of docs/support.md is made.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
HOME = ROOT / ".venv" / "matrix-cells"
RESULTS = ROOT / "tools" / "matrix.json"
PAGE = ROOT / "docs" / "support.md"
TABLE = re.compile(r"(?<=<!-- matrix -->\n).*(?=<!-- end -->)", re.DOTALL)
BIN = "Scripts" if os.name == "nt" else "bin"
UV = Path(sys.executable).with_name("uv")
# uv does not read pip's settings, of which a machine without a network has its wheels.
ENVIRONMENT = os.environ | {"UV_FIND_LINKS": os.environ.get("PIP_FIND_LINKS", ""), "OMP_NUM_THREADS": "1"}

# The slow tests and the random ones need hours for all cells.
ALL = "tests -m 'not slow and not hypothesis'"
# What runs on PyTorch itself.
ON_TORCH = "tests/torch tests/formats/torch_files tests/nn/test_libraries.py"
CUDA = "--cuda"


class Cell(NamedTuple):
    """Versions that are tested together: those not named are the newest, or the lowest that pyproject.toml declares.

    `torch` is the end of a requirement; None: without PyTorch. `without` are packages of the tests that have no wheel for
    this Python: the tests that need them are skipped.
    """

    python: str
    torch: str | None = None
    lowest: bool = False
    tests: str = ALL
    without: tuple[str, ...] = ()


class Unavailable(Exception):
    """Raised if a cell's environment cannot be made here."""


def main(arguments: list[str]) -> int:
    """Run the named cells, or all; print and keep their results; return 1 if a test failed."""
    names = [argument for argument in arguments if argument != CUDA] or list(CELLS)
    for name in names:
        result = run(name, CELLS[name], cuda=CUDA in arguments)
        results: dict[str, Any] = json.loads(RESULTS.read_text()) | {name: result}
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        PAGE.write_text(TABLE.sub(table(results), PAGE.read_text()))
    print(table(results))
    return int(any(results[name].get("failed") for name in names))


def run(name: str, cell: Cell, cuda: bool) -> dict[str, Any]:
    """Run the tests of one cell; return the versions and the numbers of tests, or why it was left out."""
    home = HOME / name
    try:
        return tested(install(home, cell, cuda), cell.tests, HOME / f"{name}.log")
    except Unavailable as reason:
        return {"left out": str(reason)}
    finally:
        shutil.rmtree(home, ignore_errors=True)


def tested(python: Path, tests: str, log: Path) -> dict[str, Any]:
    """Run tests in an environment; return its versions and the numbers of tests."""
    command = [str(python), "-m", "pytest", "-q", "-nauto", "-p", "no:cacheprovider", *shlex.split(tests)]
    with log.open("w") as file:
        code = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, stdout=file, stderr=subprocess.STDOUT).returncode
    counts = re.findall(r"(\d+) (passed|failed|skipped|error)", log.read_text().strip().rpartition("\n")[2])
    number = {what: int(count) for count, what in counts}
    failed = number.get("failed", 0) + number.get("error", 0) or int(code > 0)
    result = {"passed": number.get("passed", 0), "failed": failed, "skipped": number.get("skipped", 0)}
    return versions(python) | result | {"tests": tests}


def install(home: Path, cell: Cell, cuda: bool) -> Path:
    """Make the environment of a cell; return its Python."""
    python = home / BIN / "python"
    try:
        uv("venv", "--quiet", "--clear", "--python", cell.python, str(home))
    except Unavailable:
        raise Unavailable(f"no interpreter of Python {cell.python} could be had") from None
    wanted = ["--python", str(python), "--group", "light", "--editable", ".[nn,remote,view,testing]"]
    if cell.torch is not None:
        wanted.append(f"torch{cell.torch}")
    if cell.lowest:
        pins = [pin for pin in minima() if not (cell.torch and pin.startswith("torch=="))]
        (home / "minima.txt").write_text("\n".join(pins))
        wanted += ["--constraint", str(home / "minima.txt")]
    if cell.without:
        (home / "without.txt").write_text("\n".join(cell.without))
        wanted += ["--excludes", str(home / "without.txt")]
    plan = uv("pip", "install", "--dry-run", *wanted)
    if re.search(r"^ \+ nvidia-", plan, re.MULTILINE):
        if not cuda:
            raise Unavailable("only a CUDA build of PyTorch could be had")
        wanted.append("--no-cache")
    uv("pip", "install", "--quiet", *wanted)
    return python


def minima() -> list[str]:
    """Return a constraint for every dependency that users get: the lowest version that pyproject.toml declares."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]
    return [re.sub(r"^([\w-]+)(\[.*\])?>=([\d.]+).*", r"\1==\3", requirement) for requirement in declared]


def versions(python: Path) -> dict[str, str]:
    """Return the versions of Python, NumPy and PyTorch in an environment, and the commit that is tested."""
    found = subprocess.run([python, "-c", VERSIONS], capture_output=True, text=True, check=True).stdout.split()
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    return dict(zip(("python", "numpy", "torch"), found, strict=True)) | {"commit": commit.stdout.strip()}


VERSIONS = """
import importlib.util, sys, numpy
torch = __import__("torch").__version__ if importlib.util.find_spec("torch") else "–"
print(sys.version.split()[0] + ("t" if "t" in sys.abiflags else ""), numpy.__version__, torch)
"""


def uv(*arguments: str) -> str:
    """Run uv; return what it printed. Raises Unavailable with its last line if it fails."""
    done = subprocess.run([UV, *arguments], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    if done.returncode:
        raise Unavailable((done.stderr.strip().splitlines() or ["uv failed"])[-1].strip(" ╰─▶×"))
    return done.stdout + done.stderr


def table(results: dict[str, Any]) -> str:
    """Return the results as a Markdown table, one row for each cell."""
    rows = ["| cell | Python | NumPy | PyTorch | others | tests | result |", "|---|---|---|---|---|---|---|"]
    for name, cell in CELLS.items():
        result = results.get(name, {"left out": "not run"})
        text = "{passed} passed, {failed} failed, {skipped} skipped" if "passed" in result else "left out: {left out}"
        found = [
            result.get(key, asked)
            for key, asked in (("python", cell.python), ("numpy", ""), ("torch", cell.torch or "–"))
        ]
        part = "all" if result.get("tests", cell.tests) == ALL else "part"
        others = "lowest" if cell.lowest else "newest"
        rows.append(f"| {name} | {' | '.join(found)} | {others} | {part} | {text.format(**result)} |")
    return "\n".join(rows) + "\n"


# CI runs the cells with Python 3.11 and the newest dependencies, without PyTorch and with 2.13.
CELLS = {
    "3.11-lowest": Cell("3.11", lowest=True),
    "3.12": Cell("3.12"),
    "3.13": Cell("3.13"),
    "3.14": Cell("3.14"),
    "3.14t": Cell("3.14t", without=("safetensors",)),
    "torch-lowest": Cell("3.11", torch="", lowest=True, tests=ON_TORCH),
    "torch-2.13-lowest": Cell("3.11", torch="==2.13.0", lowest=True, tests=ON_TORCH),
    "torch-2.13-3.12": Cell("3.12", torch="==2.13.0", tests=ON_TORCH),
    "torch-newest": Cell("3.13", torch="", tests=ON_TORCH),
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
