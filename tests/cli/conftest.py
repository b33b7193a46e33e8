"""The command line, called as a program would be: arguments in; exit code, output and errors out."""

from typing import NamedTuple

import pytest

from statedict.cli import main


class Ended(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def call(capsys, monkeypatch):
    """Run a command in this process, its output being a pipe."""
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest's workers have it

    def run(*arguments):
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        return Ended(ended.value.code or 0, *capsys.readouterr())

    return run
