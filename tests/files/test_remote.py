"""Files behind URLs: read by ranges, many at once, no more than is needed; trouble is tried again, and then said."""

import os
import subprocess
import sys
import traceback

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import statedict
from statedict import files
from statedict.errors import (
    FileChangedError,
    MissingDependencyError,
    RemoteError,
    SaveError,
    TruncatedError,
)
from statedict.files import Span, _remote

fsspec = pytest.importorskip("fsspec")
pytest.importorskip("aiohttp", reason="fsspec's HTTP needs aiohttp: the extra `remote`")

CONTENT = os.urandom(3 << 20)
SECRETS = ("hunter2", "0123abcd", "me%40home", "me@home")


@pytest.fixture
def url(site):
    """A file of 3 MiB behind a URL."""
    (site.folder / "content.bin").write_bytes(CONTENT)
    return f"{site.url}content.bin"


def read(file, *extents):
    """The bytes of extents (offset, nbytes), read as one batch."""
    buffers = [bytearray(nbytes) for _, nbytes in extents]
    file.read_into([Span(offset, memoryview(into)) for (offset, _), into in zip(extents, buffers)])
    return [bytes(into) for into in buffers]


def test_a_file_is_read_where_it_is_asked_for(site, url):
    """Opening costs the file's facts and its end; reading, the range that was asked for."""
    file = files.open(url)
    assert (file.name, file.size, file.far) == (url, len(CONTENT), True)
    assert [(r.method, r.start, r.stop) for r in site.requests] == [
        ("HEAD", 0, 0),
        ("GET", len(CONTENT) - _remote.BLOCK, len(CONTENT)),
    ]
    site.forget()
    assert read(file, (1000, 200_000)) == [CONTENT[1000:201_000]]
    assert [(r.start, r.stop) for r in site.gets] == [(1000, 201_000)]
    with pytest.raises(TruncatedError, match="the file has only 3,145,728"):
        file.read(len(CONTENT), 1)
    file.close()


def test_small_reads_bring_what_follows(site, url):
    """Reading field after field costs one request for all, and none at the file's end."""
    file = files.open(url)
    site.forget()
    for at in range(0, 40_000, 100):
        assert file.read(at, 100) == CONTENT[at : at + 100]
    assert file.read(file.size - 22, 22) == CONTENT[-22:]
    assert [(r.start, r.stop) for r in site.requests] == [(0, _remote.BLOCK)]


def test_what_is_kept_is_bounded(site, url):
    """Only a few blocks are kept, and always the file's end."""
    file = files.open(url)
    for at in range(0, 2 << 20, 100_000):
        assert file.read(at, 10) == CONTENT[at : at + 10]
    assert len(file._kept) <= _remote.KEPT
    site.forget()
    assert file.read(file.size - 10, 10) == CONTENT[-10:]
    assert site.requests == []


def test_a_small_file_comes_whole(site):
    """One request brings it, and nothing is asked for afterwards."""
    (site.folder / "small.bin").write_bytes(CONTENT[:5000])
    file = files.open(f"{site.url}small.bin")
    site.forget()
    assert read(file, (10, 100), (4000, 1000)) == [CONTENT[10:110], CONTENT[4000:5000]]
    assert file.read(0, 5000) == CONTENT[:5000]
    assert site.requests == []


def test_an_empty_file_is_opened(site):
    """Nothing is asked of it but its facts."""
    (site.folder / "empty.bin").write_bytes(b"")
    file = files.open(f"{site.url}empty.bin")
    assert (file.size, file.read(0, 0), len(site.requests)) == (0, b"", 1)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(st.tuples(st.integers(0, 3 << 20), st.integers(0, 700_000)), max_size=6))
def test_any_spans_come_out_right(url, extents):
    """Spans in any order, overlapping or not, get their own bytes."""
    extents = [(start, min(nbytes, len(CONTENT) - start)) for start, nbytes in extents]
    file = files.open(url)
    assert read(file, *extents) == [CONTENT[start : start + nbytes] for start, nbytes in extents]


def test_neighbours_come_in_one_request(site, url):
    """Small gaps are sunk; large ones are not fetched."""
    file = files.open(url)
    site.forget()
    read(file, *[(at, 1000) for at in range(0, 200_000, 2000)], (1_000_000, 100_000), (2_000_000, 100_000))
    asked = sorted((r.start, r.stop) for r in site.gets)
    assert asked == [(0, 199_000), (1_000_000, 1_100_000), (2_000_000, 2_100_000)]


