"""What is fuzzed: for each parser its seeds, how to read an input, and how to make another of it.

Changes know the format: checksums, lengths and offsets are made right again afterwards, so that inputs get past the
first check.
"""

from __future__ import annotations

import io
import json
import pickletools
import struct
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

from tests.hostile.build import gguf, npz, packages, pickles, ranks, runs, scripts, shards, streams, tensors, torch_zips
from tests.hostile.build.zips import DEFLATED, Member, archive
from tests.hostile.cases.table import GROUPS
from tests.hostile.reading import read_all

from statedict import load
from statedict.errors import PartError, StateDictError

from . import cycle, paths, records
from .calls import some_call
from .mutate import WIDE_EDGES, changed, changed_json, changed_pickle, opcodes

Change = Callable[[bytes, Random], bytes]


class Target(NamedTuple):
    """A parser. `seeds` must read; `grown` are further inputs to begin from, right or wrong."""

    name: str
    seeds: Sequence[bytes]
    read: Callable[[bytes], object]
    change: Change
    grown: Sequence[bytes] = ()

    def mutant(self, random: Random) -> bytes:
        """A new input: one of the seeds, changed once or twice; now and then blindly."""
        raw = random.choice(self.seeds if not self.grown or random.random() < 0.6 else self.grown)
        for _ in range(random.choice((1, 1, 2))):
            raw = changed(raw, random, self.seeds) if random.random() < 0.2 else self.change(raw, random)
        return raw


def from_memory(raw: bytes) -> object:
    return read_all(io.BytesIO(raw))


@cache
def _folder(target: str) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix=f"statedict-fuzz-{target}-")


def from_folder(target: str, files: Mapping[str, bytes], name: str, *, whole: bool) -> Callable[[bytes], object]:
    """A reader of inputs that stand for one file among `files`; it opens that file, or the `whole` folder."""

    def read(raw: bytes) -> object:
        folder = Path(_folder(target).name)
        if not (folder / name).exists():
            shards.write_all(folder, files)
        (folder / name).write_bytes(raw)
        return read_all(folder if whole else folder / name)

    return read


def in_package(raw: bytes) -> object:
    """Read the configuration of a package of torch.export."""
    return from_memory(packages.package(raw))


def of_ranks(raw: bytes) -> object:
    """Read the metadata of a folder of two ranks. What it says may leave gaps, which reading a tensor tells."""
    try:
        return from_folder("ranks", ranks.files(), "metadata.pkl", whole=True)(raw)
    except PartError:
        return None


# zip: lies in headers, around the members of a torch zip


def members(raw: bytes) -> list[Member]:
    """The members of an archive as zipfile reads them; raises what it raises."""
    with zipfile.ZipFile(io.BytesIO(raw)) as opened:
        return [
            Member(info.filename.encode(), opened.read(info), info.compress_type, descriptor=bool(info.flag_bits & 8))
            for info in opened.infolist()
        ]


def _lie(random: Random) -> dict[str, object]:
    number = random.choice(WIDE_EDGES) % 2**32
    field, value = random.choice(
        [(name, number) for name in ("crc", "csize", "usize")]
        + [("flags", number % 2**16), ("method", random.choice((0, 8, 9, 14, 99))), ("xlen", number % 2**16)]
        + [("name", random.choice((b"", b"/x", b"..", b"archive/data.pkl", b"\xff", b"a" * 70)))]
        + [("extra", random.choice((torch_zips.zip64_extra(number, number), b"FB\2\0ZZ", b"\1\0\xff\0", b"x")))]
    )
    return {random.choice(("both", "local", "central")): {field: value}}


def change_zip(raw: bytes, random: Random) -> bytes:
    try:
        parts = members(raw)
    except Exception:
        return changed(raw, random)
    at = random.randrange(len(parts) or 1)
    if random.random() < 0.7:
        parts[at : at + 1] = [replace(part, **_lie(random)) for part in parts[at : at + 1]]
    if random.random() < 0.3 and parts:
        parts.insert(at, random.choice(parts))
    end = {random.choice(("count", "size", "offset", "disk", "comment")): random.choice(WIDE_EDGES) % 2**16}
    return _packed(parts, random, **(end if random.random() < 0.2 else {}))


def _packed(parts: Sequence[Member], random: Random, **end: int) -> bytes:
    return archive(*parts, align=random.choice((0, 0, 64)), zip64=random.random() < 0.5, **end)


# pickle: the opcodes of a data.pkl


def in_torch_zip(pickle: bytes) -> object:
    return from_memory(torch_zips.torch_zip(pickle, {str(n): torch_zips.FOUR * 4 for n in range(3)}))


