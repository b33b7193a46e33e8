"""A file that another process truncates or rewrites in place while it is open: an error, no signal, no other content.

Each verb runs in a process of its own, which reading a mapping of a truncated file would kill (SIGBUS).
"""

import json
import subprocess
import sys

import numpy as np
import pytest

import statedict

VERBS = {
    "verify": "checkpoint.verify()",
    "verify values": "checkpoint.verify(values=True)",
    "save": "statedict.save(state, 'new.pt')",
    "save shards": "statedict.save(state, 'new.safetensors', max_shard_size=500_000)",
    "fingerprint": "state.fingerprint()",
    "diff": "statedict.diff(checkpoint, 'other')",
    "numpy": "list(state.numpy().values())",
    "snapshot": "statedict.snapshot(state)",
    "merge": "statedict.save(statedict.merge([checkpoint, 'other']), 'new.npz')",
    "cast": "statedict.save(state.to('float16'), 'new.npz')",
    "read_array": "[read_array(leaf) for _, leaf in state.leaves()]",
    "stats": "[measure(leaf, 12) for _, leaf in state.leaves()]",
    "load_state_dict": "statedict.load_state_dict(model, checkpoint)",
}
# Since Python 3.12 `os.fork` warns if the threads that read files are still there; the children do not use them.
NO_WARNING = "ignore:This process:DeprecationWarning"
SCRIPT = """
import json, os, sys
import statedict
from statedict import nn
from statedict.errors import FileChangedError
from statedict.report._survey import measure
from statedict.state import read_array
change, *verbs = sys.argv[1:]
content = open("m", "rb").read()
with statedict.open("other") as other:
    parameters = other.state_dict().numpy()
    model = nn.Module()
    for name in parameters:
        setattr(model, name, nn.Parameter(parameters[name] * 0))

def attempt(verb):
    with open("copy", "wb") as file:
        file.write(content)
    checkpoint = statedict.open("copy")
    state = checkpoint.state_dict()
    if change == "cut":
        os.truncate("copy", len(content) // 3)
    else:
        with open("other", "rb") as new, open("copy", "r+b") as old:
            old.write(new.read())
        os.utime("copy", ns=(1, 1))  # the clock of the file system may not have moved on
    try:
        eval(verb)
    except FileChangedError:
        assert not [name for name in os.listdir() if name.startswith("new")]
        assert all(not parameter.data.any() for parameter in model.parameters())
        return "changed"
    return "nothing was noticed"

told = []
for verb in verbs:
    out, into = os.pipe()
    if not os.fork():
        os.write(into, attempt(verb).encode())
        os._exit(0)
    os.close(into)
    status = os.wait()[1]
    told.append(os.read(out, 100).decode() if not status else f"status {status}")
    os.close(out)
print(json.dumps(told))
"""


@pytest.mark.parametrize("change", ["cut", "rewritten"])
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("count", [3, 300])
def test_a_file_that_changes_is_an_error_of_every_verb(tmp_path, suffix, change, count):
    """FileChangedError, whatever is done with the file, of few tensors or many; a model is as it was, no file is left."""
    elements = 900_000 // count
    for name, value in (("other", 2), ("m", 1)):
        arrays = {f"l{n}": np.full(elements, value, "f4") for n in range(count)}
        statedict.save(arrays, tmp_path / f"{name}{suffix}")
        (tmp_path / f"{name}{suffix}").rename(tmp_path / name)
    ran = subprocess.run(
        [sys.executable, "-W", NO_WARNING, "-c", SCRIPT, change, *VERBS.values()],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert ran.stderr == ""
    assert dict(zip(VERBS, json.loads(ran.stdout))) == dict.fromkeys(VERBS, "changed")
