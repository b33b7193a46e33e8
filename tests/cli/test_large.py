"""Files larger than memory: listed from their headers alone, converted one tensor at a time. The files are sparse."""

import json
import struct
import subprocess
import sys

import pytest
import torch

MB = 1 << 20


def shard(path, names, nbytes):
    """A safetensors file of float32 zeros that takes no room on the disk."""
    header = {
        name: {"dtype": "F32", "shape": [nbytes // 4096, 1024], "data_offsets": [n * nbytes, (n + 1) * nbytes]}
        for n, name in enumerate(names)
    }
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + len(names) * nbytes)


def sharded(folder, shards, tensors, nbytes):
    """The index of so many shards with so many tensors each."""
    places = {}
    for n in range(shards):
        file = f"model-{n + 1:05d}-of-{shards:05d}.safetensors"
        names = [f"layers.{n * tensors + i}.weight" for i in range(tensors)]
        shard(folder / file, names, nbytes)
        places |= dict.fromkeys(names, file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": places}))
    return index


def program(*arguments, before=""):
    """Run a command without torch, which maps more than a limit would allow; also tells how much it read."""
    script = (
        f"import sys; sys.modules['torch'] = None\n{before}\nfrom statedict.cli import main\n"
        "try: main(sys.argv[1:])\n"
        "finally: print(open('/proc/self/io').readline(), file=sys.stderr)"
    )
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, env={"OPENBLAS_NUM_THREADS": "1"})
    assert done.returncode == 0, done.stderr
    return done


def test_a_hundred_gigabytes_are_listed_from_headers(tmp_path):
    """20 shards of 5 GB: every tensor is listed, and of the files less is read than Python reads to start."""
    index = sharded(tmp_path, 20, 10, 500 * 10**6 // 4096 * 4096)
    done = program("inspect", index)
    assert ": sharded, 100 GB" in done.stdout.splitlines()[0]
    rows = [line.split() for line in done.stdout.splitlines()]
    assert ["layers.{0…199}.weight", "122070×1024", "float32", "100", "GB", "200×"] in rows
    read = int(done.stderr.split("rchar:")[1].split()[0])
    assert read < 20 * MB


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("out.pt", ["--dtype", "bfloat16"]),
        ("out.safetensors", ["--max-shard-size", "100MB", "--dtype", "float16"]),
    ],
)
def test_converting_is_bounded_in_memory(tmp_path, target, options):
    """384 MB in shards are converted by a process that may allocate 160 MB, of which Python and NumPy are half."""
    index = sharded(tmp_path, 3, 8, 16 * MB)
    limit = f"import resource; resource.setrlimit(resource.RLIMIT_DATA, ({160 * MB}, {160 * MB}))"
    done = program("convert", index, tmp_path / target, *options, before=limit)
    assert "24 tensors, 201 MB" in done.stdout
    if target == "out.pt":
        found = torch.load(tmp_path / target, weights_only=True, mmap=True)
        assert {(tensor.dtype, tuple(tensor.shape)) for tensor in found.values()} == {(torch.bfloat16, (4096, 1024))}
        assert len(found) == 24
