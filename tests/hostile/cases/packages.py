"""Packages of torch.export whose description and members contradict each other, and unpacked archives."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..build import pickles as p
from ..build.packages import CONSTANTS, WEIGHTS, flat, package, tensor, unpacked
from ..build.torch_zips import torch_zip
from ..build.zips import FOUR
from ._case import Case, Gives, W

EVIL_PICKLE = p.state(w=p.tensor(), x=p.shell())
EVIL = torch_zip(EVIL_PICKLE)
SHELL = p.pickled(p.shell())
OBJECT = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True, "tensor_meta": None}


def weight(**entry: Any) -> Callable[[], bytes]:
    return lambda: package({"w": {**tensor(), **entry}})


def described(**meta: Any) -> Callable[[], bytes]:
    return lambda: package({"w": tensor(**meta)})


def deep() -> bytes:
    return package(
        b'{"config":{"w":{"tensor_meta":{"sizes":[' + b'{"as_expr":' * 5_000 + b"4" + b"}" * 5_000 + b"]}}}}"
    )


def twice() -> bytes:
    one = json.dumps(tensor()).encode()
    return package(b'{"config":{"w":' + one + b',"w":' + one + b"}}")


def many_views() -> bytes:
    """One small storage, and names for many large views of it."""
    view = tensor(sizes=[{"as_int": 1 << 40}], strides=[{"as_int": 0}])
    return package({f"w{n}": view for n in range(500)})


def compiled(entry: Any) -> Callable[[], bytes]:
    """A package with the weight "w" of a compiled model, which is a view of a tensor in a file of torch.save."""
    more = {
        WEIGHTS: None,
        CONSTANTS: None,
        "models/model.json": None,
        "data/aotinductor/model/weights_config.json": json.dumps({"w": entry}).encode(),
        "data/weights/weight_1": torch_zip(p.pickled(p.tensor())),
    }
    return lambda: package(more=more)


def itself() -> bytes:
    """A payload that is a package."""
    return package({"w": tensor("weight_1", use_pickle=True)}, more={"data/weights/weight_1": package()})


def loop(folder: Path) -> Path:
    inside = unpacked(folder)
    for name in ("a", "b"):
        (inside / "archive" / name).symlink_to("..")
    return inside


def linked(target: str) -> Callable[[Path], Path]:
    """An unpacked archive whose storage is a link."""

    def build(folder: Path) -> Path:
        inside = unpacked(folder, **{"data/0": None})
        (inside / "archive" / "data" / "0").symlink_to(target)
        return inside

    return build


def changed(**changes: bytes | None) -> Callable[[Path], Path]:
    return lambda folder: unpacked(folder, **changes)


def _case(name: str, what: str, build: object, gives: Gives = "error", values: object = None) -> Case:
    return Case(f"pt2_{name}", gives, what, build, values)


def _folder(name: str, what: str, build: object, gives: Gives = "error", values: object = None) -> Case:
    return Case(f"unpacked_{name}", gives, what, build, values, placed=True)


CASES = [
    _case("ok", "a package", package, "loads", W),
    _case("flat_ok", "a package before 2.8", flat, "loads", W),
    _case("compiled_ok", "weights of a compiled model", compiled(["weight_1", [2], [2], 1]), "loads", {"w": [2, 4]}),
    _case("rce_object", "an object beside the tensors",
          lambda: package(constants={"x": OBJECT}, more={"data/constants/opaque_obj_0": SHELL}), "unsafe"),
    _case("rce_weight", "a weight that is a pickle",
          lambda: package({"w": tensor("weight_1", use_pickle=True)}, more={"data/weights/weight_1": EVIL}), "unsafe"),
    _case("rce_inputs", "example inputs", lambda: package(more={"data/sample_inputs/model.pt": EVIL}), "unsafe"),
    _case("rce_flat", "the state dict of an old package", lambda: flat(EVIL), "unsafe"),
    _case("rce_both", "torch.load reads another member", lambda: package(more={"data.pkl": SHELL}), "unsafe"),
    _case("size_large", "more elements than bytes", described(sizes=[{"as_int": 5}])),
    _case("size_huge", "a size beyond 64 bits", described(sizes=[{"as_int": 1 << 70}])),
    _case("size_negative", "a negative size", described(sizes=[{"as_int": -4}])),
    _case("size_text", "a size as text", described(sizes=[{"as_int": "4"}])),
    _case("size_bool", "a size that is true", described(sizes=[{"as_int": True}])),
    _case("size_symbol", "a size without a value", described(sizes=[{"as_expr": {"expr_str": "__import__('os')"}}])),
    _case("sizes_product", "sizes whose product overflows", described(sizes=[{"as_int": 1 << 40}] * 3)),
    _case("dimensions", "100,000 dimensions", described(sizes=[{"as_int": 1}] * 100_000, strides=[{"as_int": 1}] * 100_000)),
    _case("stride_large", "a stride out of the storage", described(strides=[{"as_int": 1 << 40}])),
    _case("stride_negative", "a negative stride", described(strides=[{"as_int": -1}])),
    _case("strides_few", "fewer strides than sizes", described(strides=[])),
    _case("offset_large", "an offset out of the storage", described(storage_offset={"as_int": 1 << 62})),
    _case("offset_negative", "a negative offset", described(storage_offset={"as_int": -4})),
    _case("dtype_unknown", "a dtype that does not exist", described(dtype=14)),
    _case("layout_sparse", "a sparse layout", described(layout=1)),
    _case("device_odd", "a device of any text", described(device={"type": "../x", "index": -1}), "loads", W),
    _case("path_outside", "a member outside", weight(path_name="../../../etc/passwd")),
    _case("path_other", "the name of another member", weight(path_name="model_weights_config.json")),
    _case("member_missing", "a member that does not exist", weight(path_name="weight_7")),
    _case("member_is_package", "a package in a package", itself),
    _case("member_short", "fewer bytes than elements", lambda: package(more={"data/weights/weight_0": FOUR[:15]})),
    _case("member_damaged", "damaged bytes",
          lambda: package(lies={"data/weights/weight_0": {"both": {"crc": 1}}}), "detected"),
    _case("json_deep", "5,000 levels", deep),
    _case("json_twice", "a name twice", twice),
    _case("json_invalid", "not JSON", lambda: package(b"{'config': {}}")),
    _case("json_list", "a list", lambda: package(b"[]")),
    _case("json_no_config", "no configuration in it", lambda: package(b"{}")),
    _case("views_huge", "500 views of a terabyte of one storage", many_views, "either"),
    _case("compiled_large", "a view larger than the tensor", compiled(["weight_1", [5], [1], 0])),
    _case("compiled_missing", "a tensor that is not there", compiled(["weight_2", [4], [1], 0])),
    _case("compiled_odd", "an entry that is not a list", compiled("weight_1")),
    _case("compiled_not_torch", "a member of another format", compiled(["weight_0", [4], [1], 0])),
    _folder("ok", "an unpacked archive", unpacked, "loads", W),
    _folder("rce", "its pickle runs code", changed(**{"data.pkl": EVIL_PICKLE}), "unsafe"),
    _folder("missing", "a storage is missing", changed(**{"data/0": None})),
    _folder("short", "a storage is too short", changed(**{"data/0": FOUR[:15]})),
    _folder("empty", "a storage is empty", changed(**{"data/0": b""})),
    _folder("long", "a storage is longer", changed(**{"data/0": FOUR * 2}), "loads", W),
    _folder("no_facts", "nothing but the pickle and the storage", changed(version=None, byteorder=None), "loads", W),
    _folder("byteorder", "an unknown byte order", changed(byteorder=b"middle")),
    _folder("version", "an unknown version", changed(version=b"99")),
    _folder("case", "names that differ only in case", changed(**{"DATA.PKL": EVIL_PICKLE}), "either", W),
    _folder("loop", "folders that contain themselves", loop, "either", W),
    _folder("device", "a link to a device", linked("/dev/zero")),
    _folder("dangling", "a link to nothing", linked("nothing")),
]  # fmt: skip
