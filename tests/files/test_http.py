"""Servers that do not do as they are asked: no byte of theirs is taken for the file's, nor more than was asked for, and none
of them holds the call."""

import gzip
import os
import threading

import numpy as np
import pytest

import statedict
from statedict import files
from statedict.errors import FileChangedError, RemoteError
from statedict.files import Span, _attempts, _remote
from statedict.files._attempts import FinalError, attempt, translate

pytest.importorskip("fsspec")
pytest.importorskip("aiohttp", reason="fsspec's HTTP needs aiohttp: the extra `remote`")

CONTENT = os.urandom(3 << 20)


@pytest.fixture
def file(site):
    """A file of 3 MiB, opened while the server was honest."""
    (site.folder / "content.bin").write_bytes(CONTENT)
    found = files.open(f"{site.url}content.bin")
    site.forget()
    site.headers.clear()
    return found


def read(file, offset=1000, nbytes=100_000):
    into = bytearray(nbytes)
    file.read_into([Span(offset, memoryview(into))])
    return bytes(into)


def answer(handler, status, body=b"", **headers):
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def endless(handler, start, stop, size):
    answer(handler, 206, Content_Range=f"bytes {start}-{stop - 1}/{size}", Transfer_Encoding="chunked")
    while handler.site.sent < 1 << 30:
        handler.wfile.write(b"10000\r\n" + bytes(1 << 16) + b"\r\n")
        handler.site.sent += 1 << 16


def inflating(handler, start, stop, size):
    body = gzip.compress(bytes(50 << 20))
    ranges = f"bytes {start}-{stop - 1}/{size}"
    answer(handler, 206, body, Content_Range=ranges, Content_Encoding="gzip", Content_Length=str(len(body)))


def ranged(offset=0, *, total=None, said=True, length=0):
    """A server that gives as many bytes as were asked for, and says that they are others, or says nothing."""

    def trick(handler, start, stop, size):
        body = CONTENT[start + offset : stop + offset + length]
        text = f"bytes {start + offset}-{stop + offset + length - 1}/{total or size}"
        headers = {"Content_Range": text} if said else {}
        answer(handler, 206, body, Content_Length=str(len(body)), **headers)

    return trick


WHOLE = "does not support range requests"
TRICKS = {
    "an answer without end": (endless, WHOLE),
    "a bomb": (inflating, "the server sent data with Content-Encoding 'gzip'"),
    "other bytes": (
        ranged(-1000),
        r"the server sent Content-Range 'bytes 0-99999/3145728' instead of 'bytes 1000-100999/3145728'",
    ),
    "later bytes": (ranged(7), "the server sent Content-Range 'bytes 1007-"),
    "too many": (ranged(length=5), "the server sent Content-Range 'bytes 1000-101004/"),
    "of another size": (ranged(total=4 << 20), "the server sent Content-Range 'bytes 1000-100999/4194304' instead"),
    "without saying which": (ranged(said=False), "the server sent Content-Range '' instead of 'bytes 1000-"),
    "all of it": (lambda handler, *_: answer(handler, 200, CONTENT, Content_Length=str(len(CONTENT))), WHOLE),
}


@pytest.mark.parametrize("trick", TRICKS)
def test_another_answer_is_refused_at_once(site, file, trick):
    """An answer that is not the bytes that were asked for is an error, without another try, and little of it is read."""
    site.trick, text = TRICKS[trick]
    with pytest.raises(RemoteError, match=text) as caught:
        read(file)
    assert caught.value.tries == len(site.gets) == 1
    assert site.sent < 64 << 20


def test_other_weights_are_not_loaded(site):
    """A proxy that gives the file's first bytes in place of each range fails a load, though the file has no checksums."""
    state = {f"w{n}": np.full((300, 300), float(n), "f4") for n in range(12)}
    pytest.importorskip("safetensors.numpy").save_file(state, site.folder / "m.safetensors")
    raw = (site.folder / "m.safetensors").read_bytes()

    def proxy(handler, start, stop, size):
        body = raw[: stop - start]
        answer(handler, 206, body, Content_Length=str(len(body)), Content_Range=f"bytes 0-{len(body) - 1}/{size}")

    with statedict.open(f"{site.url}m.safetensors") as checkpoint:
        site.trick = proxy
        with pytest.raises(RemoteError, match="the server sent Content-Range 'bytes 0-"):
            checkpoint.state_dict().numpy()["w7"].sum()


