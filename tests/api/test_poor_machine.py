"""A machine without the fast paths: no isal, no SIMD in NumPy, one processor. Everything works, and nothing warns."""

import os
import subprocess
import sys

import numpy as np

import statedict

PROGRAM = """
import os, sys
sys.modules["isal"] = sys.modules["torch"] = None
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import numpy as np
import statedict
from statedict.files import CHECKSUMS, _file
from statedict.files import system

assert CHECKSUMS == "zlib"
compiled = np._core._multiarray_umath
assert not any(compiled.__cpu_features__[name] for name in compiled.__cpu_dispatch__)
assert system.processors() == _file.THREADS == 1 or not hasattr(os, "sched_setaffinity")
fast, slow = sys.argv[1:]
with statedict.open(fast) as checkpoint:
    assert not checkpoint.verify()
    state = checkpoint.state_dict()
    statedict.save(state, slow)
    halves = state.to(dtype="float16").numpy()
    assert all(np.isfinite(half).all() for half in halves.values())
model = statedict.nn.Linear(2000, 1200)
statedict.load_state_dict(model, slow, rename={"w": "weight", "b": "bias"}, allow_unexpected="swapped")
print(statedict.diff(fast, slow))
"""


def dispatched():
    """The features that NumPy's compiled code uses on this processor beyond its baseline."""
    from numpy._core import _multiarray_umath as compiled

    return [name for name in compiled.__cpu_dispatch__ if compiled.__cpu_features__[name]]


def test_without_isal_simd_and_processors(tmp_path):
    """A process without isal and NumPy's SIMD, on one processor, reads what a fast one has written, writes the same bytes,
    converts, and fills a model; with all warnings as errors, and nothing on standard error.
    """
    fast, slow = tmp_path / "fast.pt", tmp_path / "slow.pt"
    random = np.random.default_rng(0)
    state = {"w": random.random((1200, 2000), np.float32), "b": random.random(1200).astype(np.float32)}
    # The byte order of the other kind of processor: of 8 MiB, so that it is read in parallel where there are processors.
    state["swapped"] = random.random(1 << 20).astype(">f8")
    statedict.save(state, fast)
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", PROGRAM, str(fast), str(slow)],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(dispatched())},
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert done.stdout == "3 equal\n"
    assert slow.read_bytes() == fast.read_bytes()