@cache
def opcode_pool() -> list[bytes]:
    """Opcodes with arguments from every pickle of the hostile cases, and one of each kind."""
    found = {bytes([code]) for code in range(256)}
    found |= {pickles.integer(n) for n in (*WIDE_EDGES, -1, -(2**63))} | {
        pickles.tensor(),
        pickles.storage(),
        b")",
        b"]",
    }
    for group in ("control", "execution", "bounds"):
        for case in GROUPS[group]:
            found |= set() if case.placed else set(_opcodes_inside(case.build()))
    return sorted(part for part in found if len(part) < 400)


def _opcodes_inside(raw: bytes) -> Iterator[bytes]:
    try:
        parts = [part.data for part in members(raw) if part.name.endswith(b".pkl")]
    except Exception:
        parts = []
    for pickle in parts:
        try:
            yield from opcodes(pickle)
        except Exception:
            continue


def used(pickle: bytes) -> None:
    """Read a pickle in a torch zip, and then make live values of it: FormatErrors apart, the first must not fail, the second
    may raise any error of this library."""
    content = {str(n): torch_zips.FOUR * 4 for n in range(3)}
    raw = torch_zips.torch_zip(pickle, content)
    read_all(io.BytesIO(raw))
    for backend in ("numpy", "torch"):
        with suppress(StateDictError):
            load(io.BytesIO(raw), backend=backend)


def change_call(raw: bytes, random: Random) -> bytes:
    return some_call(random) if random.random() < 0.8 else change_pickle(raw, random)


def change_pickle(raw: bytes, random: Random) -> bytes:
    return changed_pickle(raw, random, opcode_pool())


# paths: pickles of many tensors, by the quick ways and the plain one


def change_paths(raw: bytes, random: Random) -> bytes:
    return records.generated(random) if random.random() < 0.7 else change_pickle(raw, random)


# torch zips and TorchScript: the content of one member, sound in its archive


def change_members(raw: bytes, random: Random) -> bytes:
    try:
        parts = members(raw)
    except Exception:
        return changed(raw, random)
    at = random.randrange(len(parts) or 1)
    for part in parts[at : at + 1]:
        parts[at] = Member(
            part.name, _content(part, random), random.choice((0, 0, DEFLATED)), descriptor=part.descriptor
        )
    if random.random() < 0.1 and parts:
        del parts[random.randrange(len(parts))]
    return _packed(parts, random)


def _content(part: Member, random: Random) -> bytes:
    change = change_pickle if part.name.endswith(b".pkl") else changed
    return change(part.data, random)


# legacy: one pickle of the stream, or the storages after them


def change_legacy(raw: bytes, random: Random) -> bytes:
    places, at = [0], 0
    try:
        for _ in range(5):
            at = next(place + 1 for code, _, place in pickletools.genops(raw[at:]) if code.name == "STOP") + at
            places.append(at)
    except Exception:
        return changed(raw, random)
    chosen = random.randrange(6)
    if chosen == 5:
        return raw[:at] + changed(raw[at:], random)
    return (
        raw[: places[chosen]]
        + change_pickle(raw[places[chosen] : places[chosen + 1]], random)
        + raw[places[chosen + 1] :]
    )


# tar: one member's content, or its header with the checksum made right


def change_tar(raw: bytes, random: Random) -> bytes:
    try:
        with tarfile.open(fileobj=io.BytesIO(raw)) as opened:
            parts = {info.name: opened.extractfile(info).read() for info in opened if info.isfile()}
    except Exception:
        return changed(raw, random)
    if random.random() < 0.3:
        return _tar_header(raw, random)
    name = random.choice(list(parts) or [""])
    change = random.choice((changed, change_pickle))
    return streams.tar(*(change(part, random) if key == name else part for key, part in list(parts.items())[:3]))


def _tar_header(raw: bytes, random: Random) -> bytes:
    header = bytearray(raw[:512])
    at = random.randrange(min(len(header), 345) or 1)
    header[at : at + 1] = random.randbytes(1)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % (sum(header) % 0o777777)
    return bytes(header[:512]) + raw[512:]


# safetensors, index: the JSON, with the length in front made right


def change_safetensors(raw: bytes, random: Random) -> bytes:
    length = int.from_bytes(raw[:8], "little")
    header, data = raw[8 : 8 + length], raw[8 + length :]
    try:
        new = _json(changed_json(json.loads(header), random))
    except Exception:
        new = changed(header, random)
    if random.random() < 0.2:
        new = changed(new, random)
    return tensors.safetensors(new, changed(data, random) if random.random() < 0.2 else data)


def change_json(raw: bytes, random: Random) -> bytes:
    try:
        return _json(changed_json(json.loads(raw), random))
    except Exception:
        return changed(raw, random)


def change_manifest(raw: bytes, random: Random) -> bytes:
    """A change of a manifest's JSON, with its own checksum made right."""
    try:
        content = {key: value for key, value in json.loads(raw).items() if key != "crc32"}
        return runs.sealed(json.dumps(changed_json(content, random), indent=1).encode().removesuffix(b"\n}"))
    except Exception:
        return changed(raw, random)


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


