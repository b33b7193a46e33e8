"""S3, against a server that behaves as S3 does: the same rules as over HTTP. The objects are written by s3fs."""

import pytest

import statedict
from statedict.errors import FileChangedError, FormatError

np = pytest.importorskip("numpy")
fsspec = pytest.importorskip("fsspec")
pytest.importorskip("s3fs")
pytest.importorskip("flask")
moto = pytest.importorskip("moto.server")

# botocore and moto use what newer Pythons deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(scope="module")
def server():
    """An S3 server on this machine."""
    served = moto.ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    served.start()
    yield "http://{}:{}".format(*served.get_host_and_port())
    served.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """A bucket's URL, and the file system to fill it with; where it is comes from fsspec's configuration."""
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": server, "key": "me", "secret": "hunter2"})
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    system = fsspec.filesystem("s3")
    system.mkdir("weights")
    yield "s3://weights", system
    system.rm("weights", recursive=True)


def state():
    random = np.random.default_rng(7)
    return {f"l.{i}": random.standard_normal(300_000, dtype=np.float32) for i in range(4)}


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors", "m.npz"])
def test_a_checkpoint_is_read_from_s3(bucket, tmp_path, name):
    """Listed, loaded, verified, compared: as where it lay before."""
    url, system = bucket
    statedict.save(state(), tmp_path / name)
    system.put(str(tmp_path / name), f"weights/runs/{name}")
    with statedict.open(f"{url}/runs/{name}") as checkpoint:
        assert checkpoint.path == f"{url}/runs/{name}"
        assert list(checkpoint.state_dict()) == list(state())
        assert checkpoint.verify() == []
    loaded = statedict.load(f"{url}/runs/{name}", backend="numpy")
    assert {key: value.tobytes() for key, value in loaded.items()} == {k: v.tobytes() for k, v in state().items()}
    assert not statedict.diff(f"{url}/runs/{name}", tmp_path / name)


def test_shards_are_read_from_s3(bucket, tmp_path):
    """The index names the shards beside it; one that is missing is named."""
    url, system = bucket
    statedict.save(state(), tmp_path / "m.safetensors", max_shard_size="2MB")
    for path in tmp_path.iterdir():
        system.put(str(path), f"weights/{path.name}")
    with statedict.open(f"{url}/m.safetensors.index.json") as checkpoint:
        assert checkpoint.metadata["shards"] == "4"
        assert checkpoint.state_dict().numpy()["l.3"].tobytes() == state()["l.3"].tobytes()
    system.rm("weights/m-00003-of-00004.safetensors")
    with pytest.raises(FormatError, match=f"{url}/m-00003-of-00004.safetensors: .*: the tensor is in this file"):
        statedict.load(f"{url}/m.safetensors.index.json", backend="numpy")


def test_an_object_that_is_replaced_is_found(bucket, tmp_path):
    """An object that is replaced while it is read is noticed by its ETag."""
    url, system = bucket
    statedict.save(state(), tmp_path / "m.pt")
    system.put(str(tmp_path / "m.pt"), "weights/m.pt")
    with statedict.open(f"{url}/m.pt") as checkpoint:
        statedict.save({name: value + 1 for name, value in state().items()}, tmp_path / "m.pt")
        system.put(str(tmp_path / "m.pt"), "weights/m.pt")
        with pytest.raises(FileChangedError, match=r"s3://weights/m\.pt: the file changed .*its ETag has changed"):
            checkpoint.state_dict().numpy()["l.0"]


def test_what_is_not_there_is_said(bucket):
    """A missing object, and a missing bucket, are missing files."""
    url, _ = bucket
    for missing in (f"{url}/none.pt", "s3://nobodys-bucket/m.pt"):
        with pytest.raises(FileNotFoundError, match=f"no such file: '{missing}'"):
            statedict.open(missing)


def test_a_prefix_is_opened_as_a_folder(bucket, tmp_path):
    """A prefix is a folder, which may list itself as an empty object."""
    url, system = bucket
    statedict.save({"weight": np.arange(3.0)}, tmp_path / "m.pt")
    system.pipe({"weights/runs/": b"", "weights/runs/m.pt": (tmp_path / "m.pt").read_bytes()})
    with statedict.open(f"{url}/runs") as checkpoint:
        assert checkpoint.state_dict().numpy()["weight"].tolist() == [0, 1, 2]


def test_no_credentials_is_said(bucket, monkeypatch):
    """Without them nothing is read, and the error says which were looked for in words of the file system's."""
    url, system = bucket
    system.pipe("weights/m.pt", b"x")
    monkeypatch.setitem(fsspec.config.conf, "s3", {"endpoint_url": fsspec.config.conf["s3"]["endpoint_url"]})
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with pytest.raises(OSError, match=r"check your credentials: 's3://weights/m\.pt'"):
        statedict.open(f"{url}/m.pt")
