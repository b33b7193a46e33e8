"""Find, read and load maps: those of the package by name, others by the path of their file."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

from statedict.errors import MapError

from ._map_file import MapFile, parse_map
from ._state_map import StateMap

_FOLDER = Path(__file__).parent


@cache
def names() -> tuple[str, ...]:
    """Return the names of the maps in the package, sorted.

    >>> "llama-hf" in names()
    True
    """
    return tuple(sorted(path.stem for path in _FOLDER.glob("*.toml")))


def read(name: str | Path) -> MapFile:
    """Read a map, by the name of one in the package or the path of a TOML file, without numbers for its parameters.

    Raises MapError for an unknown name, or with the line of the file that is not valid; OSError if it cannot be read.

    >>> read("llama-hf").parameters["head_dim"].config
    ('head_dim', 'hidden_size / num_attention_heads', 'dim / n_heads')
    """
    if name in names():
        return _read(_FOLDER / f"{name}.toml", str(name))
    path = Path(name)
    if not path.suffix and not path.exists():
        near = get_close_matches(str(name).lower(), names(), 1)
        hint = f"did you mean {near[0]!r}?" if near else "a file's name must end with .toml"
        raise MapError(str(name), None, f"there is no such map ({hint}); the maps are {', '.join(names())}")
    return _read(path, str(name))


def load(name: str | Path, *, config: Mapping[str, Any] | None = None, **parameters: int) -> StateMap:
    """Load a map, by the name of one in the package or the path of a TOML file.

    Args:
        name: such as `"llama-hf"` (see `names`), or a path.
        config: the model's configuration, from which parameters are taken that are not given.
        parameters: the numbers that the map needs, by name.

    Raises MapError if a parameter is missing, or as `read` does.

    >>> llama = load("llama-hf", config={"dim": 4096, "n_heads": 32})
    >>> llama.values
    {'head_dim': 128}
    >>> print(llama.rules[0])
    layers.{i}.attention.wq.weight -> model.layers.{i}.self_attn.q_proj.weight | deinterleave 0 128
    >>> llama.inverse("model.norm.weight")
    'norm.weight'
    """
    file = read(name)
    return StateMap(file, file.values(parameters, config or {}))


def _read(path: Path, name: str) -> MapFile:
    try:
        return parse_map(path.read_text(encoding="utf-8-sig"), name)
    except UnicodeDecodeError as error:
        raise MapError(name, None, f"it is not UTF-8 text: byte {error.start}") from None
