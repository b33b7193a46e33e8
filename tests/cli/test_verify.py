"""statedict verify: sound files pass, damaged ones are named, and scripts can tell by the exit code."""

import json

import pytest
import torch


@pytest.fixture
def sound(tmp_path):
    path = tmp_path / "sound.pt"
    torch.save({"w": torch.arange(1000.0)}, path)
    return path


def test_a_sound_file(call, sound):
    """A whole file is sound, exit code 0."""
    ended = call("verify", sound)
    assert (ended.code, ended.err) == (0, "")
    assert ended.out.startswith(f"{sound}: sound\n")


def test_a_flipped_bit(call, sound):
    """One changed bit of a tensor is found, and the other files are looked at all the same."""
    damaged = sound.with_name("damaged.pt")
    raw = bytearray(sound.read_bytes())
    raw[raw.index(torch.arange(1000.0).numpy().tobytes()) + 2000] ^= 1
    damaged.write_bytes(raw)
    ended = call("verify", damaged, sound, "--json")
    assert ended.code == 1
    told = json.loads(ended.out)["files"]
    assert [(fact["file"], fact["sound"]) for fact in told] == [(str(damaged), False), (str(sound), True)]
    assert told[0]["findings"][0]["level"] == "error"
    assert "NOT SOUND" in call("verify", damaged).out


def test_a_file_cut_short(call, sound):
    """A truncated file is an answer, not a mistake in the call: exit code 1."""
    sound.write_bytes(sound.read_bytes()[:-100])
    ended = call("verify", sound)
    assert (ended.code, ended.err) == (1, "")
    assert "NOT SOUND\n  error: " in ended.out


def test_a_missing_file(call, tmp_path):
    """A file that is not there is a mistake in the call: exit code 2."""
    assert call("verify", tmp_path / "nothing.pt").code == 2


def test_values(call, tmp_path):
    """--values finds NaN and infinities, which are a warning."""
    torch.save({"w": torch.tensor([1.0, float("nan"), float("inf")])}, tmp_path / "nan.pt")
    assert "warning" not in call("verify", tmp_path / "nan.pt").out
    ended = call("verify", "--values", tmp_path / "nan.pt")
    assert ended.code == 0
    assert "warning: w: 2 of its 3 elements are NaN or infinite" in ended.out
