import io
from statedict import formats
from statedict.state import StateDict, Leaf
from statedict.testing import FormatSuite

def written(state, metadata, format):
    out = io.BytesIO()
    formats.write(StateDict(state), out, format=format, metadata=metadata)
    return out.getvalue()

class TestSafetensors(FormatSuite):
    format = "safetensors"
    dtypes = "float64 float32 float16 bfloat16 float8_e4m3fn float8_e5m2 complex64 bool int64 int32 int16 int8 uint64 uint32 uint16 uint8".split()
    def write(self, state, metadata):
        return written(state, metadata, "safetensors")

class TestTorch(FormatSuite):
    format = "torch"
    def write(self, state, metadata):
        return written(state, metadata, "torch")

class TestNpz(FormatSuite):
    format = "npz"
    def write(self, state, metadata):
        return written(state, metadata, "npz")

class TestNpy(FormatSuite):
    format = "npy"
    names = ("",)
    metadata = ties = checksums = False
    dtypes = "float64 float32 complex64 bool int64 uint8".split()
    def write(self, state, metadata):
        out = io.BytesIO()
        formats.write(state[""], out, format="npy")
        return out.getvalue()
    def tensors(self, checkpoint):
        return {"": checkpoint.object} if isinstance(checkpoint.object, Leaf) else {}
