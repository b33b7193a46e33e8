"""Every format keeps the laws of the public suites, whoever wrote the file."""

from __future__ import annotations

import io
import json
import tempfile
import warnings
from pathlib import Path

import numpy as np
import pytest
from tests.archives import deflated
from tests.hostile.build import gguf, pickles, streams, torch_zips

import statedict
from statedict import formats
from statedict.state import Leaf, StateDict
from statedict.testing import FolderSuite, FormatSuite
from statedict.testing._samples import array_of
from statedict.testing.format_laws._cost_laws import CostLaws
from statedict.testing.format_laws._damage_laws import DamageLaws
from statedict.testing.format_laws._format_under_test import LARGE

torch = pytest.importorskip("torch")
stock = pytest.importorskip("safetensors.torch")

# The dtypes that NumPy has without ml_dtypes.
NUMPY = [name for name in FormatSuite.dtypes if not name.startswith(("bfloat", "float8"))]
SAFETENSORS = [name for name in FormatSuite.dtypes if name != "complex128"]


def written(state, metadata, format):
    """Return the file that this library writes."""
    out = io.BytesIO()
    formats.write(StateDict(state), out, format=format, metadata=metadata)
    return out.getvalue()


def as_torch(state):
    """Return the state with torch tensors, tied as the arrays are."""
    return statedict.load(io.BytesIO(written(state, {}, "torch")), backend="torch")


