"""The client of the simulated store, in the place of obstore's: each request is one step of the process that makes it."""

from __future__ import annotations

import errno
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, TypeVar
from unittest.mock import patch

from statedict.errors import ConflictError, RemoteError
from statedict.files import StoredObject
from statedict.files import _file as local
from statedict.files.stores import _file, _open

from .calls import CALLS
from .computer import KilledError
from .process import Process
from .store import Store, Write, etag_of, some

Result = TypeVar("Result")
SCHEME = "simulated"
# The probability that a request which is on its way arrives before another one.
ARRIVES = 0.1


class SimulatedBucket:
    """A Bucket of the store of the computer that runs now."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._prefix = self.url.partition("://")[2] + "/"

    def stat(self, key: str) -> StoredObject:
        return self._ask("stat", key, lambda store: self._entry(store, key, self._content(store, key)))

    def get(self, key: str) -> tuple[bytes, str]:
        content = self._ask("read", key, lambda store: self._content(store, key))
        return content, etag_of(content)

    def read(self, key: str, start: int, stop: int, etag: str = "") -> bytes:
        def read(store: Store) -> bytes:
            content = self._content(store, key)
            if etag and etag_of(content) != etag:
                raise ConflictError(f"{self.url}/{key}")
            return content[start:stop]

        return self._ask("read", key, read)

    def put(self, key: str, data: bytes, *, if_match: str | None = None) -> str:
        self._write("put", [Write(self._prefix + key, bytes(data), if_match)])
        return etag_of(data)

    def upload(self, key: str, blocks: Iterable[bytes]) -> None:
        self._write("upload", [Write(self._prefix + key, b"".join(blocks))])

    def delete(self, keys: Sequence[str]) -> None:
        if keys:
            self._write("delete", [Write(self._prefix + key, None) for key in keys])

    def copy(self, source: str, target: str) -> None:
        content = self._ask("read", source, lambda store: self._content(store, source))
        self._write("copy", [Write(self._prefix + target, content)])

    def list(self, prefix: str = "") -> Sequence[StoredObject]:
        keys = self._listed(prefix)
        return [self._entry(self._store, key, self._store.before(self._prefix + key)) for key in keys]

    def names(self, folder: str = "") -> tuple[list[str], list[str]]:
        inside = [key.removeprefix(folder) for key in self._listed(folder)]
        return [name for name in inside if "/" not in name], sorted(
            {name.partition("/")[0] for name in inside if "/" in name}
        )

    # parts

    @property
    def _store(self) -> Store:
        assert CALLS.computer is not None
        return CALLS.computer.medium

    def _listed(self, prefix: str) -> list[str]:
        process = self._process()
        computer = process.computer
        random = computer.random if computer.is_concurrent else None
        found = self._ask("list", prefix, lambda store: store.list(self._prefix + prefix, random))
        return [key.removeprefix(self._prefix) for key in found]

    def _content(self, store: Store, key: str) -> bytes:
        found = store.objects.get(self._prefix + key)
        if found is None:
            raise FileNotFoundError(errno.ENOENT, "no such file", f"{self.url}/{key}")
        return found

    def _entry(self, store: Store, key: str, content: bytes) -> StoredObject:
        written = datetime.fromtimestamp(store.written[self._prefix + key] // 10**9, UTC)
        return StoredObject(key, len(content), etag_of(content), written)

    def _process(self) -> Process:
        process = CALLS.running
        if process is None:
            # A manager of a dead process is closed.
            raise RemoteError(self.url, "the process has ended")
        return process

    def _ask(self, verb: str, key: str, answer: Callable[[Store], Result]) -> Result:
        process = self._process()
        process.request(verb, key)
        if self._fails(process):
            raise RemoteError(f"{self.url}/{key}", "HTTP 503")
        return answer(self._store)

    def _write(self, verb: str, writes: list[Write]) -> None:
        """Carry writes out, or some of them, now or later, and report what a client would."""
        process, store = self._process(), self._store
        computer, random = process.computer, process.computer.random
        was_dead = process.is_dead
        names = ", ".join(write.key.removeprefix(self._prefix) for write in writes)
        try:
            process.request(verb, names)
        except KilledError:
            if not was_dead:
                self._lose(store, writes, process)
            raise
        if not self._fails(process):
            for write in writes:
                store.do(write)
            return
        condition = writes[0].if_match
        if condition is not None and random.random() < 0.3:
            # The client has sent it again after a lost response, and finds its own first attempt.
            store.do(writes[0])
            computer.say(process, "gets its own conflict")
            raise ConflictError(f"{self.url}/{names}")
        self._lose(store, writes, process)
        raise RemoteError(f"{self.url}/{names}", "HTTP 503")

    def _lose(self, store: Store, writes: list[Write], process: Process) -> None:
        """Draw what becomes of a request whose response nobody receives."""
        random = process.computer.random
        done = some(writes, random)
        if random.random() < 0.5:
            process.computer.say(process, f"gets no response, and {len(done)} of {len(writes)} were carried out")
            for write in done:
                store.arrive(write)
        else:
            process.computer.say(process, "gets no response, and the request is still on its way")
            store.late += writes

    def _fails(self, process: Process) -> bool:
        """Whether this request fails; others that are on their way may arrive before it."""
        computer, store = process.computer, self._store
        if not computer.is_concurrent:
            return False
        random = computer.random
        if store.late and random.random() < ARRIVES:
            late = store.late.pop(random.randrange(len(store.late)))
            computer.say("a late request", f"writes {late.key}")
            store.arrive(late)
        if random.random() >= store.faults:
            return False
        process.faults += 1
        computer.say(process, "gets an error")
        return True


class RefusedThread:
    """A thread that the system refuses, so that all requests of a process come from one thread, in one order."""

    def __init__(self, **options: Any) -> None: ...

    def start(self) -> None:
        raise RuntimeError("can't start new thread")


@contextmanager
def simulated_store() -> Iterator[None]:
    """Let the library reach the simulated store, as it reaches S3, by URLs with SCHEME."""
    schemes: dict[str, Any] = {**_open.SCHEMES, SCHEME: SimulatedBucket}
    with (
        patch.object(_open, "SCHEMES", schemes),
        patch.object(_open, "ObstoreBucket", SimulatedBucket),
        patch.object(_file, "ObstoreBucket", SimulatedBucket),
        patch.object(local, "threading", SimpleNamespace(Thread=RefusedThread, Lock=threading.Lock)),
    ):
        yield