def test_what_is_asked_for(site, file):
    """The bytes as they are in the file, of the version that was opened."""
    assert read(file) == CONTENT[1000:101_000]
    (headers,) = site.headers
    assert (headers["Accept-Encoding"], headers["Range"]) == ("identity", "bytes=1000-100999")
    assert headers["If-Match"] == f'"{len(CONTENT)}-1"'


def test_a_file_that_changes_between_two_ranges_is_noticed(site, file):
    """No bytes of the new file are taken for the old one's, even before the file's facts are looked at again."""
    read(file)
    site.versions["content.bin"] = 2
    with pytest.raises(FileChangedError, match="its ETag has changed"):
        read(file)
    assert site.sent < 2 * 100_000  # what the server had under way when the connection was closed


@pytest.fixture
def _impatient(monkeypatch):
    monkeypatch.setattr(_remote, "SILENT", 0.2)
    monkeypatch.setattr(_attempts, "PATIENCE", 0.1)


@pytest.mark.usefixtures("_impatient")
@pytest.mark.parametrize("said", [False, True])
def test_a_silent_server_is_given_up(site, file, said):
    """One that takes the request and sends nothing, or begins and goes silent, ends in an error after the second try."""
    over = threading.Event()

    def silent(handler, start, stop, size):
        if said:
            ranges = f"bytes {start}-{stop - 1}/{size}"
            answer(handler, 206, b"x", Content_Range=ranges, Content_Length=str(stop - start))
            handler.wfile.flush()
        over.wait(60)

    site.trick = silent
    try:
        with pytest.raises(RemoteError, match=r"the server did not answer in time \(tried 2 times\)"):
            read(file)
    finally:
        over.set()


@pytest.mark.usefixtures("_impatient")
def test_a_server_that_trickles_is_given_up(site, file, monkeypatch):
    """A byte now and then is not an answer either."""
    monkeypatch.setattr(_remote, "SLOWEST", 1 << 30)
    over = threading.Event()

    def trickle(handler, start, stop, size):
        answer(handler, 206, Content_Range=f"bytes {start}-{stop - 1}/{size}", Content_Length=str(stop - start))
        while not over.wait(0.02):
            handler.wfile.write(b"x")

    site.trick = trickle
    try:
        with pytest.raises(RemoteError, match="the server did not answer in time"):
            read(file)
    finally:
        over.set()


@pytest.mark.usefixtures("_impatient")
def test_a_server_that_never_answers_is_given_up():
    """One that lets connect and says nothing about the file does not hold `open`."""
    import socket

    text = "the server did not answer in time"
    with socket.create_server(("127.0.0.1", 0)) as server, pytest.raises(RemoteError, match=text):
        files.open(f"http://127.0.0.1:{server.getsockname()[1]}/m.pt")


def test_patience_ends(monkeypatch):
    """Slow failures are tried twice, quick ones five times; what cannot pass, once."""
    now, calls = [0.0], []
    monkeypatch.setattr(_attempts.time, "monotonic", lambda: now[0])

    def failing(error, seconds):
        def work():
            calls.append(1)
            now[0] += seconds
            raise error

        calls.clear()
        with pytest.raises(OSError, match="h/m"):
            attempt(work, "https://h/m")
        return len(calls)

    class OfflineModeIsEnabled(ConnectionError):
        pass

    assert failing(TimeoutError(), 100) == 2
    assert failing(ConnectionResetError("reset"), 3) == 2 + (_attempts.PATIENCE > 6)
    assert failing(ConnectionResetError("reset"), 0) == 5
    assert failing(OfflineModeIsEnabled("offline mode is enabled"), 0) == 1
    assert failing(FinalError(RemoteError("https://h/m", "no")), 0) == 1


def test_a_timeout_is_said_in_words():
    """The error for a timeout has words, although the exception's own text is empty."""
    translated = translate(TimeoutError(), "https://me:pw@h/m")
    assert (str(translated.error), translated.transient) == ("https://***@h/m: the server did not answer in time", True)