# npz: an array's header, its length made right


def change_npy(raw: bytes, random: Random) -> bytes:
    header, _, data = raw[10:].partition(b"\n")
    new = changed(header, random) + b"\n"
    return raw[:8] + struct.pack("<H", len(new) % 2**16) + new + data


def change_npz(raw: bytes, random: Random) -> bytes:
    try:
        parts = members(raw)
    except Exception:
        return changed(raw, random)
    at = random.randrange(len(parts) or 1)
    for part in parts[at : at + 1]:
        parts[at] = Member(part.name, change_npy(part.data, random), random.choice((0, DEFLATED)))
    return _packed(parts, random)


# cycle: files of every format that many objects share, read in every way and saved again


def change_any(raw: bytes, random: Random) -> bytes:
    """A change that suits the format, told by the first bytes."""
    if raw.startswith(b"PK"):
        return random.choice((change_zip, change_members, change_npz))(raw, random)
    if raw.startswith(b"\x93NUMPY"):
        return change_npy(raw, random)
    return (change_legacy if raw.startswith(b"\x80\2") else change_safetensors)(raw, random)


def _built(group: str, starts: bytes = b"") -> list[bytes]:
    built = [case.build() for case in GROUPS[group] if not case.placed]
    return [raw for raw in built if raw.startswith(starts) and len(raw) < 20_000]


def _targets() -> list[Target]:
    zips = _built("control", b"PK")
    grown = [raw for group in ("archives", "bounds", "execution") for raw in _built(group, b"PK")]
    loose = [raw for raw in _built("bounds") + _built("execution") if not raw.startswith(b"PK")]
    inner = list(_pickles(zips))
    indexed, distributed = shards.indexed(), shards.distributed()
    index = "model.safetensors.index.json"
    step = {name: torch_zips.torch_zip() for name in ("model.pt", "other.pt", "values.pt")}
    manifest = runs.manifest(step, metrics={"loss": 0.5}, values={"parts": {"other": None, "rate": [1, 0.5]}, "n": 3})
    return [
        Target("zip", zips, from_memory, change_zip, grown),
        Target("pickle", inner, in_torch_zip, change_pickle, list(_pickles(grown))),
        Target("paths", [records.generated(Random(seed)) for seed in (1, 8, 21)], paths.read, change_paths),
        Target("calls", inner, used, change_call),
        Target("torch", zips, from_memory, change_members, grown),
        Target("cycle", cycle.honest(), cycle.read, change_any, [*zips, *grown]),
        Target("legacy", [streams.legacy()], from_memory, change_legacy, [r for r in loose if r[:2] == b"\x80\2"]),
        Target("tar", [streams.tar()], from_memory, change_tar, [raw for raw in loose if raw[257:262] == b"ustar"]),
        Target("torchscript", [scripts.script()], from_memory, change_members),
        Target("safetensors", _safetensors(), from_memory, change_safetensors, _built("safetensors")),
        Target("gguf", _ggufs(), from_memory, changed, _built("gguf")),
        Target("pt2", [packages.config({"w": packages.tensor()})], in_package, change_json),
        Target("ranks", [ranks.files()["metadata.pkl"]], of_ranks, change_pickle),
        Target("npz", [npz.npz(), npz.npz(a=npz.npy(), b=npz.npy(version=(2, 0)))], from_memory, change_npz),
        Target("npy", [npz.npy()], from_memory, change_npy),
        Target("index", [indexed[index]], from_folder("index", indexed, index, whole=False), change_json),
        Target("manifest", [manifest], from_folder("manifest", step, "manifest.json", whole=True), change_manifest),
        Target(
            "dcp", [distributed[".metadata"]], from_folder("dcp", distributed, ".metadata", whole=True), change_pickle
        ),
    ]


def _ggufs() -> list[bytes]:
    blocks = [gguf.Tensor(f"k{kind}", (2, 256), kind, bytes(512)) for kind in (2, 12)]
    metadata = {"a": "text", "n": gguf.Typed("I", 3), "list": ["x", "y"], "numbers": gguf.Typed("f", [1.0, 2.0])}
    return [gguf.gguf(), gguf.gguf([gguf.Tensor(), *blocks], metadata), gguf.gguf(order=">", metadata=metadata)]


def _safetensors() -> list[bytes]:
    return [case.build() for case in GROUPS["control"] if "safetensors" in case.name]


def _pickles(archives: Sequence[bytes]) -> Iterator[bytes]:
    for raw in archives:
        try:
            yield from (part.data for part in members(raw) if part.name.endswith(b".pkl"))
        except Exception:  # what zipfile makes of broken archives is its own affair
            continue


TARGETS = {target.name: target for target in _targets()}
