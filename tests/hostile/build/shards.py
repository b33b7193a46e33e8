"""Checkpoints of several files: an index with its shards, and torch.distributed.checkpoint's directory."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from pathlib import Path

from . import pickles as p
from .tensors import entry, safetensors
from .torch_zips import as_torch_writes
from .zips import FOUR

METADATA = "torch.distributed.checkpoint.metadata"
FILESYSTEM = "torch.distributed.checkpoint.filesystem"
MEGATRON = "megatron.core.dist_checkpointing.strategies.torch"
MOMENT, RANDOM = "optimizer.state.exp_avg.w", "rng_state/shard_0_1"
FIRST, SECOND = (f"model-0000{n}-of-00002.safetensors" for n in (1, 2))


def write_all(folder: Path, files: Mapping[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, raw in files.items():
        (folder / name).write_bytes(raw)
    return folder


def indexed() -> dict[str, bytes]:
    """Two shards and their index."""
    weights = {"a": FIRST, "b": FIRST, "c": SECOND}
    index = {"metadata": {"total_size": 48}, "weight_map": weights}
    return {
        FIRST: safetensors({"a": entry(), "b": entry(start=16, stop=32)}, FOUR * 2),
        SECOND: safetensors({"c": entry()}, FOUR),
        "model.safetensors.index.json": json.dumps(index).encode(),
    }


def instance(module: str, name: str, **fields: bytes) -> bytes:
    """An object made by NEWOBJ, with its fields in BUILD's dict."""
    return p.build(p.name(module, name) + b")\x81", p.dict_(*((p.text(k), v) for k, v in fields.items())))


def size(*numbers: int) -> bytes:
    return p.call(p.name("torch", "Size"), p.integers(numbers))


def tensor_record(shape: tuple[int, ...], chunks: list[tuple[tuple[int, ...], tuple[int, ...]]]) -> bytes:
    """What the metadata says of a float32 tensor: its shape, and the (offsets, sizes) of its chunks."""
    layout = p.call(p.name("torch.serialization", "_get_layout"), p.text("torch.strided"))
    encoding = p.call(p.name(METADATA, "_MEM_FORMAT_ENCODING"), p.integer(0))
    properties = p.tuple_(p.name("torch", "float32"), layout, p.FALSE, encoding, p.FALSE)
    listed = (instance(METADATA, "ChunkStorageMetadata", offsets=size(*at), sizes=size(*of)) for at, of in chunks)
    return instance(
        METADATA,
        "TensorStorageMetadata",
        properties=p.build(p.name(METADATA, "TensorProperties") + b")\x81", properties),
        size=size(*shape),
        chunks=p.list_(*listed),
    )


def index_of(name: str, *offset: int) -> bytes:
    return instance(METADATA, "MetadataIndex", fqn=p.text(name), index=p.NONE, offset=size(*offset))


def place(file: str, offset: int, length: int) -> bytes:
    numbers = p.integer(offset), p.integer(length)
    return instance(FILESYSTEM, "_StorageInfo", relative_path=p.text(file), offset=numbers[0], length=numbers[1])


def distributed() -> dict[str, bytes]:
    """A 2x4 tensor "model.w" in two chunks, of which each rank wrote one, and a step count, `{"model": …, "step": 7}`."""
    halves = [as_torch_writes(p.pickled(p.tensor(size=(1, 4), stride=(4, 1))), {"0": raw}) for raw in (FOUR, ROW)]
    step = as_torch_writes(p.pickled(p.integer(7)), {})
    chunks = [((0, 0), (1, 4)), ((1, 0), (1, 4))]
    described = p.dict_(
        (p.text("model.w"), tensor_record((2, 4), chunks)),
        (p.text("step"), instance(METADATA, "BytesStorageMetadata")),
    )
    paths = p.dict_(
        (p.text("model.w"), p.tuple_(p.text("model"), p.text("w"))),
        (p.text("step"), p.tuple_(p.text("step"))),
    )
    places = p.dict_(
        (index_of("model.w", 0, 0), place("__0_0.distcp", len(step), len(halves[0]))),
        (index_of("model.w", 1, 0), place("__1_0.distcp", 0, len(halves[1]))),
        (instance(METADATA, "MetadataIndex", fqn=p.text("step"), index=p.NONE), place("__0_0.distcp", 0, len(step))),
    )
    metadata = instance(
        METADATA,
        "Metadata",
        state_dict_metadata=described,
        planner_data=paths,
        storage_data=places,
        version=p.text("1.0.0"),
    )
    return {".metadata": p.pickled(metadata), "__0_0.distcp": step + halves[0], "__1_0.distcp": halves[1]}


def megatron(original: bytes | None = None, rng: bytes | None = None) -> dict[str, bytes]:
    """A folder of Megatron-core 0.15: a 2x4 tensor "w" of two ranks, the same values stored flat for the optimizer, and an
    object of one rank. `original`: the shape that the metadata gives for the flat tensor.
    """
    rows = [as_torch_writes(p.pickled(p.tensor(size=(1, 4), stride=(4, 1))), {"0": raw}) for raw in (FOUR, ROW)]
    flat = [as_torch_writes(p.pickled(p.tensor(size=(1, 1, 4), stride=(4, 4, 1))), {"0": raw}) for raw in (FOUR, ROW)]
    random = as_torch_writes(p.pickled(p.list_(p.integer(7) if rng is None else rng)), {})
    described = p.dict_(
        (p.text("w"), tensor_record((2, 4), [((0, 0), (1, 4)), ((1, 0), (1, 4))])),
        (p.text(MOMENT), tensor_record((2, 1, 4), [((0, 0, 0), (1, 1, 4)), ((1, 0, 0), (1, 1, 4))])),
        (p.text(RANDOM), instance(METADATA, "BytesStorageMetadata")),
    )
    keys = [index_of("w", 0, 0), index_of(MOMENT, 0, 0, 0), index_of("w", 1, 0), index_of(MOMENT, 1, 0, 0)]
    keys.append(instance(METADATA, "MetadataIndex", fqn=p.text(RANDOM), index=p.NONE))
    files = {"__0_0.distcp": b"", "__1_0.distcp": b""}
    places = []
    for key, raw, file in zip(
        keys, (rows[0], flat[0], rows[1], flat[1], random), [*files, *files, *files][:4] + [*files]
    ):
        places.append((key, place(file, len(files[file]), len(raw))))
        files[file] += raw
    shapes = p.dict_(
        (p.text("nd_reformulated_orig_global_shape"), p.integers((2, 4)) if original is None else original)
    )
    metadata = instance(
        MEGATRON,
        "MCoreMetadata",
        state_dict_metadata=described,
        planner_data=p.NONE,
        storage_data=p.dict_(*places),
        version=p.text("1.0.0"),
        mcore_data=p.dict_((p.text(MOMENT), shapes)),
    )
    common = as_torch_writes(p.pickled(p.dict_((p.text("iteration"), p.integer(3)))), {})
    config = b'{"sharded_backend": "torch_dist", "common_backend": "torch"}'
    return {".metadata": p.pickled(metadata), "common.pt": common, "metadata.json": config, **files}


ROW = struct.pack("<4f", 5, 6, 7, 8)