def test_pieces_come_at_the_same_time(site, url):
    """A large span is cut, and its pieces are asked for together."""
    file = files.open(url)
    site.forget()
    site.at_once = 5
    assert read(file, (0, 5 * _remote.PORTION)) == [CONTENT[: 5 * _remote.PORTION]]
    assert site.most_together == 5
    assert {r.stop - r.start for r in site.gets} == {_remote.PORTION}
    site.forget()
    assert file.read(0, 5 * _remote.PORTION) == CONTENT[: 5 * _remote.PORTION]
    assert site.most_together == 5


@pytest.mark.parametrize("fault", [500, 503, 429, "reset", "cut"])
def test_trouble_is_tried_again(site, url, fault):
    """A server that is busy, a connection that breaks, an answer that is cut off: the bytes come all the same."""
    site.faults = [fault] * 2
    file = files.open(url)
    site.forget()
    site.faults = [fault] * 3
    assert read(file, (5, 100_000)) == [CONTENT[5:100_005]]
    assert len(site.gets) == 3 + 1


def test_tries_are_bounded(site, url):
    """After five tries the error is raised, and says how often it was tried."""
    file = files.open(url)
    site.forget()
    site.broken = 503
    with pytest.raises(RemoteError, match=r"content\.bin: the server answered HTTP 503 \(tried 5 times\)") as caught:
        read(file, (100, 100_000))
    assert caught.value.tries == len(site.gets) == 5
    site.broken = "cut"
    with pytest.raises(RemoteError, match=r"tried 5 times"):
        read(file, (100, 100_000))


def test_what_will_not_change_is_not_tried_again(site, url):
    """An HTTP status that blames the request is not tried again."""
    file = files.open(url)
    site.forget()
    site.broken = 400
    with pytest.raises(RemoteError, match=r"the server answered HTTP 400$"):
        read(file, (100, 100_000))
    assert len(site.gets) == 1


@pytest.mark.parametrize("status", [401, 403])
def test_refused_access_is_said(site, url, status):
    """Refused access is a PermissionError, as with a local file."""
    site.faults = [status] * 99
    with pytest.raises(PermissionError, match=f"HTTP {status}.*: check your credentials: '{url}'"):
        files.open(url)
    assert len(site.gets) <= 2


def test_a_missing_file_is_said(site):
    """A missing file is a FileNotFoundError that names the URL, after a single request."""
    with pytest.raises(FileNotFoundError, match="no such file") as caught:
        statedict.open(f"{site.url}none.pt")
    assert caught.value.filename == f"{site.url}none.pt"
    assert len(site.requests) == 2  # HEAD, then GET, since some servers know no HEAD


def test_a_server_that_is_gone_is_said(site, url):
    """Nobody listens: after some tries that is an error too, and not taken for a missing file."""
    site.close()
    with pytest.raises(RemoteError, match=r"Cannot connect to host 127\.0\.0\.1.*tried 5 times"):
        files.open(url)


@pytest.mark.parametrize("fault", [400, None])
def test_a_changed_file_is_said(site, url, fault):
    """Another file lies there now: whether the server still answers or not, that is the error."""
    file = files.open(url)
    site.broken = fault
    site.versions["content.bin"] = 2
    with pytest.raises(FileChangedError, match=r"changed while it was being read .its ETag has changed.*open it again"):
        read(file, (100, 200_000))


def test_a_file_that_shrinks_is_said(site, url):
    """Ranges beyond its end are no longer there, because it is another file."""
    file = files.open(url)
    (site.folder / "content.bin").write_bytes(CONTENT[:100_000])
    with pytest.raises(FileChangedError, match="its size has changed"):
        read(file, (90_000, 200_000))


def test_a_server_without_ranges_is_refused_unread(site, url):
    """A server that would send the whole file for each read is refused, except for small files, which are fetched whole."""
    site.ranges = False
    with pytest.raises(RemoteError, match="does not support range requests: download the file and open the local copy"):
        files.open(url)
    assert len(site.gets) == 1
    (site.folder / "small.bin").write_bytes(CONTENT[:5000])
    assert files.open(f"{site.url}small.bin").read(1000, 4000) == CONTENT[1000:5000]


def test_ranges_that_are_forgotten_later_are_an_error(site, url):
    """An answer of more bytes than were asked for is not taken for them."""
    file = files.open(url)
    site.ranges = False
    with pytest.raises(RemoteError, match="does not support range requests"):
        read(file, (0, 100_000))


