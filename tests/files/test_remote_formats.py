"""Checkpoints behind URLs: listed from a few small reads, loaded from their own ranges, as sound as local ones."""

import json
import tracemalloc

import pytest

import statedict
from statedict import formats
from statedict.errors import ChecksumError, FileChangedError, FormatError, RemoteError
from statedict.formats.safetensors._write import safetensors_parts
from statedict.formats.torch_files._write import torch_parts
from statedict.state import DTYPES, Leaf, Read, StateDict, Storage, contiguous

np = pytest.importorskip("numpy")
pytest.importorskip("aiohttp", reason="fsspec's HTTP needs aiohttp: the extra `remote`")

FLOAT = DTYPES["float32"]
GB = 1_000_000_000


def state(count=6, numel=100_000):
    """Tensors of 400 kB, which no two requests of 64 KiB bring by chance."""
    random = np.random.default_rng(5)
    return {f"{'ab'[i % 2]}.{i}": random.standard_normal(numel, dtype=np.float32) for i in range(count)}


class Nowhere:
    """The Source of storages that nobody may read."""

    def view(self, storage, *, writable=False):
        return None

    def read_into(self, reads, *, verify=True):
        raise AssertionError("it was read")

    def verify(self, storages):
        raise AssertionError("it was read")


def huge(name, nbytes=GB):
    """A leaf of that many bytes, all of them imagined."""
    return Leaf(contiguous(FLOAT, (nbytes // 4,)), Storage(Nowhere(), ("huge", name), nbytes))


def write_sparse(path, parts):
    """The file of the parts, those of a megabyte or more left out: holes."""
    offset = 0
    places = []
    for part in parts:
        places.append((offset, part))
        offset += part.nbytes
    with path.open("wb") as out:
        for offset, part in sorted(places, key=lambda place: place[1].last):
            if part.nbytes < 1 << 20:
                out.seek(offset)
                out.write(b"".join(part.chunks()))
        out.truncate(sum(part.nbytes for part in parts))


def torch_file(folder):
    write_sparse(folder / "huge.pt", torch_parts({"model": {f"l.{i}.w": huge(i) for i in range(10)}, "epoch": 3}))
    return "huge.pt"


def safetensors_file(folder):
    write_sparse(folder / "huge.safetensors", safetensors_parts({f"l.{i}.w": huge(i) for i in range(10)}))
    return "huge.safetensors"


def sharded_file(folder):
    shards = {f"model-0000{n}-of-00002.safetensors": [f"l.{i}.w" for i in range(5 * n - 5, 5 * n)] for n in (1, 2)}
    for shard, names in shards.items():
        write_sparse(folder / shard, safetensors_parts({name: huge(name) for name in names}))
    index = {"metadata": {}, "weight_map": {name: shard for shard, names in shards.items() for name in names}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return "model.safetensors.index.json"


@pytest.mark.parametrize("make", [torch_file, safetensors_file, sharded_file])
def test_listing_ten_gigabytes_costs_a_few_small_reads(site, make):
    """Names, dtypes, shapes and what else is in it: a dozen requests, half a megabyte at most, no tensor."""
    name = make(site.folder)
    assert sum(path.stat().st_size for path in site.folder.iterdir()) >= 10 * GB
    with statedict.open(site.url + name) as checkpoint:
        found = checkpoint.state_dict()
        assert {name: found.spec(name).shape for name in found} == {f"l.{i}.w": (GB // 4,) for i in range(10)}
        assert checkpoint.size >= 10 * GB
    assert len(site.requests) <= 12
    assert site.nbytes <= 500_000


def test_part_of_ten_gigabytes_is_read_alone(site):
    """A few elements of a tensor of a gigabyte, unverified, cost its headers and these elements, whatever lies around."""
    torch_file(site.folder)
    with statedict.open(f"{site.url}huge.pt") as checkpoint:
        leaf = checkpoint.state_dict().leaf("l.7.w")
        site.forget()
        into = bytearray(400_000)
        leaf.storage.source.read_into([Read(leaf.storage, 500_000_000, memoryview(into))], verify=False)
    assert into == bytes(400_000)
    assert site.nbytes <= 400_000 + 2 * 65_536


def test_a_server_without_ranges_is_not_read_to_its_end(site):
    """If a server does not support ranges, a file of ten gigabytes is neither fetched nor kept."""
    torch_file(site.folder)
    site.ranges = False
    with pytest.raises(RemoteError, match="does not support range requests"):
        statedict.open(f"{site.url}huge.pt")
    assert site.sent < 100_000_000


def save_torch(tensors, path):
    torch = pytest.importorskip("torch")
    torch.save({name: torch.from_numpy(value) for name, value in tensors.items()}, path)


def save_legacy(tensors, path):
    torch = pytest.importorskip("torch")
    tensors = {name: torch.from_numpy(value) for name, value in tensors.items()}
    torch.save(tensors, path, _use_new_zipfile_serialization=False)


def save_sharded(tensors, path):
    statedict.save(tensors, str(path).removesuffix(".index.json"), max_shard_size="1MB")


SAVERS = {
    "torch.pt": save_torch,
    "ours.pt": statedict.save,
    "legacy.pt": save_legacy,
    "ours.safetensors": statedict.save,
    "numpy.npz": lambda tensors, path: np.savez(path, **tensors),
    "small.npz": lambda tensors, path: np.savez_compressed(path, **tensors),
    "shards.safetensors.index.json": save_sharded,
}


@pytest.fixture(params=SAVERS)
def saved(request, site):
    """The name of a file with `state()`, of each format in turn."""
    SAVERS[request.param](state(), site.folder / request.param)
    return request.param


def test_remote_is_as_local(site, saved):
    """What is listed and loaded is what the local file gives; so is what `verify` finds."""
    with statedict.open(site.url + saved) as remote, statedict.open(site.folder / saved) as local:
        assert (remote.format, remote.size, remote.producer, remote.metadata) == (
            local.format,
            local.size,
            local.producer,
            local.metadata,
        )
        assert list(remote.state_dict()) == list(local.state_dict())
        assert not statedict.diff(remote, local)
        assert remote.verify() == local.verify()
    loaded = statedict.load(site.url + saved, backend="numpy")
    assert {name: value.tobytes() for name, value in loaded.items()} == {n: v.tobytes() for n, v in state().items()}


def test_listing_reads_no_tensor(site, saved):
    """What is in a file is told from its headers: of six tensors of 400 kB hardly a byte comes."""
    with statedict.open(site.url + saved) as checkpoint:
        assert all(checkpoint.state_dict().spec(name).shape == (100_000,) for name in state())
    if saved == "small.npz":  # deflated: inflated to see its header
        assert len(site.requests) <= 25
    elif saved == "shards.safetensors.index.json":  # shards of a megabyte and less come whole
        assert len(site.requests) <= 2 + 3 * 2
    else:
        assert len(site.requests) <= 3 + 3 * len(state())
        assert site.nbytes <= 150_000


def test_one_tensor_costs_its_own_bytes(site, saved):
    """Selected tensors are read, and the headers of their members; not those between them."""
    with statedict.open(site.url + saved) as checkpoint:
        site.forget()
        chosen = checkpoint.state_dict().select("a.2").numpy()
        assert chosen["a.2"].tobytes() == state()["a.2"].tobytes()
    # What is deflated comes once to be verified, and once to be inflated.
    assert site.nbytes <= 400_000 * (2 if saved == "small.npz" else 1) + 3 * 65_536


def test_one_root_costs_its_own_bytes(site):
    """The averaged weights of a training checkpoint are read without the optimizer's state."""
    parts = {"model": state(), "ema": state(), "optimizer": state(numel=300_000)}
    statedict.save({name: StateDict(part) for name, part in parts.items()}, site.folder / "run.pt")
    with statedict.open(f"{site.url}run.pt") as checkpoint:
        site.forget()
        ema = checkpoint.state_dict("ema").numpy()
        assert {name: ema[name].tobytes() for name in ema} == {n: v.tobytes() for n, v in state().items()}
    assert 6 * 400_000 <= site.nbytes <= 6 * 400_000 + 12 * 65_536


@pytest.mark.parametrize("name", ["many.pt", "many.safetensors"])
def test_many_small_tensors_come_together(site, name):
    """Thousands of tensors cost some dozens of requests, their headers included, and their bytes twice or so."""
    many = {f"l.{n}": np.full((4, 4), n, np.float32) for n in range(6000)}
    statedict.save(many, site.folder / name)
    loaded = statedict.load(site.url + name, backend="numpy")
    assert all(loaded[key].tobytes() == value.tobytes() for key, value in many.items())
    assert len(site.requests) <= 60
    assert site.nbytes <= 3 * (site.folder / name).stat().st_size


def test_damaged_bytes_are_found(site):
    """Checksums are verified as for local files, by every way that they are for those."""
    statedict.save(state(), site.folder / "m.pt")
    raw = bytearray((site.folder / "m.pt").read_bytes())
    raw[1_000_000] ^= 1
    (site.folder / "m.pt").write_bytes(raw)
    url = f"{site.url}m.pt"
    with pytest.raises(ChecksumError, match=f"{url}: archive/data/2: the bytes of 'a.2' have changed"):
        statedict.load(url, backend="numpy")
    statedict.load(url, backend="numpy", verify=False)
    with statedict.open(url) as checkpoint:
        assert [finding.where for finding in checkpoint.verify()] == ["a.2"]


def test_a_header_that_contradicts_the_directory_is_found_when_it_is_read(site):
    """Of a zip far away, a member's own header is looked at when the member is read; then it must agree."""
    statedict.save(state(), site.folder / "m.pt")
    raw = bytearray((site.folder / "m.pt").read_bytes())
    at = raw.index(b"archive/data/3")
    raw[at : at + 14] = b"archive/data/X"
    (site.folder / "m.pt").write_bytes(raw)
    with pytest.raises(FormatError, match="its local header has another name: b'archive/data/X'"):
        formats.open(site.folder / "m.pt")
    with statedict.open(f"{site.url}m.pt") as checkpoint:
        names = checkpoint.state_dict()
        assert names.select("a.2").numpy()["a.2"].tobytes() == state()["a.2"].tobytes()
        with pytest.raises(FormatError, match=r"archive/data/3: its local header has another name: b'archive/data/X'"):
            names.select("b.3").numpy()["b.3"]


def test_a_file_that_is_replaced_meanwhile_is_found(site):
    """Tensors of two versions of a file never come together."""
    statedict.save(state(), site.folder / "m.pt")
    with statedict.open(f"{site.url}m.pt") as checkpoint:
        checkpoint.state_dict().select("a.2").numpy()["a.2"]
        site.versions["m.pt"] = 2
        with pytest.raises(FileChangedError, match="its ETag has changed"):
            checkpoint.state_dict().select("a.4").numpy()["a.4"]


def test_a_missing_shard_is_named(site):
    """A missing shard is named by its URL, as a local one by its path."""
    save_sharded(state(), site.folder / "m.safetensors.index.json")
    (site.folder / "m-00002-of-00003.safetensors").unlink()
    with statedict.open(f"{site.url}m.safetensors.index.json?token=1") as checkpoint:
        assert checkpoint.notes[0].startswith("m-00002-of-00003.safetensors is missing")
        with pytest.raises(
            FormatError, match=r"http://.*/m-00002-of-00003\.safetensors: .*: the tensor is in this file"
        ):
            checkpoint.state_dict().numpy().fingerprint()


def model():
    torch = pytest.importorskip("torch")
    return torch.nn.ModuleList([torch.nn.Linear(1000, 1000, bias=n % 2 == 0) for n in range(8)])


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors"])
@pytest.mark.parametrize("verify", [True, False])
def test_a_model_is_loaded_in_bounded_memory(site, name, verify):
    """32 MB go into the model's own memory, through less than 16 MB, whether they are verified first or not."""
    torch = pytest.importorskip("torch")
    wanted, given = model(), model()
    statedict.save(wanted.state_dict(), site.folder / name)
    site.forget()
    url = site.url + name
    statedict.load_state_dict(given, url, verify=verify)  # imports, and the connections
    for parameter in given.parameters():
        torch.nn.init.zeros_(parameter)
    tracemalloc.start()
    try:
        statedict.load_state_dict(given, url, verify=verify)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert all(torch.equal(a, b) for a, b in zip(wanted.parameters(), given.parameters()))
    assert peak < 16_000_000


def test_a_model_is_whole_when_the_server_goes_away(site, monkeypatch):
    """When reading fails half-way, nothing of the model has changed."""
    torch = pytest.importorskip("torch")
    wanted, given = model(), model()
    before = {name: value.clone() for name, value in given.state_dict().items()}
    statedict.save(wanted.state_dict(), site.folder / "m.pt")
    checkpoint = statedict.open(f"{site.url}m.pt")
    source = checkpoint.state_dict()
    first = source.leaf("0.weight").storage.source
    read, halves = first.file.read_into, []

    def read_half(spans):
        for span in spans:
            read([span])
            site.broken = 503
            halves.append(span)

    first.file.read_into = read_half
    monkeypatch.setattr("statedict.torch.modules._stages.SMALL", 0)
    with pytest.raises(RemoteError, match="HTTP 503"):
        statedict.load_state_dict(given, source)
    assert halves
    assert all(torch.equal(before[name], value) for name, value in given.state_dict().items())


def test_commands_take_urls(site, tmp_path, capsys, monkeypatch):
    """inspect, verify, view, diff and convert read what is behind a URL as they read a file, and show no secrets of it."""
    from statedict.cli import main

    pytest.importorskip("plotly")
    monkeypatch.chdir(tmp_path)
    statedict.save(state(), site.folder / "m.pt")
    statedict.save(state(), site.folder / "m.safetensors")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            main(list(arguments))
        return caught.value.code, capsys.readouterr().out

    code, told = run("inspect", f"{site.url}m.pt?token=hunter2", "--json")
    assert (code, json.loads(told)["file"]) == (0, f"{site.url}m.pt?***")
    for command in (["verify"], ["verify", "--json"], ["inspect", "--values", "a.2"], ["view", "--headers"]):
        code, told = run(*command, f"{site.url}m.pt?token=hunter2")
        assert code == 0
        assert "hunter2" not in told
    assert [path.name for path in tmp_path.glob("*.html")] == ["m.pt.html"]
    assert run("diff", f"{site.url}m.pt", f"{site.url}m.safetensors")[0] == 0
    assert run("convert", f"{site.url}m.pt", str(tmp_path / "n.safetensors"))[0] == 0
    assert not statedict.diff(tmp_path / "n.safetensors", site.folder / "m.pt")
    assert run("inspect", f"{site.url}none.pt")[0] == 2
