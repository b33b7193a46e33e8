"""statedict view: writes one page where it was asked to, says where, and spoils no other file."""

import gzip
import json
import os
import re
import stat
import subprocess
import sys
from base64 import b64decode

import numpy as np
import pytest

import statedict
from statedict.report import MARK


@pytest.fixture
def files(tmp_path, monkeypatch):
    """A training checkpoint and a changed model, in the directory that one is in."""
    state = {"body.weight": np.arange(6, dtype="f4").reshape(2, 3), "head.bias": np.ones(2, "f4")}
    statedict.save({"model": state, "ema": {"body.weight": np.ones((2, 3), "f4")}, "epoch": 3}, tmp_path / "run.pt")
    statedict.save(state | {"head.bias": np.zeros(2, "f4")}, tmp_path / "other.safetensors")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def content(page):
    """The values that a page holds."""
    assert page.startswith(MARK)
    (packed,) = re.findall(rb'id="content-data">([^<]+)<', page)
    return json.loads(gzip.decompress(b64decode(packed)))


def test_one_file(call, files):
    """The page of all state dicts of a file is named after it, in the current directory; the command says so."""
    ended = call("view", files / "run.pt")
    page = (files / "run.pt.html").read_bytes()
    assert (ended.code, ended.err) == (0, "")
    assert re.fullmatch(r"run\.pt\.html: 3 tensors, a page of 2\.\d\d MB\n", ended.out)
    values = content(page)
    assert (values["roots"], values["names"]) == (["model", "ema"], ["body.weight", "head.bias", "body.weight"])
    assert values["columns"][0]["stats"][0][:4] == [0, 5, 2.5, 1.70783]
    assert values["files"][0]["other"] == [["epoch", "int", "3"]]


def test_two_files(call, files):
    """One state dict of each of two files is compared: the main one, or the one that was asked for."""
    assert call("view", "run.pt", "other.safetensors").code == 0
    values = content((files / "run.pt-other.safetensors.html").read_bytes())
    assert dict(zip(values["names"], values["status"])) == {"body.weight": "equal", "head.bias": "changed"}
    options = ["--root", "model", "--second-root", "ema", "--output", "changes.html"]
    assert call("view", "run.pt", "run.pt", *options).code == 0
    values = content((files / "changes.html").read_bytes())
    assert dict(zip(values["names"], values["status"])) == {"body.weight": "changed", "head.bias": "removed"}


def test_parts(call, files):
    """--root, --include and --exclude choose what is on the page; --headers reads no tensor."""
    assert call("view", "run.pt", "--root", "model", "--include", "body", "--headers", "-o", "a.html").code == 0
    values = content((files / "a.html").read_bytes())
    assert (values["names"], values["columns"][0]["stats"]) == (["body.weight"], [None])
    assert call("view", "run.pt", "--exclude", "body", "-o", "a.html").code == 0
    assert content((files / "a.html").read_bytes())["names"] == ["head.bias"]


def test_json(call, files):
    """--json says where the page is, of how many tensors, and how large."""
    told = json.loads(call("view", "run.pt", "--json").out)
    size = (files / "run.pt.html").stat().st_size
    assert told == {"schema": 1, "file": "run.pt.html", "tensors": 3, "bytes": size}


def test_standard_output_and_input(files):
    """`-` is standard output, where the page alone goes, and standard input, which may be a pipe."""
    command = [sys.executable, "-m", "statedict", "view", "-", "--output", "-"]
    done = subprocess.run(command, input=(files / "run.pt").read_bytes(), capture_output=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert content(done.stdout)["files"][0]["format"] == "torch"
    assert done.stderr.startswith(b"-: 3 tensors")


def test_another_file_is_not_replaced(call, files):
    """A page of ours is replaced; what else has that name is not, unless it was asked for by name."""
    assert call("view", "run.pt").code == 0
    assert call("view", "run.pt").code == 0
    (files / "run.pt.html").write_text("my notes")
    ended = call("view", "run.pt")
    assert (ended.code, (files / "run.pt.html").read_text()) == (2, "my notes")
    assert "not a page of this command" in " ".join(ended.err.replace("│", " ").split())
    assert call("view", "run.pt", "-o", "run.pt.html").code == 0


def test_open(call, files, monkeypatch):
    """--open shows the page in the user's browser, by its address on the disk."""
    program = files / "my browser"
    program.write_text(f'#!/bin/sh\necho "$1" > "{files}/opened"\n')
    program.chmod(program.stat().st_mode | stat.S_IEXEC)
    monkeypatch.setenv("BROWSER", f"'{program}' %s")
    shown = subprocess.run(
        [sys.executable, "-m", "statedict", "view", "run.pt", "--open"], capture_output=True, timeout=60, env=os.environ
    )
    assert shown.returncode == 0, shown.stderr
    assert (files / "opened").read_text() == (files / "run.pt.html").as_uri() + "\n"


def test_without_the_library(call, files, monkeypatch):
    """Where plotly is not installed, one line says what to install, and no page is written."""
    from statedict import report

    report.charting.cache_clear()
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    ended = call("view", "run.pt")
    assert (ended.code, ended.out) == (2, "")
    assert ended.err == "statedict: statedict view needs the package 'plotly': pip install 'statedict[view]'\n"
    assert not (files / "run.pt.html").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.pt"], "none.pt: No such file or directory"),
        (["run.pt", "--root", "optimizer"], "'model'"),
        (["run.pt", "other.safetensors", "--headers"], "cannot be used with two files"),
        (["run.pt", "--open", "-o", "-"], "cannot open a page"),
        (["-"], "an output file name is required"),
        (["run.pt", "--output", "no/such/place.html"], "No such file or directory"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_mistakes(call, files, arguments, said):
    """A mistake is told, exit code 2, and no page is written."""
    ended = call("view", *arguments)
    assert (ended.code, ended.out) == (2, "")
    assert said in " ".join(ended.err.replace("│", " ").split())
    assert not list(files.glob("*.html"))
