"""Folders of frameworks: pickles that would run code, parts that overlap, are missing, or contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..build import pickles as p
from ..build import shards
from ..build.torch_zips import as_torch_writes
from ._case import Case, Gives
from .proportion import laughs

WHOLE = {"w": [[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]]}
EVIL = as_torch_writes(p.pickled(p.dict_((p.text("iteration"), p.shell()))), {})
Files = dict[str, bytes | None]


def written(files: Callable[[], Files], folder: Path) -> Path:
    present = {name: raw for name, raw in files().items() if raw is not None}
    return shards.write_all(folder / "saved", present)


def changed(old: bytes, new: bytes) -> Files:
    """Megatron's folder with a run of bytes of its metadata replaced."""
    files = shards.megatron()
    assert old in files[".metadata"]
    return {**files, ".metadata": files[".metadata"].replace(old, new)}


def with_files(**raw: bytes | None) -> Files:
    return {**shards.megatron(), **raw}


def lightning() -> Files:
    return {**shards.distributed(), "meta.pt": EVIL}


def ranks() -> Files:
    return {"model_optim_rng.pt": EVIL, "distrib_optim.pt": as_torch_writes()}


def moved(file: str, start: int) -> Files:
    """The second row of the tensor at another place."""
    nbytes = len(as_torch_writes(p.pickled(p.tensor(size=(1, 4), stride=(4, 1))), {"0": shards.ROW}))
    return changed(shards.place("__1_0.distcp", 0, nbytes), shards.place(file, start, nbytes))


def _case(name: str, gives: Gives, what: str, files: Callable[[], Files]) -> Case:
    return Case(name, gives, what, partial(written, files), WHOLE, placed=True)


CASES = [
    _case("ok_megatron", "loads", "Megatron-core", shards.megatron),
    _case("folder_common", "unsafe", "common.pt runs a command", lambda: with_files(**{"common.pt": EVIL})),
    _case("folder_object", "unsafe", "the object of a rank runs a command", lambda: shards.megatron(rng=p.shell())),
    _case("folder_metadata", "unsafe", "the metadata runs a command",
          lambda: changed(p.text("version") + p.text("1.0.0"), p.text("version") + p.shell())),
    _case("folder_meta", "unsafe", "meta.pt runs a command", lightning),
    _case("folder_rank", "unsafe", "the file of a rank runs a command", ranks),
    _case("folder_shape", "error", "a flat tensor of another size", lambda: shards.megatron(p.integers((2, 5)))),
    _case("folder_shape_axes", "error", "a flat tensor of more dimensions", lambda: shards.megatron(p.integers((2, 2, 2)))),
    _case("folder_shape_huge", "error", "a flat tensor of 2**62 rows", lambda: shards.megatron(p.integers((2**62, 4)))),
    _case("folder_shape_laughs", "error", "a shape of tuples in tuples", lambda: shards.megatron(laughs())),
    _case("folder_shape_text", "error", "a shape that is text", lambda: shards.megatron(p.text("2, 4"))),
    _case("folder_part_lies", "error", "a part of another shape than the metadata says",
          lambda: changed(p.name("torch", "float32"), p.name("torch", "int32"))),
    _case("folder_overlap", "error", "two parts in the same bytes", lambda: moved("__0_0.distcp", 0)),
    _case("folder_missing", "error", "a missing file", lambda: with_files(**{"__1_0.distcp": None})),
    _case("folder_short", "error", "a file without its last byte",
          lambda: with_files(**{"__1_0.distcp": shards.megatron()["__1_0.distcp"][:-1]})),
    _case("folder_far", "error", "a part beyond the end of its file",
          lambda: moved("__1_0.distcp", 1 << 40)),
    _case("folder_outside", "error", "a file outside of the folder",
          lambda: changed(p.text("__1_0.distcp"), p.text("../x_0.distcp"))),
    _case("folder_twice", "error", "two objects of one name",
          lambda: changed(p.text(shards.MOMENT), p.text("rng_state/shard_0.0_1.1"))),
]  # fmt: skip
