import io, warnings, tempfile
from pathlib import Path
from statedict import formats
from statedict.state import StateDict
from statedict.testing import FolderSuite
import statedict, torch

class TestShards(FolderSuite):
    format="sharded"
    needed = ("*.index.json",)
    dtypes = "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 complex64 bool int64 int32 int16 int8 uint64 uint32 uint16 uint8".split()
    def write(self, state, metadata):
        with tempfile.TemporaryDirectory() as folder:
            formats.write(StateDict(state), Path(folder, "model.safetensors"), max_shard_size=1, metadata=metadata)
            return {p.name: p.read_bytes() for p in Path(folder).iterdir()}

class TestDistributed(FolderSuite):
    format = "distributed"
    needed = ("*",)
    metadata = ties = checksums = False
    def write(self, state, metadata):
        import torch.distributed.checkpoint as dcp
        out = io.BytesIO()
        statedict.save(StateDict(state), out)
        out.seek(0)
        with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings(action="ignore"):
            dcp.save(dict(torch.load(out)), checkpoint_id=folder)
            return {p.name: p.read_bytes() for p in Path(folder).iterdir()}
