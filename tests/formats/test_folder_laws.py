"""The folders and archives that frameworks write keep the laws of the public suites. (Formats of our own: test_laws.)"""

from __future__ import annotations

import io
import json
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from tests.formats.deepspeed.zero_job import BUFFERS, MOMENTS, Job
from tests.formats.folders import megatron
from tests.formats.test_laws import as_torch
from tests.hostile.build import packages, torch_zips
from tests.plugins import rank_directories

import statedict
from statedict.testing import FolderSuite, FormatSuite
from statedict.testing._samples import array_of
from statedict.testing.format_laws._recording_file import recording_folder

torch = pytest.importorskip("torch")

# Numbers of dtypes in a package of torch.export.
EXPORTED = {
    "uint8": 1,
    "int8": 2,
    "int16": 3,
    "int32": 4,
    "int64": 5,
    "float16": 6,
    "float32": 7,
    "float64": 8,
    "complex64": 10,
    "complex128": 11,
    "bool": 12,
    "bfloat16": 13,
}


def files_below(folder):
    """Return the files in a folder, and in those in it, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in Path(folder).rglob("*") if path.is_file()}


def saved(value):
    """Return the bytes of a file of torch.save."""
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


class TestExported(FormatSuite):
    """A `.pt2` package of torch.export."""

    format = "pt2"
    dtypes = tuple(EXPORTED)
    ties = False
    copies = 150

    def write(self, state, metadata):
        numbers = {array_of(name, ()).dtype: number for name, number in EXPORTED.items()}
        entries, members = {}, {}
        for at, (name, array) in enumerate(state.items()):
            array = np.array(array, order="C")
            sizes = [{"as_int": size} for size in array.shape]
            strides = [{"as_int": stride // array.itemsize} for stride in array.strides]
            entries[name] = packages.tensor(f"weight_{at}", dtype=numbers[array.dtype], sizes=sizes, strides=strides)
            members[f"data/weights/weight_{at}"] = array.tobytes()
        extra = {f"extra/{key}": text.encode() for key, text in metadata.items()}
        return packages.package(entries, more={**members, **extra})

    def infected(self, pickle):
        return packages.package(more={"data/constants/model.pt": torch_zips.torch_zip(pickle)})


class TestUnpacked(FolderSuite):
    """A file of torch.save that was unpacked."""

    format = "torch"
    needed = ("data.pkl",)
    metadata = checksums = False
    copies = 60
    # The file of a storage may be longer than the storage.
    test_trailing_bytes_are_refused_or_noted = None

    def write(self, state, metadata):
        return self.members(saved(as_torch(state)))

    def members(self, raw):
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            members = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        # Those with a dot say nothing about the tensors.
        return {name: data for name, data in members.items() if not name.startswith(".")}

    def infected(self, pickle):
        return self.members(torch_zips.torch_zip(pickle))


class TestTorchCheckpointing(FolderSuite):
    """The rows of each tensor are divided among two ranks."""

    format = "torch-checkpointing"
    needed = ("metadata.pkl",)
    metadata = ties = checksums = False
    copies = 40

    def write(self, state, metadata):
        entries, trees = {}, ({}, {})
        for name, tensor in as_torch(state).items():
            placed = rank_directories.placements(tensor, 0)
            entries[json.dumps([name])] = [rank_directories.described(tensor, (2,), placed, (0, 1))]
            for rank, tree in enumerate(trees):
                tree[name] = rank_directories.local(tensor, (2,), placed, rank)
        items = {"model": {"nested_path_to_metadata": entries, "rank_to_layout_info": {0: None, 1: None}}}
        files = {f"model_{rank}.pt": saved(tree) for rank, tree in enumerate(trees)}
        return {**files, "metadata.pkl": rank_directories.metadata(items, 2)}


class TestZero(FolderSuite):
    """DeepSpeed's ZeRO 2 and two ranks: the weights are parts of a flat vector of each rank's optimizer."""

    format = "deepspeed"
    needed = ("mp_rank_00_model_states.pt",)
    dtypes = ("float32",)
    shapes = ((1,), (5,), (2, 3), (2, 1, 3, 4))
    names = ("layer.weight", "bias")
    metadata = ties = False
    copies = 40

    def write(self, state, metadata):
        job = self.job(state)
        job.values["fp32"] = {name: tensor.contiguous() for name, tensor in as_torch(state).items()}
        with tempfile.TemporaryDirectory() as folder:
            return files_below(self.save(job, folder))

    def job(self, state):
        return Job(2, shapes={name: array.shape for name, array in state.items()})

    def save(self, job, folder):
        return job.save(folder)

    def tensors(self, checkpoint):
        weights = {name: leaf for name, leaf in checkpoint.state_dict().leaves() if name not in BUFFERS}
        states = checkpoint.object.get("optimizer", {}).get("state", {})
        # In a universal checkpoint they are in the order of its folders.
        order = [name for name in weights if name in states]
        return weights | {
            f"{name}/{key}": states[name][key] for name in order for key in MOMENTS if key in states[name]
        }

    def expected(self, state):
        """Return the weights and their moments."""
        values = self.job(state).values
        return {**state, **{f"{name}/{key}": values[key][name].numpy() for name in state for key in MOMENTS}}


class TestUniversal(TestZero):
    """DeepSpeed's universal checkpoints: a folder for each parameter."""

    def save(self, job, folder):
        return job.save_universal(folder)


class TestMegatron(FolderSuite):
    """Megatron-core's `torch_dist`: tensors are divided among two ranks where their rows can be."""

    format = "megatron"
    needed = (".metadata", "__0_0.distcp")
    metadata = ties = checksums = False
    copies = 40
    # As for torch.distributed.checkpoint.
    test_trailing_bytes_are_refused_or_noted = None

    def write(self, state, metadata):
        values = {
            name: megatron.split(tensor, 0, 2, layers=False) if tensor.ndim and not len(tensor) % 2 else tensor
            for name, tensor in as_torch(state).items()
        }
        with tempfile.TemporaryDirectory() as folder:
            files = files_below(megatron.save(Path(folder), values, megatron.COMMON))
        # The description of the format is read only if `.metadata` is missing.
        return {name: data for name, data in files.items() if name != "metadata.json"}


class TestRoles(FolderSuite):
    """A folder whose files have roles: what accelerate saves."""

    format = "directory"
    needed = ("pytorch_model.bin",)
    metadata = False
    copies = 40

    def write(self, state, metadata):
        return {
            "pytorch_model.bin": saved(as_torch(state)),
            "optimizer.bin": saved({"state": {}, "param_groups": [{"lr": 0.1, "params": []}]}),
            "scheduler.bin": saved({"last_epoch": 1}),
        }


STEP = "step-0000000007"


class Holder:
    """An object with this state."""

    def __init__(self, state):
        self.state = state

    def state_dict(self):
        return self.state

    def load_state_dict(self, state):
        self.state = state


class TestStep(FolderSuite):
    """A checkpoint of CheckpointManager."""

    format = "step"
    needed = ("manifest.json", "model.pt")
    metadata = False
    copies = 40

    def write(self, state, metadata):
        with tempfile.TemporaryDirectory() as folder:
            with statedict.CheckpointManager(folder, durable=False, random=False) as manager:
                manager.save(7, model=Holder(dict(as_torch(state))), epoch=3)
            return files_below(Path(folder, STEP))

    def source(self, files, log=None):
        # In a folder of another name, a damaged manifest is not recognised.
        return recording_folder(STEP, files, [] if log is None else log)

    def places(self, files):
        return [STEP]
