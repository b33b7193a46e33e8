"""Maps are found by name, or by the path of their file."""

import pytest

from statedict import maps
from statedict.errors import MapError


def test_names_and_files(tmp_path):
    """A name of the package is read from it, a path from the disk."""
    assert "llama-hf" in maps.names()
    (tmp_path / "mine.toml").write_text('rules = ["a -> b"]')
    assert str(maps.load(tmp_path / "mine.toml")) == "a -> b"
    assert maps.read(tmp_path / "mine.toml").name.endswith("mine.toml")
    (tmp_path / "notepad.toml").write_text('rules = ["a -> b"]', encoding="utf-8-sig")
    assert str(maps.load(tmp_path / "notepad.toml")) == "a -> b"


@pytest.mark.parametrize("number", [0, -2, 2.5, "64", True])
def test_a_parameter_is_a_positive_integer(number):
    """Other numbers for a parameter are refused, before any rule is made of them."""
    with pytest.raises(MapError, match=f"llama-hf: head_dim must be a positive integer, not {number!r}"):
        maps.load("llama-hf", head_dim=number)


def test_an_unknown_name():
    """An unknown name is refused with the nearest one and with all of them; a file that is absent with its path."""
    with pytest.raises(
        MapError, match=r"lama-hf: there is no such map \(did you mean 'llama-hf'\?\); the maps are bert-hf, "
    ):
        maps.load("lama-hf")
    with pytest.raises(MapError, match=r"did you mean 'llama-hf'\?"):
        maps.load("LLAMA-HF")
    with pytest.raises(MapError, match=r"a file's name must end with \.toml"):
        maps.load("zzz")
    with pytest.raises(FileNotFoundError):
        maps.load("no-such.toml")


def test_a_file_that_is_not_text(tmp_path):
    """A file that is not UTF-8 is refused with the position."""
    (tmp_path / "x.toml").write_bytes(b"rules = ['\xff']")
    with pytest.raises(MapError, match="it is not UTF-8 text: byte 10"):
        maps.load(tmp_path / "x.toml")


def test_the_config_beside_a_checkpoint(tmp_path):
    """The config is that of the directory, or of the directory that the file is in; damaged ones are passed over."""
    assert maps.config_beside(str(tmp_path)) == (None, {})
    (tmp_path / "config.json").write_text("[")
    (tmp_path / "params.json").write_text('{"dim": 8}')
    for source in (tmp_path, tmp_path / "consolidated.00.pth"):
        assert maps.config_beside(str(source)) == (tmp_path / "params.json", {"dim": 8})
