"""Run PyTorch's own, unmodified test files with this library's engine.

    python tools/conformance.py --plugin FOLDER --tests FOLDER [--baseline FILE.json] [--report FILE.json] [files ...]

`--plugin` is the folder that holds `engine_plugin.py`, the pytest plugin that routes PyTorch's entry points to this
library and counts how often each test enters it. `--tests` is the `test` folder of a PyTorch 2.6 source tree (for example
of the public repository deepin-community/pytorch; `git archive HEAD test | tar x -C somewhere` extracts it from a bare
clone). Neither is part of this repository. `files` are relative to `--tests`; the default is the files about module states.
`--baseline` holds the outcomes on stock PyTorch: with it, only tests that pass there and fail here count as failures.

Needs, besides the test dependencies: parameterized, psutil and scipy.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

FILES = [
    "nn/test_load_state_dict.py",
    "nn/test_module_hooks.py",
    "nn/test_lazy_modules.py",
    "nn/test_parametrization.py",
    "nn/test_pruning.py",
]


def command(options: argparse.Namespace) -> list[str]:
    """Return the pytest command. `--noconftest`: PyTorch's own conftest does not load on pytest 8."""
    chosen = [
        flag
        for name, path in (("--sd-report", options.report), ("--sd-baseline", options.baseline))
        if path
        for flag in (name, str(path.resolve()))
    ]
    plain = ["--noconftest", "-p", "engine_plugin", "-p", "no:cacheprovider", "-W", "ignore", "-q"]
    return [sys.executable, "-m", "pytest", *plain, *chosen, *(options.files or FILES)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plugin", type=Path, required=True)
    parser.add_argument("--tests", type=Path, required=True)
    parser.add_argument("--baseline", type=Path)
    parser.add_argument("--report", type=Path)
    parser.add_argument("--guard", choices=["count", "raise"], default="count")
    parser.add_argument("files", nargs="*")
    options = parser.parse_args()
    path = os.pathsep.join(filter(None, [str(options.plugin.resolve()), os.environ.get("PYTHONPATH")]))
    engine = {"PYTHONPATH": path, "STATEDICT_IMPL": "statedict.torch", "STATEDICT_GUARD": options.guard}
    return subprocess.run(command(options), cwd=options.tests, env={**os.environ, **engine}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