def test_a_file_without_a_length_is_refused(site, url):
    """A file whose length the server does not tell is refused, because its end cannot be found."""
    site.lengths = False
    with pytest.raises(RemoteError, match="does not report the size of the file"):
        files.open(url)


def failures(site, url):
    """What raises, each as (what to do, a call)."""
    secret = url.replace("http://", "http://me%40home:hunter2@") + "?X-Amz-Signature=0123abcd&x=1"

    def fails(**changes):
        def call():
            vars(site).update(changes)
            file = files.open(secret)
            site.broken = 503
            read(file, (5, 100_000))

        return call

    yield "missing", lambda: files.open(secret.replace("content", "none"))
    yield "refused", fails(faults=[403] * 9)
    yield "broken later", fails(faults=[])
    yield "no ranges", fails(ranges=False)
    yield "busy", fails(ranges=True, faults=[503] * 99)
    yield "no length", fails(faults=[], lengths=False)
    yield "mapped", lambda: files.open(secret).mapped()
    yield "saved", lambda: statedict.save({"a": 1}, secret)
    yield "unknown protocol", lambda: files.open(secret.replace("http:", "nosuch:"))


def test_secrets_are_never_shown(site, url):
    """Passwords and queries are not in the text, arguments, causes or traceback of any error."""
    seen = set()
    for name, call in failures(site, url):
        site.lengths, site.broken = True, None
        with pytest.raises(Exception, match=r"\*\*\*@127\.0\.0\.1:\d+/\w+\.bin\?\*\*\*") as caught:
            call()
        shown = "".join(traceback.format_exception(caught.value)) + repr(vars(caught.value)) + repr(caught.value.args)
        context = caught.value.__context__
        while context is not None:
            shown += f"{context!r} {vars(context)} {context.args}"
            context = context.__context__
        assert [secret for secret in SECRETS if secret in shown] == [], name
        seen.add(type(caught.value))
    assert seen == {FileNotFoundError, PermissionError, RemoteError, SaveError}


def test_a_file_system_may_quote_secrets_in_its_own_way():
    """What a lower library says is shown without the secrets, decoded or not."""
    from statedict.files._attempts import translate

    url = "https://me:pass%20word@host/x.pt?sig=a%2Fb%2Bc"
    text = "no GET 'https://host/x.pt?sig=a/b+c' for me with pass word (sig=a%2Fb%2Bc, a/b+c)"
    shown = str(translate(OSError(text), url).error)
    assert shown == "https://***@host/x.pt?***: OSError: no GET 'https://host/x.pt?***' for me with *** (***, ***)"


def test_opened_urls_are_shown_without_secrets(site):
    """A Checkpoint's path is for people to read."""
    statedict.save({"a": 1.0}, site.folder / "m.pt")
    with statedict.open(f"{site.url}m.pt?token=hunter2") as checkpoint:
        assert checkpoint.path == f"{site.url}m.pt?***"
        assert checkpoint.object == {"a": 1.0}


def test_a_closed_file_is_not_read(url):
    """Reading a closed remote file is a ValueError, as with local files."""
    file = files.open(url)
    file.close()
    with pytest.raises(ValueError, match=r"content\.bin has been closed; open it again"):
        read(file, (0, 1000))


def test_mapping_a_url_is_refused(site):
    """mmap=True asks for what cannot be, and is not quietly given something else."""
    np = pytest.importorskip("numpy")
    statedict.save({"w": np.zeros(3)}, site.folder / "m.pt")
    with pytest.raises(RemoteError, match="only local files can be memory-mapped: load it without mmap"):
        statedict.load(f"{site.url}m.pt", mmap=True, backend="numpy")


@pytest.mark.parametrize("options", [{}, {"max_shard_size": 10}])
def test_saving_to_a_url_is_refused(options, tmp_path, monkeypatch):
    """A URL is not taken for a folder; the error says what to do instead, which works."""
    np = pytest.importorskip("numpy")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SaveError, match=r"https://host/m\.pt: .*(can only be read|local paths only)"):
        statedict.save({"w": np.ones(9)}, "https://host/m.pt", **options)
    assert os.listdir(tmp_path) == []
    with fsspec.open("memory://saved/m.pt", "wb") as file:
        statedict.save({"w": np.ones(9)}, file)
    assert statedict.load("memory://saved/m.pt", backend="numpy")["w"].tolist() == [1.0] * 9