def files_in(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


class TestTorch(FormatSuite):
    format = "torch"

    def write(self, state, metadata):
        return written(state, metadata, "torch")

    def infected(self, pickle):
        return torch_zips.torch_zip(pickle)


class TestTorchByTorch(FormatSuite):
    format = "torch"
    metadata = False

    def write(self, state, metadata):
        out = io.BytesIO()
        torch.save(as_torch(state), out)
        return out.getvalue()


class TestTorchDeflated(TestTorchByTorch):
    """A torch file that another tool packed again, with compression."""

    # A compressed tensor is inflated as a whole: the compressed bytes, the inflated ones and the array are in memory.
    test_reading_needs_the_memory_of_one_tensor = None

    def write(self, state, metadata):
        return deflated(super().write(state, metadata))


class TestTorchLegacy(FormatSuite):
    format = "torch-legacy"
    metadata = checksums = False

    def write(self, state, metadata):
        out = io.BytesIO()
        torch.save(as_torch(state), out, _use_new_zipfile_serialization=False)
        return out.getvalue()

    def infected(self, pickle):
        return streams.legacy(pickle, b"", keys=pickles.pickled(pickles.list_()))


class TestTorchTar(DamageLaws):
    """Nothing writes these files any more: the laws on damage are tested with one made by hand."""

    format = "torch-tar"
    checksums = False

    def small(self):
        return {"w": np.frombuffer(torch_zips.FOUR, "f4")}

    def write(self, state, metadata):
        return streams.tar()


class TestSafetensors(FormatSuite):
    format = "safetensors"
    dtypes = SAFETENSORS

    def write(self, state, metadata):
        return written(state, metadata, "safetensors")


class TestSafetensorsByOthers(FormatSuite):
    format = "safetensors"
    dtypes = SAFETENSORS
    checksums = ties = False

    def write(self, state, metadata):
        tensors = {name: tensor.clone().contiguous() for name, tensor in as_torch(state).items()}
        return stock.save(tensors, dict(metadata))

    def expected(self, state):
        """The reference writer sorts."""
        return dict(sorted(state.items()))


class TestNpz(FormatSuite):
    format = "npz"

    def write(self, state, metadata):
        return written(state, metadata, "npz")


class TestNpzByNumpy(FormatSuite):
    format = "npz"
    dtypes = NUMPY
    ties = metadata = False
    save = staticmethod(np.savez)

    def write(self, state, metadata):
        out = io.BytesIO()
        self.save(out, **state)
        return out.getvalue()


class TestNpzDeflated(TestNpzByNumpy):
    # As for compressed torch files.
    test_reading_needs_the_memory_of_one_tensor = None
    save = staticmethod(np.savez_compressed)


class TestNpy(FormatSuite):
    format = "npy"
    dtypes = NUMPY
    names = ("",)
    ties = metadata = checksums = False

    def write(self, state, metadata):
        out = io.BytesIO()
        formats.write(state[""], out, format="npy")
        return out.getvalue()

    def tensors(self, checkpoint):
        return {"": checkpoint.object} if isinstance(checkpoint.object, Leaf) else {}


class TestGguf(FormatSuite):
    """GGUF as llama.cpp writes it: the shape of a tensor is reversed, and each begins at a multiple of 32."""

    format = "gguf"
    kinds = {
        "float32": 0,
        "float16": 1,
        "int8": 24,
        "int16": 25,
        "int32": 26,
        "int64": 27,
        "float64": 28,
        "bfloat16": 30,
    }
    dtypes = tuple(kinds)
    checksums = ties = False
    copies = 200

    def write(self, state, metadata):
        dtypes = {array_of(name, ()).dtype: number for name, number in self.kinds.items()}
        tensors = [
            gguf.Tensor(name, array.shape, dtypes[array.dtype], array.tobytes()) for name, array in state.items()
        ]
        return gguf.gguf(tensors, metadata)


class TestGgufQuantised(DamageLaws, CostLaws):
    """Each tensor is stored in blocks of 32 elements, and read as the float32 values that they stand for."""

    format = "gguf"
    dtypes = ("float32",)
    checksums = ties = False
    copies = 200
    # Blocks are decoded a few megabytes at a time.
    test_reading_needs_the_memory_of_one_tensor = None

    def small(self):
        return {name: np.arange(32 * count, dtype="f4") % 7 for name, count in zip(self.names, (2, 9))}

    def large(self):
        return {name: np.full(LARGE // 4, seed, "f4") for seed, name in enumerate(self.names[:2])}

    def write(self, state, metadata):
        scale = np.array(1, "<f2").tobytes()
        blocks = {
            name: b"".join(scale + block.tobytes() for block in array.astype("i1").reshape(-1, 32))
            for name, array in state.items()
        }
        return gguf.gguf([gguf.Tensor(name, array.shape, 8, blocks[name]) for name, array in state.items()])


class TestShards(FolderSuite):
    format = "sharded"
    needed = ("*.index.json",)
    dtypes = SAFETENSORS

    def write(self, state, metadata):
        with tempfile.TemporaryDirectory() as folder:
            formats.write(StateDict(state), Path(folder, "model.safetensors"), max_shard_size=1, metadata=metadata)
            return files_in(folder)


class TestNumberedShards(TestShards):
    needed = ()
    metadata = False
    copies = 100

    def write(self, state, metadata):
        files = super().write(state, metadata)
        return {name: data for name, data in files.items() if not name.endswith(".index.json")}


class TestRankFiles(FolderSuite):
    """One file for each rank, as torch.distributed.checkpoint writes safetensors: the second one has the last rows."""

    format = "sharded"
    dtypes = SAFETENSORS
    checksums = ties = metadata = False
    # No file says how many there are: a tensor in parts names the parts that are there.
    test_missing_files_are_named = None

    def write(self, state, metadata):
        ranks = {1: {}, 2: {}}
        starts = {1: {}, 2: {}}
        for name, tensor in as_torch(state).items():
            cut = len(tensor) // 2 if tensor.dim() else 0
            for rank, start, part in (1, 0, tensor[:cut] if cut else tensor), (2, cut, tensor[cut:] if cut else None):
                if part is not None:
                    ranks[rank][name] = part.clone().contiguous()
                    starts[rank][name] = {"saved_offsets": [start, *[0] * tensor.dim()][: tensor.dim()]}
        return {
            f"shard-{rank:05}-model-00001-of-00001.safetensors": stock.save(
                tensors, {"DCP_SHARDING_INFO": json.dumps(starts[rank]), "DCP_VERSION": "1.0"}
            )
            for rank, tensors in ranks.items()
        }

    def expected(self, state):
        return dict(sorted(state.items()))


class TestDistributed(FolderSuite):
    format = "distributed"
    needed = ("*",)
    metadata = ties = checksums = False
    # Each item is found by its offset: what lies between or after them has no meaning.
    test_trailing_bytes_are_refused_or_noted = None

    def write(self, state, metadata):
        import torch.distributed.checkpoint as dcp

        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            dcp.save(dict(as_torch(state)), checkpoint_id=folder, no_dist=True)
            return files_in(folder)
