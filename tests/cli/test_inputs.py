"""What a command reads is not lost, and patterns that match nothing are told."""

import os
import subprocess
import sys

import numpy as np
import pytest

import statedict

SCRIPT = "import sys; sys.modules['torch'] = None; from statedict.cli import main; main(sys.argv[1:])"


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A training checkpoint, a plain one, an index of shards, and other names for them."""
    monkeypatch.chdir(tmp_path)
    state = {"encoder.weight": np.ones((2, 2), np.float32), "head.bias": np.zeros(2, np.float32)}
    statedict.save({"model": statedict.StateDict(state), "epoch": 3}, "run.pt")
    statedict.save(statedict.StateDict(state), "plain.pt")
    statedict.save(statedict.StateDict(state), "parts.safetensors", max_shard_size="16")
    os.symlink("run.pt", "link.pt")
    os.link("run.pt", "hard.pt")
    (tmp_path / "map.toml").write_text('rules = ["a -> b"]\n')
    return tmp_path


SHARD = "parts-00001-of-00002.safetensors"
LOSSES = [
    ["view", "run.pt", "-o", "run.pt"],
    ["view", "run.pt", "-o", "link.pt"],
    ["view", "link.pt", "-o", "hard.pt"],
    ["view", "run.pt", "-o", "./run.pt"],
    ["view", "plain.pt", "run.pt", "-o", "run.pt"],
    ["view", "parts.safetensors.index.json", "-o", SHARD],
    ["merge", "plain.pt", "run.pt", "-o", "hard.pt"],
    ["merge", "plain.pt", "plain.pt", "-o", "run.pt", "--method", "task_arithmetic", "--base", "link.pt"],
    ["match", "run.pt", "--keys", "plain.pt", "--infer", "--save-map", "link.pt"],
    ["match", "run.pt", "--keys", "plain.pt", "--infer", "--save-map", "plain.pt"],
    ["convert", "plain.pt", "map.toml", "--map", "map.toml"],
    ["convert", "run.pt", "run.pt"],
    ["convert", "run.pt", "link.pt"],
    ["convert", "hard.pt", "run.pt", "--root", "model"],
    ["convert", "plain.pt", "plain.pt", "--exclude", "head"],
    ["convert", "plain.pt", "plain.pt", "--include", "head"],
    ["convert", "parts.safetensors.index.json", SHARD],
]


@pytest.mark.parametrize("arguments", LOSSES, ids=" ".join)
def test_an_input_is_not_written_over(call, run, arguments):
    """Whatever name it goes by, a file that is read is not replaced by what would lose some of it."""
    before = {path.name: path.read_bytes() for path in run.iterdir()}
    ended = call(*arguments)
    assert (ended.code, ended.out) == (2, "")
    assert "lost; choose another file" in " ".join(ended.err.replace("│", " ").split())
    assert {path.name: path.read_bytes() for path in run.iterdir()} == before


def test_what_standard_input_is_read_from_is_an_input(run):
    """A redirected file is known for what it is."""
    with open("run.pt", "rb") as given:
        done = subprocess.run(
            [sys.executable, "-c", SCRIPT, "view", "-", "-o", "run.pt"], stdin=given, capture_output=True
        )
    assert done.returncode == 2
    assert list(statedict.open("run.pt").roots) == ["model"]


@pytest.mark.only_on("linux", "macos")
def test_a_whole_file_is_converted_in_place(call, run):
    """Where nothing is left behind, a file may be replaced by what it becomes."""
    assert call("convert", "plain.pt", "plain.pt", "--dtype", "float16").code == 0
    with statedict.open("plain.pt") as checkpoint:
        assert {spec.dtype.name for _, spec in ((n, leaf.spec) for n, leaf in checkpoint.state_dict().leaves())} == {
            "float16"
        }
    assert call("convert", "run.pt", "run.pt", "--root", "*").code == 0
    assert statedict.load("run.pt", backend="numpy")["epoch"] == 3


@pytest.mark.only_on("windows")
def test_a_file_that_must_be_closed_is_not_converted_in_place(call, run):
    """Where an open file cannot be replaced, that is said before anything is written."""
    before = (run / "plain.pt").read_bytes()
    ended = call("convert", "plain.pt", "plain.pt", "--dtype", "float16")
    assert ended.code == 2
    assert "cannot be replaced while it is open; choose another file" in " ".join(ended.err.replace("│", " ").split())
    assert (run / "plain.pt").read_bytes() == before


IDLE = [
    ["convert", "plain.pt", "out.pt", "--exclude", "hed"],
    ["convert", "plain.pt", "out.pt", "--include", "head", "--include", "hed"],
    ["convert", "plain.pt", "out.pt", "--dtype", "hed=float16"],
    ["inspect", "plain.pt", "--match", "hed"],
    ["diff", "plain.pt", "plain.pt", "--exclude", "hed"],
    ["view", "plain.pt", "-o", "page.html", "--exclude", "hed"],
]


@pytest.mark.parametrize("arguments", IDLE, ids=" ".join)
def test_a_pattern_that_matches_nothing_is_told(call, run, arguments):
    """A pattern without a match is reported on standard error with the nearest name; the command goes on."""
    ended = call(*arguments)
    assert ended.code == 0
    assert ended.err == "statedict: the pattern 'hed' does not match any name; the nearest is 'head.bias'\n"


@pytest.mark.parametrize("arguments", [["diff", "plain.pt", "plain.pt"], ["verify", "plain.pt"], ["convert", "--help"]])
def test_a_closed_pipe_is_not_an_answer(run, arguments):
    """Exit code 1 says that files differ, or are damaged: a reader that is gone says neither."""
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(60) == 141
    process.stderr.close()
