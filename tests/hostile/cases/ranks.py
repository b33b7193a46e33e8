"""Directories of torch_checkpointing whose metadata and files contradict each other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..build import pickles as p
from ..build.ranks import directory, entry
from ..build.torch_zips import torch_zip
from ._case import Case, Gives

WHOLE = {"w": [1.0, 2.0, 3.0, 4.0] * 2}
HUGE = 1 << 62


def data(**fields: Any) -> Callable[[Path], Path]:
    """A directory with other facts about the tensor."""
    return edited(lambda item: _group(item)["sharding_metadata"]["data"].update(fields))


def mesh(**fields: Any) -> Callable[[Path], Path]:
    return edited(lambda item: _group(item)["sharding_metadata"]["data"]["mesh_spec"].update(fields))


def edited(edit: Callable[[dict[str, Any]], object]) -> Callable[[Path], Path]:
    return lambda folder: directory(folder, edit)


def files(**changes: bytes | None) -> Callable[[Path], Path]:
    """A directory with other files (`model_1` is `model_1.pt`)."""
    return lambda folder: directory(folder, changes={f"{name}.pt": raw for name, raw in changes.items()})


def layout(path: object) -> Callable[[Path], Path]:
    return edited(lambda item: item["rank_to_layout_info"].update({1: {"file_path": path}}))


def listed(*rows: tuple[int, int, int]) -> Callable[[Path], Path]:
    """A directory in which each rank lists its boxes, as (global offset, local offset, size)."""

    def edit(item: dict[str, Any]) -> None:
        groups = []
        for rank, (whole, local, size) in enumerate(rows):
            boxes = {"global_offsets": ((whole,),), "local_offsets": ((local,),), "local_sizes": ((size,),)}
            facts = {"global_shape": (8,), "dtype": "torch.float32", **boxes}
            groups.append({"sharding_metadata": {"type": "default_tensor_v1", "data": facts}, "ranks": (rank,)})
        item["nested_path_to_metadata"]['["w"]'] = groups

    return edited(edit)


def paths(text: str) -> Callable[[Path], Path]:
    return edited(lambda item: item["nested_path_to_metadata"].update({text: [entry()]}))


def _group(item: dict[str, Any]) -> Any:
    return item["nested_path_to_metadata"]['["w"]'][0]


def _evil(folder: Path) -> Path:
    made = directory(folder)
    raw = (made / "metadata.pkl").read_bytes()
    (made / "metadata.pkl").write_bytes(raw[:2] + p.shell() + p.POP + raw[2:])
    return made


def _case(name: str, what: str, build: object, gives: Gives = "error", values: object = None) -> Case:
    return Case(f"ranks_{name}", gives, what, build, values, placed=True)


CASES = [
    _case("ok", "two ranks", directory, "loads", WHOLE),
    _case("listed_ok", "ranks that list their boxes", listed((0, 0, 4), (4, 0, 4)), "loads", WHOLE),
    _case("rce_metadata", "the metadata runs code", _evil, "unsafe"),
    _case("rce_rank", "the file of a rank runs code",
          files(model_1=torch_zip(p.state(w=p.tensor(), x=p.shell()))), "unsafe"),
    _case("rank_shape", "a part of another shape", files(model_1=torch_zip(p.state(w=p.tensor(size=(3,)))))),
    _case("rank_dtype", "a part of another dtype",
          files(model_1=torch_zip(p.state(w=p.tensor(p.storage(numel=2, kind="DoubleStorage"), size=(2,)))))),
    _case("rank_name", "a part of another name", files(model_1=torch_zip(p.state(v=p.tensor())))),
    _case("rank_damaged", "damaged bytes of a part",
          files(model_1=torch_zip(lies={"data/0": {"both": {"crc": 1}}})), "detected"),
    _case("shape_large", "a whole that is larger than its parts", data(global_shape=[9])),
    _case("parts_missing", "no rank has a file", files(model_0=None, model_1=None)),
    _case("shape_huge", "a whole of 2**62 elements", data(global_shape=[HUGE])),
    _case("shape_impossible", "a shape that no array has", data(global_shape=[0, HUGE, HUGE])),
    _case("shape_negative", "a negative size", data(global_shape=[-8])),
    _case("shape_text", "a shape as text", data(global_shape="8")),
    _case("shape_long", "100,000 dimensions", data(global_shape=[1] * 100_000)),
    _case("placements_none", "no placements", data(placements=[])),
    _case("placement_partial", "a placement without parts", data(placements=[{"type": "Partial"}])),
    _case("placement_axis", "an axis that does not exist", data(placements=[{"type": "Shard", "dim": 1}])),
    _case("placement_factor", "2**62 chunks",
          data(placements=[{"type": "StridedShard", "dim": 0, "split_factor": HUGE}])),
    _case("mesh_twice", "a rank twice", mesh(mesh_data=(0, 0))),
    _case("mesh_swapped", "ranks in the other order", mesh(mesh_data=(1, 0)), "loads", WHOLE),
    _case("mesh_huge", "a mesh of 2**124 ranks", mesh(mesh_shape=(HUGE, HUGE))),
    _case("mesh_long", "a mesh of 100,000 dimensions", mesh(mesh_shape=(1,) * 100_000)),
    _case("mesh_foreign", "a mesh of other ranks", mesh(mesh_data=(2, 3))),
    _case("overlap", "parts that overlap", listed((0, 0, 4), (3, 0, 4))),
    _case("beyond", "a part beyond the whole", listed((0, 0, 4), (6, 0, 4))),
    _case("beyond_local", "a part beyond the local tensor", listed((0, 0, 4), (4, 1, 4))),
    _case("path_parent", "a file above the folder", layout("../model_1.pt")),
    _case("path_absolute", "a file anywhere", layout("/etc/passwd")),
    _case("path_same", "one file for two ranks", layout("model_0.pt")),
    _case("path_list", "a path that is not text", layout([])),
    _case("name_json", "the path of a tensor is not JSON", paths("[")),
    _case("name_deep", "the path of a tensor is nested 2,000 deep", paths("[" * 2000 + "]" * 2000)),
    _case("name_missing", "a tensor that no file contains", paths('["other"]')),
    _case("name_number", "a path through a tensor", paths('["w",0]')),
    _case("name_empty", "an empty path", paths("[]")),
    _case("type_unknown", "an unknown kind of description",
          edited(lambda item: _group(item)["sharding_metadata"].update(type="os.system"))),
    _case("groups_odd", "groups that are not a list",
          edited(lambda item: item["nested_path_to_metadata"].update({'["w"]': 7}))),
    _case("ranks_odd", "ranks that are not numbers", edited(lambda item: _group(item).update(ranks=("0", None)))),
    _case("ranks_negative", "a negative rank", edited(lambda item: _group(item).update(ranks=(-1, 0)))),
    _case("version", "another version", lambda folder: directory(folder, version="9")),
    _case("empty", "metadata that is empty", lambda folder: directory(folder, changes={"metadata.pkl": b""})),
]  # fmt: skip
