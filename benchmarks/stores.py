"""Measure saving to an object store against the client's own multipart upload: `python -m benchmarks.stores s3://bucket/prefix`.

In each round one state is saved by statedict, and an iterator of the same number of bytes is uploaded by obstore with the
same size and number of parts. The store is found by the environment (`AWS_ENDPOINT_URL`, `AWS_ACCESS_KEY_ID`, …). `--local`
starts a server on this machine that discards what it receives, so that the client is measured, not the store.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np

import statedict
from statedict.files import open_bucket
from statedict.files.stores._obstore import PART, PARTS

XML = {
    "uploads": b"<InitiateMultipartUploadResult><UploadId>1</UploadId></InitiateMultipartUploadResult>",
    "uploadId": b'<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>',
}


class Discarding(BaseHTTPRequestHandler):
    """Accepts uploads as S3 does, and keeps nothing."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        left = int(self.headers.get("Content-Length") or 0)
        into = memoryview(bytearray(1 << 20))
        while left:
            left -= self.rfile.readinto(into[: min(left, len(into))])  # type: ignore[attr-defined]
        named = (text for name, text in XML.items() if f"?{name}=" in self.path)
        body = next(named, b"") if self.command == "POST" else b""
        self.send_response(200)
        self.send_header("ETag", '"1"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_PUT = do_POST = do_DELETE = answer

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


def serve() -> str:
    """Start the server in a process of its own; return its address."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Discarding)
    if os.fork() == 0:
        parent = os.getppid()
        threading.Thread(target=server.serve_forever, daemon=True).start()
        while os.getppid() == parent:
            threading.Event().wait(0.5)
        os._exit(0)
    server.socket.close()
    return f"http://127.0.0.1:{server.server_port}"


def timed(act: Any) -> float:
    start = perf_counter()
    act()
    return perf_counter() - start


def blocks(memory: memoryview) -> Iterator[memoryview]:
    """Yield memory in pieces of a megabyte, as an application that uses the client directly would."""
    for start in range(0, len(memory), 1 << 20):
        yield memory[start : start + (1 << 20)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", nargs="?", default="s3://bucket/benchmark")
    parser.add_argument(
        "--local", action="store_true", help="use a server on this machine that discards what it receives"
    )
    parser.add_argument("--megabytes", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    if options.local:
        os.environ |= {"AWS_ENDPOINT_URL": serve(), "AWS_ACCESS_KEY_ID": "me", "AWS_SECRET_ACCESS_KEY": "secret"}
    import obstore

    bucket: Any = open_bucket(options.url)
    array = np.random.default_rng(0).integers(0, 255, options.megabytes << 20, dtype=np.uint8)
    memory = memoryview(array)

    def raw() -> None:
        obstore.put(bucket._store, "raw", blocks(memory), use_multipart=True, chunk_size=PART, max_concurrency=PARTS)

    raws, ours = [], []
    for _ in range(options.rounds):
        raws.append(timed(raw))
        ours.append(timed(lambda: statedict.save({"array": array}, f"{options.url}/ours.pt")))
    megabytes = len(array) / 1e6
    print(f"obstore's multipart upload   {megabytes / median(raws):8.0f} MB/s")
    print(f"statedict.save               {megabytes / median(ours):8.0f} MB/s")
    print(f"ratio                        {median(raws) / median(ours):8.2f}")


if __name__ == "__main__":
    main()
