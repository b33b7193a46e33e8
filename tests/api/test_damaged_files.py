"""Whatever reads a storage of a file verifies it: damage is an error of every verb, and leaves nothing behind."""

import io
import os
import warnings

import numpy as np
import pytest

import statedict
from statedict.cli import main
from statedict.errors import ChecksumError
from statedict.state import Read, read_array

SIZES = {"one small": (1, 100), "few": (3, 1000), "many": (400, 30), "large": (2, 400_000)}


def state(count, elements):
    return {f"w{n}": np.full(elements, n + 1, "f4") for n in range(count)}


def flipped(path, count, elements):
    """One bit of the last tensor's elements is flipped."""
    raw = bytearray(path.read_bytes())
    at = raw.find(np.full(min(elements, 32), count, "f4").tobytes())
    raw[at + 4 * (elements // 2) + 1] ^= 64
    path.write_bytes(raw)


@pytest.fixture(params=[".pt", ".safetensors", ".npz", "deflated.npz", "sharded", "pieces"])
def kind(request):
    return request.param


@pytest.fixture(params=list(SIZES))
def files(request, tmp_path, kind):
    """A damaged file, and the same undamaged."""
    count, elements = SIZES[request.param]
    whole = state(count, elements)
    if kind == "pieces":
        return of_pieces(tmp_path, whole, count, elements)
    if kind == "sharded":
        for name in ("bad", "good"):
            (tmp_path / name).mkdir()
            statedict.save(whole, tmp_path / name / "m.safetensors", max_shard_size=4 * elements)
        shards = sorted((tmp_path / "bad").glob("*.safetensors"))
        flipped(shards[-1], count, elements)
        return [str(next((tmp_path / name).glob("*.index.json" if count > 1 else "*"))) for name in ("bad", "good")]
    paths = [tmp_path / f"{name}{kind}" for name in ("bad", "good")]
    for path in paths:
        if kind == "deflated.npz":
            np.savez_compressed(path, **whole)
        else:
            statedict.save(whole, path)
    if kind == "deflated.npz":
        declared_otherwise(paths[0], f"w{count - 1}.npy")
    else:
        flipped(paths[0], count, elements)
    return [str(path) for path in paths]


def of_pieces(folder, whole, count, elements):
    torch = pytest.importorskip("torch")
    from torch.distributed.checkpoint import FileSystemWriter, save

    for name in ("bad", "good"):
        tensors = {key: torch.from_numpy(value.copy()) for key, value in whole.items()}
        with warnings.catch_warnings(action="ignore"):  # that it is one process
            save(tensors, storage_writer=FileSystemWriter(folder / name), no_dist=True)
    flipped(next((folder / "bad").glob("*.distcp")), count, elements)
    return [str(folder / name) for name in ("bad", "good")]


def declared_otherwise(path, member):
    """The directory and the header give another CRC-32: what was damaged before it was deflated looks like this."""
    raw = bytearray(path.read_bytes())
    name = member.encode()
    local, central = raw.find(name) - 30, raw.rfind(name) - 46
    raw[local + 14] ^= 1
    raw[central + 16] ^= 1
    path.write_bytes(raw)


def reads(files, target):
    bad, good = files

    def opened():
        return statedict.open(bad).state_dict()

    last = list(opened())[-1]
    yield "load", lambda: statedict.load(bad, backend="numpy")
    yield "item", lambda: opened()[last]
    yield "numpy", lambda: list(opened().numpy().values())
    yield "read_array", lambda: read_array(opened().leaf(last))
    yield "fingerprint", lambda: opened().fingerprint()
    yield "diff", lambda: statedict.diff(bad, good)
    yield "diff of the other", lambda: statedict.diff(good, bad)
    yield "snapshot", lambda: statedict.snapshot(opened())
    for suffix in (".pt", ".safetensors", ".npz"):
        yield f"save {suffix}", lambda suffix=suffix: statedict.save(opened(), f"{target}{suffix}")
    yield "save a file object", lambda: statedict.save(opened(), io.BytesIO())
    yield "save in shards", lambda: statedict.save(opened(), f"{target}.safetensors", max_shard_size=2_000_000)
    yield "cast", lambda: statedict.save(opened().to("float16"), f"{target}.pt")
    yield "merge", lambda: statedict.save(statedict.merge([bad, good]), f"{target}.pt")
    yield "union", lambda: statedict.merge([opened(), {"other": np.ones(1)}], "union")[last]


def test_every_verb_finds_it_and_leaves_nothing(files, tmp_path):
    """Reading it, whole or in part, at once or while a new file is written, raises; no file is there afterwards."""
    (tmp_path / "new").mkdir()
    silent = []
    for verb, read in reads(files, tmp_path / "new" / "m"):
        try:
            read()
            silent.append(verb)
        except ChecksumError:
            pass
        assert os.listdir(tmp_path / "new") == []
    assert silent == []


@pytest.mark.parametrize("kind", [".pt"], indirect=True)
@pytest.mark.parametrize("files", ["few"], indirect=True)
@pytest.mark.parametrize(
    "arguments",
    [
        ["convert", 0, "new.safetensors"],
        ["convert", 0, "new.pt", "--dtype", "bfloat16"],
        ["merge", 0, 1, "-o", "new.pt"],
    ]
    + [["inspect", "--stats", 0], ["diff", 0, 1], ["diff", 1, 0], ["view", 0, "-o", "new.html"]],
)
def test_every_command_finds_it(files, tmp_path, monkeypatch, capsys, arguments):
    """The commands end with an error that names the tensor, and leave no file."""
    monkeypatch.chdir(tmp_path)
    before = sorted(os.listdir())
    with pytest.raises(SystemExit) as caught:
        main([files[word] if isinstance(word, int) else word for word in arguments])
    assert caught.value.code == 2
    assert "the bytes of 'w2' have changed since they were written" in capsys.readouterr().err
    assert sorted(os.listdir()) == before


def test_a_part_is_vouched_for_by_the_whole(tmp_path):
    """A view of a few elements is refused where another part of its storage is damaged; an undamaged storage is verified
    once, however many parts of it are read."""
    torch = pytest.importorskip("torch")
    base = torch.arange(300_000.0)
    torch.save({"first": base[:10], "second": base[20:30]}, tmp_path / "good.pt")
    raw = (tmp_path / "good.pt").read_bytes().replace(base[1000:1010].numpy().tobytes(), bytes(40))
    (tmp_path / "bad.pt").write_bytes(raw)
    with statedict.open(tmp_path / "bad.pt") as checkpoint, pytest.raises(ChecksumError):
        read_array(checkpoint.object["first"])
    with statedict.open(tmp_path / "good.pt") as checkpoint:
        storage = checkpoint.object["first"].storage
        verified, verify = [], storage.source.wrong
        storage.source.wrong = lambda storages: verified.append(len(storages)) or verify(storages)
        for start in range(0, 1200, 40):
            storage.source.read_into([Read(storage, start, memoryview(bytearray(40)))])
        assert verified[:1] + [count for count in verified[1:] if count] == [1]


def test_verify_false_is_the_only_way_around(files):
    """`load(verify=False)` gives what is there, so that what can be rescued is."""
    if "deflated" in files[0]:
        pytest.skip("what is inflated is what was written")
    found = statedict.load(files[0], backend="numpy", verify=False)
    wanted = statedict.load(files[1], backend="numpy")
    differ = [name for name in wanted if not np.array_equal(found[name], wanted[name])]
    assert len(differ) == 1


@pytest.mark.parametrize("format", ["torch", "safetensors", "npz"])
def test_the_shape_of_no_elements_is_verified_too(format):
    """An empty array has a header, which a save does not copy when it has changed."""
    file = io.BytesIO()
    statedict.save({"e": np.zeros((0, 3), "f4"), "w": np.ones(3, "f4")}, file, format="npz")
    damaged = io.BytesIO(file.getvalue().replace(b"(0, 3)", b"(0, 7)"))
    with statedict.open(damaged) as checkpoint, pytest.raises(ChecksumError, match=r"e\.npy: its 128 bytes have"):
        statedict.save(checkpoint.state_dict(), io.BytesIO(), format=format)
