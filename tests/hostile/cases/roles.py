"""Folders and archives of several files: one that would run code, or lies, is left out or refused; the others load."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ..build import pickles as p
from ..build.shards import distributed, write_all
from ..build.tensors import entry, safetensors
from ..build.torch_zips import torch_zip
from ..build.zips import FOUR, Member, archive, deflated
from ._case import Case

EVIL = torch_zip(p.state(w=p.tensor(), x=p.shell()))
WEIGHTS = safetensors({"w": entry()}, FOUR)
GOOD = torch_zip()
OTHER = torch_zip(p.pickled(p.dict_((p.text("last_epoch"), p.integer(3)))))
LARGE = torch_zip(storages={"0": FOUR + bytes(8 << 20)})


def folder(**files: bytes) -> Callable[[Path], Path]:
    """A folder with the weights and further files; `__` in a name is a dot."""
    return lambda place: write_all(
        place / "f", {"model.safetensors": WEIGHTS, **{name.replace("__", "."): raw for name, raw in files.items()}}
    )


def special(make: Callable[[Path], None]) -> Callable[[Path], Path]:
    """A folder with the weights, and an optimizer.pt that is not a regular file."""

    def build(place: Path) -> Path:
        made = folder()(place)
        make(made / "optimizer.pt")
        return made

    return build


def link(path: Path) -> None:
    path.symlink_to("/dev/zero")


def pipeline(index: bytes) -> Callable[[Path], Path]:
    """A pipeline of one model, with that index."""

    def build(place: Path) -> Path:
        made = write_all(place / "f", {"model_index.json": index})
        write_all(made / "unet", {"model.safetensors": WEIGHTS})
        return made

    return build


def both(place: Path) -> Path:
    """A torch.distributed.checkpoint and an optimizer.pt that has an entry of its name."""
    return write_all(place / "f", {**distributed(), "model_1.safetensors": WEIGHTS, "optimizer.pt": GOOD})


def sb3(*more: Member, data: bytes = b"{}") -> bytes:
    return archive(Member(b"data", data), Member(b"_stable_baselines3_version", b"2.9.2"), *more)


def mar(**lies: object) -> bytes:
    member = Member(b"model.pt", LARGE, raw=deflated(LARGE), both={"method": 8, **lies})
    return archive(Member(b"MAR-INF/MANIFEST.json", b"{}"), member)


def nemo(name: str, size: int, raw: bytes = GOOD) -> bytes:
    """A tar whose header gives the weights `size` bytes, `len(raw)` of which are there."""
    out = io.BytesIO()
    member = tarfile.TarInfo(name)
    member.size = size
    out.write(member.tobuf(tarfile.USTAR_FORMAT))
    out.write(raw + bytes(-len(raw) % 512) + bytes(1024))
    return out.getvalue() + bytes(-out.tell() % 10240)


_case = partial(Case, placed=True)
DEEP = b"[" * 100_000
SERIALIZED = json.dumps(
    {"policy_class": {":serialized:": "gASVHwAAAAAAAACMBXBvc2l4lIwGc3lzdGVtlJOUjAV0b3VjaJSFlFKULg=="}}
)
INDEX = {"unet": ["diffusers", "UNet"], "../../etc": ["diffusers", "X"], "/": ["diffusers", "X"], "vae": ["a", "b"]}
# fmt: off
CASES = [
    _case("ok_roles", "loads", "weights beside an optimizer", folder(optimizer__pt=GOOD, scheduler__pt=OTHER)),
    _case("roles_optimizer_runs", "loads", "an optimizer that runs code", folder(optimizer__pt=EVIL)),
    _case("roles_random_runs", "loads", "random states that run code", folder(random_states_0__pkl=p.pickled(p.shell()))),
    _case("roles_arguments_run", "loads", "arguments of a trainer, which are not read",
          folder(optimizer__pt=GOOD, training_args__bin=EVIL)),
    _case("roles_model_runs", "loads", "a model that runs code", lambda place: write_all(
        place / "f", {"model.pt": EVIL, "optimizer.pt": GOOD}), {}),
    _case("roles_all_run", "error", "each file runs code", lambda place: write_all(
        place / "f", {"model.pt": EVIL, "optimizer.pt": EVIL})),
    _case("roles_optimizer_endless", "loads", "an optimizer that is a link to /dev/zero", special(link)),
    _case("roles_optimizer_fifo", "loads", "an optimizer that is a FIFO", special(os.mkfifo)),
    _case("roles_values_deep", "error", "the state of a trainer, 100,000 deep",
          folder(optimizer__pt=GOOD, trainer_state__json=DEEP)),
    _case("roles_values_twice", "loads", "a key twice", folder(optimizer__pt=GOOD, trainer_state__json=b'{"a":1,"a":2}')),
    _case("roles_number_huge", "loads", "high ranks", folder(**{f"rng_state_{10**n}__pth": OTHER for n in range(12)})),
    _case("roles_beside_distributed", "either", "two sources of a model", both, None),
    _case("pipeline_names", "loads", "an index that names other folders", pipeline(json.dumps(INDEX).encode()), {}),
    _case("pipeline_deep", "error", "an index, 100,000 deep", pipeline(DEEP)),
    _case("pipeline_list", "loads", "an index that is a list", pipeline(b"[]")),
    Case("sb3_policy_runs", "loads", "a policy that runs code",
         lambda: sb3(Member(b"policy.pth", EVIL), Member(b"a.optimizer.pth", GOOD)), {}),
    Case("sb3_data_runs", "loads", "pickled values in data",
         lambda: sb3(Member(b"policy.pth", GOOD), data=SERIALIZED.encode())),
    Case("sb3_data_deep", "error", "values, 100,000 deep", lambda: sb3(Member(b"policy.pth", GOOD), data=DEEP)),
    Case("sb3_version_long", "loads", "a version of a megabyte", lambda: archive(
        Member(b"policy.pth", GOOD), Member(b"_stable_baselines3_version", b"9" * 1_000_000))),
    Case("mar_compressed", "error", "weights that are 8 MB of zeros", mar),
    Case("mar_size_lies", "error", "weights of another size", lambda: mar(usize=100)),
    Case("nemo_longer_than_file", "error", "weights that end after the file", lambda: nemo("model_weights.ckpt", 1 << 32)),
    Case("nemo_runs", "unsafe", "weights that run code", lambda: nemo("./model_weights.ckpt", len(EVIL), EVIL)),
    Case("nemo_outside", "error", "a name outside of the archive", lambda: nemo("../../w.ckpt", len(GOOD))),
]
# fmt: on