def test_a_run_is_kept_on_a_disk(tmp_path, monkeypatch):
    """A CheckpointManager does not take a URL for a folder either."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SaveError, match=r"https://\*\*\*@host/run: https:// can only be read"):
        statedict.CheckpointManager("https://me:hunter2@host/run")
    assert os.listdir(tmp_path) == []


def test_any_protocol_of_fsspec_will_do(tmp_path):
    """Nothing here is about HTTP: another file system, and a chain of two."""
    system = fsspec.filesystem("memory")
    system.pipe("/any/content.bin", CONTENT)
    for url in ("memory://any/content.bin", f"simplecache::file://{tmp_path}/c.bin", f"file://{tmp_path}/c.bin"):
        (tmp_path / "c.bin").write_bytes(CONTENT)
        file = files.open(url)
        assert read(file, (77, 2 << 20)) == [CONTENT[77 : 77 + (2 << 20)]]
    system.pipe("/any/content.bin", CONTENT)
    file = files.open("memory://any/content.bin")
    system.pipe("/any/content.bin", CONTENT[:-1])
    with pytest.raises(FileChangedError, match="its size has changed"):
        read(file, (77, 2 << 20))


def test_a_folder_is_not_a_file():
    """The URL of a folder is told from that of a file, and its files are opened by name."""
    fsspec.filesystem("memory").pipe({"/folder/m.pt": b"x", "/folder/vae/w.pt": b"yz"})
    with pytest.raises(IsADirectoryError, match=r"this is a directory, not a file: 'memory://folder'"):
        files.open("memory://folder")
    folder = files.open_folder("memory://folder/")
    assert (folder.path, folder.files, folder.folders) == ("memory://folder", ["m.pt"], ["vae"])
    assert folder.file("m.pt").read(0, 1) + folder.folder("vae").file("w.pt").read(0, 2) == b"xyz"
    assert (folder.folder("vae").files, folder.folder("vae").size("w.pt")) == (["w.pt"], 2)
    with pytest.raises(FileNotFoundError, match=r"no such file: 'memory://folder/n\.pt'"):
        folder.file("n.pt")


def test_an_unknown_protocol_is_said():
    """fsspec knows which there are."""
    with pytest.raises(RemoteError, match="nosuch://x/y: ValueError: Protocol not known: nosuch"):
        files.open("nosuch://x/y")


def test_the_file_beside_it_has_the_same_access(site):
    """Its URL keeps the query, which may be what gives access; its name is quoted."""
    (site.folder / "part 1.bin").write_bytes(b"one")
    (site.folder / "index.json").write_bytes(b"{}")
    assert files.open(f"{site.url}index.json?token=1").beside("part 1.bin").read(0, 3) == b"one"
    with pytest.raises(FileNotFoundError):
        files.open(f"{site.url}index.json").beside("part 2.bin")


def run(code):
    """What a fresh Python prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


NEEDS = "needs the package {!r}: pip install {!r}"


@pytest.mark.parametrize(
    ("missing", "url", "text"),
    [
        ("fsspec", "https://me:hunter2@h/m.pt", "https://***@h/m.pt " + NEEDS.format("fsspec", "statedict[remote]")),
        ("aiohttp", "https://h/m.pt", "https://h/m.pt " + NEEDS.format("aiohttp", "statedict[remote]")),
        ("obstore", "s3://b/m.pt", "s3://b " + NEEDS.format("obstore", "statedict[remote]")),
        ("paramiko", "ssh://b/m.pt", "ssh://b/m.pt " + NEEDS.format("paramiko", "paramiko")),
    ],
)
def test_what_is_not_installed_is_named(missing, url, text):
    """Without fsspec, or what it needs for a protocol, the error names the package."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
import statedict, statedict.errors
try:
    statedict.open({url!r})
except statedict.errors.MissingDependencyError as error:
    print(error)
"""
    assert run(code) == f"reading {text}"
    assert issubclass(MissingDependencyError, ImportError)


def test_local_files_need_no_fsspec(tmp_path):
    """Nothing of it is imported, nor anything for the network, until a URL is opened."""
    code = f"""
import sys, statedict
statedict.save({{"a": 1}}, {str(tmp_path / "m.pt")!r})
assert statedict.load({str(tmp_path / "m.pt")!r}, backend="numpy") == {{"a": 1}}
print(*{{"fsspec", "aiohttp", "asyncio", "socket", "urllib.request", "random"}} & set(sys.modules))
"""
    assert set(run(code).split()) <= {"random", "socket"}  # which NumPy may import
