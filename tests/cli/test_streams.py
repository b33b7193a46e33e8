"""`-` in the place of a file: standard input, by a pipe or from a file; standard output, unless it is a terminal."""

import io
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch

import statedict

PROGRAM = [sys.executable, "-m", "statedict"]


@pytest.fixture
def model(tmp_path):
    torch.save({"w": torch.arange(6.0), "b": torch.ones(2)}, tmp_path / "model.pt")
    return tmp_path / "model.pt"


@pytest.mark.parametrize("way", ["a pipe", "a file"])
def test_standard_input(model, way):
    """What comes by a pipe, and what the shell redirects, is read as a file is."""
    with model.open("rb") as file:
        given = {"input": model.read_bytes()} if way == "a pipe" else {"stdin": file}
        done = subprocess.run([*PROGRAM, "inspect", "-", "--json"], capture_output=True, timeout=60, **given)
    told = json.loads(done.stdout)
    assert (told["file"], told["format"], told["bytes"]) == ("<stdin>", "torch", model.stat().st_size)
    assert [tensor["name"] for tensor in told["roots"][0]["tensors"]] == ["w", "b"]


def test_from_pipe_to_pipe(model):
    """A command can stand in the middle of a pipe; what it tells goes to standard error."""
    command = [*PROGRAM, "convert", "-", "-", "--dtype", "float16"]
    done = subprocess.run(command, input=model.read_bytes(), capture_output=True, timeout=60)
    assert done.stderr == b"-: torch, 2 tensors, 16 B\n"
    assert torch.equal(torch.load(io.BytesIO(done.stdout))["w"], torch.arange(6.0).half())
    command = [*PROGRAM, "merge", "-", str(model), "-o", "-"]
    merged = subprocess.run(command, input=done.stdout, capture_output=True, timeout=60)
    assert merged.stderr.startswith(b"-: average of 2 files")
    assert torch.equal(torch.load(io.BytesIO(merged.stdout))["b"], torch.ones(2))


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_any_name_is_printed(tmp_path, monkeypatch, encoding):
    """Characters that the output's encoding does not have are escaped: in a pipe on Windows, that is most of them."""
    statedict.save({"层.é": np.ones(3, np.float32)}, tmp_path / "model.pt")
    monkeypatch.delenv("COLUMNS", raising=False)  # pytest's workers have it
    command, environment = [*PROGRAM, "inspect", tmp_path / "model.pt"], {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run(command, capture_output=True, timeout=60, env=environment)
    assert (done.returncode, done.stderr) == (0, b"")
    # Click writes UTF-8 where only ASCII is promised.
    shown = {"cp1252": rb"\u5c42.".decode() + "é", "ascii": "层.é"}[encoding]
    assert f"{shown}  3      float32" in done.stdout.decode("utf-8" if encoding == "ascii" else encoding)


class Terminal(io.TextIOWrapper):
    def isatty(self):
        return True


@pytest.mark.parametrize("stdin", [Terminal(io.BytesIO()), None], ids=["a terminal", "closed"])
@pytest.mark.parametrize("arguments", [["inspect", "-"], ["verify", "-"], ["diff", "-", "model.pt"]])
def test_a_terminal_is_no_input(call, model, monkeypatch, arguments, stdin):
    """A terminal is not waited for."""
    monkeypatch.setattr("sys.stdin", stdin)
    monkeypatch.chdir(model.parent)
    ended = call(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "nothing is piped into it" in " ".join(ended.err.replace("│", " ").split())


def test_a_terminal_is_no_output(call, model, monkeypatch):
    """A terminal is not shown a checkpoint."""
    monkeypatch.setattr("sys.stdout", Terminal(io.BytesIO()))
    assert call("convert", model, "-").code == 2
