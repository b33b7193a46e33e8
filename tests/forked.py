"""Run programs in processes that are forked from one that has imported PyTorch, which takes seconds.

`run` and `start` are as `subprocess.run` and `Popen`, for a module (its name), a script (its path) or code (`"-c", text`).
The programs run on the simulated system that the tests run on (`pytest --system=windows`). Tests of what happens while
packages are imported need a new interpreter instead. `child` is for those programs.
"""

from __future__ import annotations

import atexit
import os
import runpy
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Mapping
from functools import cache
from multiprocessing import forkserver, get_context
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
# Every optimizer imports torch._dynamo when it is created.
IMPORTED = [
    "tests.systems.inherited",
    *("torch", "torch._dynamo", "torch.distributed.checkpoint.state_dict", "torch.distributed.fsdp"),
    *("statedict.torch", "statedict.training"),
]


@cache
def _context() -> ForkServerContext:
    """Start the process that the others are forked from. Libraries must not start threads in it."""
    context = get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
            patch.setenv(name, "1")
        forkserver.ensure_running()
    return context


class Started:
    """A program that runs."""

    def __init__(self, program: str | Path, arguments: list[str], options: Mapping[str, Any]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._printed = [Path(self._folder.name, name) for name in ("output", "errors")]
        self._process = _context().Process(target=_main, args=(program, arguments, self._printed, options))
        self._process.start()
        # A test that fails may leave it running, and multiprocessing waits for it at exit.
        atexit.register(self._process.kill)
        self.pid = self._process.pid

    @property
    def returncode(self) -> int | None:
        """The exit code; None while the program runs, and negative if a signal has ended it."""
        return self._process.exitcode

    def wait(self, timeout: float = 280) -> subprocess.CompletedProcess[str]:
        """Return what the program has printed until its end; kill it, and raise TimeoutExpired, after these seconds."""
        self._process.join(timeout)
        code = self.returncode
        if code is None:
            self._process.kill()
            self._process.join()
        output, errors = (path.read_text() if path.exists() else "" for path in self._printed)
        self._folder.cleanup()
        if code is None:
            raise subprocess.TimeoutExpired("a forked program", timeout, output, errors)
        return subprocess.CompletedProcess([], code, output, errors)


def start(
    program: str | Path,
    *arguments: object,
    action: str = "error",
    cwd: str | Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> Started:
    """Start a program; `action` is what a warning does (`python -W`), `environment` is added to that of this process."""
    options = {"action": action, "cwd": cwd, "environment": {**os.environ, **(environment or {})}}
    return Started(program, list(map(str, arguments)), options)


def run(
    program: str | Path, *arguments: object, timeout: float = 280, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Start a program, and wait for its end."""
    return start(program, *arguments, **options).wait(timeout)


def _main(program: str | Path, arguments: list[str], printed: list[Path], options: Mapping[str, Any]) -> None:
    for number, path in enumerate(printed, start=1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
    os.chdir(options["cwd"])
    os.environ.clear()
    os.environ.update(options["environment"])
    warnings.resetwarnings()
    warnings.simplefilter(options["action"])
    if program == "-c":
        code, *arguments = arguments
        sys.argv = ["-c", *arguments]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif isinstance(program, Path):
        sys.argv = [str(program), *arguments]
        sys.path.insert(0, str(program.parent))
        runpy.run_path(str(program), run_name="__main__")
    else:
        sys.argv = [program, *arguments]
        runpy.run_module(program, run_name="__main__", alter_sys=True)


def child(act: Callable[[], object]) -> int:
    """Call a function in a forked process, which exits with 0, or prints the error and exits with 1; return its id."""
    process = os.fork()
    if not process:
        code = 1
        try:
            act()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)
    return process
