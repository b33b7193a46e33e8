"""What the tests of remote files share: an HTTP server that counts what it is asked for, and fails when it is told to."""

from __future__ import annotations

import socket
import struct
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

import pytest


class Request(NamedTuple):
    """A request for bytes `start … stop` of a file; a HEAD asks for none."""

    method: str
    path: str
    start: int
    stop: int


class Site:
    """A folder, served by HTTP with ranges and ETags.

    Attributes:
        url: of the folder, with its slash.
        requests: all that were made; `headers` are those of the GETs.
        faults: what happens to the next GETs instead of an answer: `"reset"`, `"cut"` (half of the bytes come), or a status.
        broken: what happens to all GETs with a range that begins after byte 0, or None.
        ranges, lengths: whether the server knows ranges, and says how long files are.
        versions: what ETags are made of, by name, beside the files' sizes.
        sent: bytes of content that went out; `nbytes`: bytes that were asked for.
        trick: called with the handler, `start`, `stop` and the file's size in the place of an answer to a GET, or None.
        at_once: no GET is answered before so many have come, or half a second has passed.
    """

    def __init__(self, folder):
        self.folder = folder
        self.requests = []
        self.faults = []
        self.broken = self.trick = None
        self.headers = []
        self.ranges = self.lengths = True
        self.versions = {}
        self.together = self.most_together = 0
        self.arrived = threading.Condition()
        self.turn = threading.Lock()
        self.sent = 0
        self.at_once = 0
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"site": self}))
        server.daemon_threads = True
        self._server = server
        self._thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{server.server_port}/"

    def close(self):
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def forget(self):
        """Count from here on."""
        self.requests.clear()
        self.most_together = self.sent = 0

    @property
    def gets(self):
        return [request for request in self.requests if request.method == "GET"]

    @property
    def nbytes(self):
        return sum(request.stop - request.start for request in self.gets)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        site = self.site
        with site.arrived:
            site.together += 1
            site.most_together = max(site.most_together, site.together)
            site.arrived.notify_all()
            site.arrived.wait_for(lambda: site.most_together >= site.at_once, timeout=0.5)
        try:
            self.answer(body=True)
        finally:
            with site.arrived:
                site.together -= 1

    def answer(self, body):
        site = self.site
        name = self.path.partition("?")[0].lstrip("/").replace("%20", " ")
        path = site.folder / name
        size = path.stat().st_size if path.is_file() else 0
        start, stop, partial = self.asked(size)
        fault = None
        with site.turn:
            site.requests.append(Request(self.command, name, start, stop if body else start))
            if body and site.faults:
                fault = site.faults.pop(0)
            elif body and start and site.broken is not None:
                fault = site.broken
        if not path.is_file():
            fault = fault or 404
        if body:
            site.headers.append(self.headers)
            if self.headers.get("If-Match", self.etag(path, size)) != self.etag(path, size):
                fault = 412
            elif site.trick is not None:
                self.close_connection = True
                with suppress(ConnectionError):
                    site.trick(self, start, stop, size)
                return
        if isinstance(fault, int):
            self.send_response(fault)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if fault == "reset":
            # Closed with a reset, not an end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.connection.close()
            return
        self.send(path, size, start, stop, partial, body, fault)

    def asked(self, size):
        """The range asked for, and whether it is one."""
        text = self.headers.get("Range")
        if text is None or not self.site.ranges:
            return 0, size, False
        first, _, last = text.removeprefix("bytes=").partition("-")
        return int(first), min(int(last) + 1, size), True

    def etag(self, path, size):
        return f'"{size}-{self.site.versions.get(path.name, 1)}"'

    def send(self, path, size, start, stop, partial, body, fault):
        self.send_response(206 if partial else 200)
        if self.site.lengths:
            self.send_header("Content-Length", str(stop - start))
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.send_header("ETag", self.etag(path, size))
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{size}")
        self.end_headers()
        if not body:
            return
        if fault == "cut":
            stop = (start + stop) // 2
            self.close_connection = True
        try:
            with path.open("rb") as file:
                file.seek(start)
                while start < stop:
                    part = file.read(min(stop - start, 1 << 20))
                    self.wfile.write(part)
                    start += len(part)
                    self.site.sent += len(part)
        except ConnectionError:
            self.close_connection = True


@pytest.fixture
def site(tmp_path):
    """A folder served by HTTP."""
    folder = tmp_path / "site"
    folder.mkdir()
    served = Site(folder)
    yield served
    served.close()


@pytest.fixture(autouse=True)
def _quick_retries(monkeypatch):
    """Nobody waits for a second in a test."""
    from statedict.files import _attempts

    monkeypatch.setattr(_attempts, "DELAYS", (0.01,) * len(_attempts.DELAYS))
