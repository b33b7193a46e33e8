"""statedict verify: sound files pass, damaged ones are named, and scripts can tell by the exit code."""

import json
import zipfile

import pytest
import torch

import statedict


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


OTHERS = {
    "model.gguf": (b"GGUF" + bytes(60), "this is a GGUF file of version 0, which is not supported"),
    "model.onnx": (b"\x08\x07\x12\x07pytorch\x1a\x052.1.0:\xff\x01" + bytes(60), "this is an ONNX model"),
    "other.zip": (None, "cannot be read"),
    "folder": ("", "this directory contains several checkpoints: a.pt, b.pt"),
    "model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(60), "this is an HDF5 file"),
    "readme.txt": (b"This is a text.\n", "cannot be read"),
    "config.json": (b'{"hidden_size": 4}', "cannot be read"),
    "random.bin": (bytes(range(200, 256)), "cannot be read"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_checkpoint_is_not_called_damaged(call, sound, name):
    """A file that cannot be opened, and is not known to be damaged, is reported as unreadable, with exit code 2."""
    content, text = OTHERS[name]
    path = sound.with_name(name)
    if content == "":
        path.mkdir()
        for inside in ("a.pt", "b.pt"):
            torch.save({"w": torch.ones(1)}, path / inside)
    elif content is None:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("readme.txt", "x")
    else:
        path.write_bytes(content)
    ended = call("verify", path)
    assert (ended.code, ended.out) == (2, "")
    assert ended.err.startswith(f"statedict: {path}: cannot be read: ")
    assert text in ended.err
    assert ended.err.count(str(path)) == 1


def _missing(folder):
    return folder / "missing"


def _empty(folder):
    return folder


def _empty_run(folder):
    (folder / ".lock").touch()
    return folder


def _without_manifests(folder):
    (folder / "step-0000000001").mkdir()
    return folder


def _unknown_part(folder):
    torch.save({"state": {}, "param_groups": []}, folder / "optimizer.pt")
    (folder / "scheduler.pt").write_bytes(b"GGUF" + bytes(60))
    return folder


UNREAD = {
    _missing: "No such file or directory",
    _empty: "this directory does not contain a checkpoint",
    _empty_run: "this run does not have a checkpoint yet",
    _without_manifests: "the manifest is missing",
    _unknown_part: "scheduler: cannot be read: ",
}


@pytest.mark.parametrize("make", UNREAD)
def test_what_cannot_be_read_is_not_called_damaged(call, tmp_path, make):
    """A folder without a checkpoint, or with a part of an unknown format, is unread: exit code 2, and JSON says so."""
    path = make(tmp_path)
    ended = call("verify", path)
    assert (ended.code, ended.out) == (2, "")
    assert UNREAD[make] in ended.err
    (told,) = json.loads(call("verify", path, "--json").out)["files"]
    assert (told["read"], told["sound"]) == (False, False)
    assert [found["level"] for found in told["findings"] if "cannot be read" in found["text"]] == ["unread"]


def test_a_limit_is_not_damage(call, tmp_path):
    """A file that exceeds the limits of reading is unread: exit code 2."""
    (tmp_path / "m.index.json").write_text('{"a": {"b": {"c": {"d": {"e": 1}}}}}')
    ended = call("verify", tmp_path / "m.index.json")
    assert (ended.code, ended.out) == (2, "")
    assert "JSON nested 5 deep exceeds the limit of 4" in ended.err


def test_a_damaged_part_counts_for_more(call, tmp_path):
    """A folder with a damaged part and one that cannot be read is not sound: exit code 1, and both are printed."""
    path = _unknown_part(tmp_path)
    torch.save({"w": torch.ones(1000)}, path / "pytorch_model.bin")
    (path / "pytorch_model.bin").write_bytes((path / "pytorch_model.bin").read_bytes()[:-100])
    ended = call("verify", path)
    assert (ended.code, ended.err) == (1, "")
    assert "  error: model: cannot be read: " in ended.out
    assert "  unread: scheduler: cannot be read: " in ended.out


def test_the_other_files_are_checked_all_the_same(call, sound):
    """One that cannot be read does not hide what is found in the others; damage counts for more."""
    missing, cut = sound.with_name("missing.pt"), sound.with_name("cut.pt")
    cut.write_bytes(sound.read_bytes()[:-100])
    ended = call("verify", missing, sound)
    assert (ended.code, ended.out) == (2, f"{sound}: sound\n")
    assert ended.err == f"statedict: {missing}: cannot be read: No such file or directory\n"
    ended = call("verify", missing, cut, sound, "--json")
    assert ended.code == 1
    told = {fact["file"]: (fact["read"], fact["sound"]) for fact in json.loads(ended.out)["files"]}
    assert told == {str(missing): (False, False), str(cut): (True, False), str(sound): (True, True)}


def test_a_missing_shard_is_named(call, tmp_path):
    """A set that lacks a shard is not sound."""
    statedict.save({"a": torch.ones(2), "b": torch.ones(2)}, tmp_path / "m.safetensors", max_shard_size=8)
    (tmp_path / "m-00002-of-00002.safetensors").unlink()
    ended = call("verify", tmp_path / "m.safetensors.index.json")
    assert ended.code == 1
    assert "error: m-00002-of-00002.safetensors: this shard is missing" in ended.out


def test_values(call, tmp_path):
    """--values finds NaN and infinities, which are a warning."""
    torch.save({"w": torch.tensor([1.0, float("nan"), float("inf")])}, tmp_path / "nan.pt")
    assert "warning" not in call("verify", tmp_path / "nan.pt").out
    ended = call("verify", "--values", tmp_path / "nan.pt")
    assert ended.code == 0
    assert "warning: w: 2 of its 3 elements are NaN or infinite" in ended.out
