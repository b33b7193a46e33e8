"""The Bucket of each store: the same rules for a server that behaves as S3 does and for fsspec's memory."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from secrets import token_hex
from types import SimpleNamespace

import pytest
from tests.s3 import once

import statedict
from statedict.errors import ConflictError, RemoteError, SaveError
from statedict.files import ABSENT, Upload, open_bucket, put_surely
from statedict.files.stores import _obstore

np = pytest.importorskip("numpy")
pytest.importorskip("fsspec")
# botocore and moto use what newer Pythons deprecate.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")


@pytest.fixture(params=["s3", "memory"])
def bucket(request):
    """An empty bucket of each kind."""
    if request.param == "s3":
        request.getfixturevalue("s3")
        return open_bucket("s3://bucket/run")
    return open_bucket(f"memory://{token_hex(4)}/run")


@pytest.fixture
def impatient(monkeypatch):
    """The client gives up soon."""
    monkeypatch.setitem(_obstore.RETRIES, "max_retries", 1)


def keys(bucket):
    return [entry.key for entry in bucket.list()]


def test_an_object_is_what_was_put(bucket):
    """An object has the content, size and ETag of its write; ranges end where it ends; lists are sorted, for any prefix."""
    etag = bucket.put("b/1", b"hello")
    bucket.put("a", b"")
    bucket.put("b/2", b"x")
    entry = bucket.stat("b/1")
    assert (entry.key, entry.nbytes, entry.etag) == ("b/1", 5, etag)
    assert bucket.read("b/1", 1, 3, etag) == b"el"
    assert bucket.read("b/1", 3, 9) == b"lo"
    assert bucket.get("b/1") == (b"hello", etag)
    assert keys(bucket) == ["a", "b/1", "b/2"]
    assert [entry.key for entry in bucket.list("b/")] == ["b/1", "b/2"]
    assert [entry.key for entry in bucket.list("b/2")] == ["b/2"]
    bucket.copy("b/1", "c")
    bucket.delete(["a", "b/1", "not there"])
    assert keys(bucket) == ["b/2", "c"]
    with pytest.raises(FileNotFoundError, match="/run/b/1"):
        bucket.stat("b/1")
    with pytest.raises(FileNotFoundError, match="/run/b/1"):
        bucket.read("b/1", 0, 1)


def test_a_conditional_write_is_refused_if_the_object_is_another(bucket):
    """An object is created once, replaced only if it is still the version that was read, and never after a deletion."""
    first = bucket.put("a", b"1", if_match=ABSENT)
    with pytest.raises(ConflictError, match="/run/a: another writer has changed this object; nothing was written"):
        bucket.put("a", b"2", if_match=ABSENT)
    second = bucket.put("a", b"3", if_match=first)
    with pytest.raises(ConflictError):
        bucket.put("a", b"4", if_match=first)
    with pytest.raises(ConflictError):
        bucket.read("a", 0, 1, first)
    assert bucket.get("a") == (b"3", second)
    bucket.delete(["a"])
    with pytest.raises(ConflictError):
        bucket.put("a", b"5", if_match=second)
    assert keys(bucket) == []


def test_of_many_writers_exactly_one_wins(bucket):
    """All writers but one get ConflictError, and the object has the content of that one."""

    def write(number):
        try:
            return put_surely(bucket, "a", b"%d" % number, if_match=ABSENT) and number
        except ConflictError:
            return None

    with ThreadPoolExecutor(8) as pool:
        won = [number for number in pool.map(write, range(1, 17)) if number is not None]
    assert len(won) == 1
    assert bucket.get("a")[0] == b"%d" % won[0]


def test_a_large_object_is_uploaded_in_parts(bucket):
    """The parts of a large object arrive in order."""
    content = os.urandom(20 << 20) + b"end"
    with Upload(bucket, "big") as stream:
        for start in range(0, len(content), 700_001):
            assert stream.write(content[start : start + 700_001]) == len(content[start : start + 700_001])
    assert stream.tell() == len(content)
    assert bucket.get("big")[0] == content


def test_an_upload_that_fails_leaves_nothing(bucket):
    """If the writer raises, its error is raised, and the earlier object stays."""
    bucket.put("big", b"old")
    with suppress(ZeroDivisionError), Upload(bucket, "big") as stream:
        stream.write(bytes(20 << 20))
        stream.write(bytes(1 // 0))
    assert bucket.get("big")[0] == b"old"


@pytest.mark.parametrize("key", ["a", "b/c"])
def test_a_lost_response_is_not_taken_for_a_refusal(s3, key):
    """If the response to a write is lost, the client reads its own object back, and the write has succeeded."""
    bucket = open_bucket("s3://bucket/run")
    etag = ABSENT
    for number in range(3):
        s3.fault = once("lose", "PUT", key)
        etag = put_surely(bucket, key, b"%d" % number, if_match=etag)
        assert bucket.get(key) == (b"%d" % number, etag)


def test_a_busy_store_is_asked_again(s3, impatient):
    """One HTTP 503 is retried; if the store stays busy, RemoteError is raised, and nothing was written."""
    bucket = open_bucket("s3://bucket/run")
    s3.fault = once("refuse", "PUT", "a")
    bucket.put("a", b"1")
    s3.fault = lambda method, path: "refuse"
    with pytest.raises(RemoteError, match="s3://bucket/run/a: the store answered HTTP 503"):
        put_surely(bucket, "a", b"2", if_match=None)
    with pytest.raises(RemoteError, match="HTTP 503"), Upload(bucket, "a") as stream:
        stream.write(bytes(20 << 20))
    s3.fault = lambda method, path: None
    assert bucket.get("a")[0] == b"1"


def test_errors_name_the_object(s3):
    """A bucket that does not exist, an object that is missing, and a scheme that is only read."""
    for write in (
        lambda: statedict.save(STATE, "s3://nobody/m.pt"),
        lambda: statedict.CheckpointManager("s3://nobody/run").save(1, state=STATE),
    ):
        with pytest.raises(FileNotFoundError, match="the bucket does not exist: create it, or check the URL"):
            write()
    with pytest.raises(SaveError, match="s3://bucket is a bucket: pass the URL of an object in it"):
        statedict.save(STATE, "s3://bucket")
    with pytest.raises(
        SaveError, match=r"file://a\.pt names another machine: pass a path, or file:// with an absolute"
    ):
        statedict.save(STATE, "file://a.pt")
    with pytest.raises(FileNotFoundError, match="s3://nobody/run/a"):
        open_bucket("s3://nobody/run").stat("a")
    with pytest.raises(FileNotFoundError, match="s3://nobody/run"):
        open_bucket("s3://nobody/run").list()
    with pytest.raises(SaveError, match=r"https://host/x: https:// can only be read; save to a local path, .*s3://"):
        open_bucket("https://host/x")


STATE = {"l": np.arange(700_000, dtype=np.float32)}


@pytest.mark.parametrize("name", ["m.pt", "m.safetensors", "m.npz"])
def test_a_state_is_saved_to_a_url(bucket, name):
    """A state that is saved to a URL has the same bytes as a local file, replaces an older object, and can be loaded."""
    statedict.save({"old": np.ones(3)}, f"{bucket.url}/{name}")
    statedict.save(STATE, f"{bucket.url}/{name}")
    assert keys(bucket) == [name]
    assert statedict.load(f"{bucket.url}/{name}", backend="numpy")["l"].tobytes() == STATE["l"].tobytes()
    with statedict.open(f"{bucket.url}/{name}") as checkpoint:
        assert checkpoint.verify() == []


def test_a_state_is_saved_to_a_file_url(tmp_path):
    """A `file://` URL means the local path: the file is replaced by a rename."""
    statedict.save(STATE, f"file://{tmp_path}/a%20b.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a b.safetensors"]
    assert statedict.load(f"file://{tmp_path}/a%20b.safetensors", backend="numpy").keys() == STATE.keys()


def test_what_cannot_be_written_changes_nothing(bucket):
    """A value that is refused, and shards (which are several files), leave the store unchanged."""
    statedict.save(STATE, f"{bucket.url}/m.pt")
    with pytest.raises(SaveError, match="would run code"):
        statedict.save({"f": print}, f"{bucket.url}/m.pt")
    with pytest.raises(SaveError, match="shards are written to local paths only"):
        statedict.save(STATE, f"{bucket.url}/m.safetensors", max_shard_size=1000)
    assert keys(bucket) == ["m.pt"]
    assert statedict.load(f"{bucket.url}/m.pt", backend="numpy").keys() == STATE.keys()


def test_loading_from_s3_fetches_each_byte_once(s3):
    """A verified load into arrays fetches the bytes of the file once, and little more."""
    large = {f"l.{i}": np.full(1_000_000, i, dtype=np.float32) for i in range(4)}
    for name in ("m.pt", "m.safetensors"):
        statedict.save(large, f"s3://bucket/{name}")
        s3.sent = 0
        loaded = statedict.load(f"s3://bucket/{name}", backend="numpy")
        assert loaded["l.3"].tobytes() == large["l.3"].tobytes()
        assert s3.sent < 16_000_000 + 200_000


MEMORY = """
import resource, sys
import numpy as np, statedict
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
array = np.random.default_rng(0).standard_normal(24 << 20)
statedict.save({"w": np.ones(9)}, "s3://bucket/small.pt")
before = peak()
statedict.save({"w": array}, "s3://bucket/large.pt")
print(peak() - before)
"""


def test_a_save_to_s3_needs_little_memory(s3):
    """A save of 200 MB of tensors needs at most 64 MB of further memory."""
    environment = {**os.environ, **s3.environment}
    done = subprocess.run(
        [sys.executable, "-c", MEMORY], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) <= 64


CONDITIONS = {
    "both": ({"e_tag": '"1"', "version": "11"}, {"if_match": '"1"'}),
    "an ETag only": ({"e_tag": '"1"', "version": None}, {"if_match": '"1"'}),
    "a version only": ({"e_tag": None, "version": "11"}, {"version": "11"}),
}


@pytest.mark.parametrize("name", CONDITIONS)
def test_a_condition_has_what_the_store_says_of_the_object(s3, name):
    """A write has the ETag and the version as its condition, and a read one of them: a store may have only one."""
    facts, of_read = CONDITIONS[name]
    bucket = open_bucket("s3://bucket/run")
    asked = []

    def put(store, key, data, *, mode, use_multipart):
        asked.append(mode)
        return facts

    def get(store, key, *, options):
        asked.append(options)
        return SimpleNamespace(bytes=lambda: b"1")

    bucket._api = SimpleNamespace(put=put, get=get)
    tag = bucket.put("a", b"1", if_match=ABSENT)
    bucket.put("a", b"1", if_match=tag)
    bucket.read("a", 0, 1, tag)
    known = {key: value for key, value in facts.items() if value}
    assert asked == ["create", known, {"range": (0, 1), **of_read}]


def test_an_object_has_what_was_written_and_taken(bucket):
    """Chunks may be copied or not, of any size, and arrive in order."""
    written, content = [b"", b"a" * 10, b"b" * 70_000, bytes(range(256)) * 9_000], b""
    with Upload(bucket, "a") as upload:
        for data in written:
            taken = memoryview(data[::-1])
            assert upload.write(data) == len(data)
            upload.take([taken[:7], taken[7:]])
            upload.take(taken[at : at + 1] for at in range(1100))
            content += data + data[::-1] + data[::-1][:1100]
    assert bucket.get("a")[0] == content
    assert upload.tell() == len(content)
