"""An S3 server on this machine (moto), which counts the bytes that it sends, and fails on request."""

import threading
from collections.abc import Callable

import pytest

pytest.importorskip("obstore")
pytest.importorskip("flask")
werkzeug = pytest.importorskip("moto.moto_server.werkzeug_app")


class Server:
    """A server with one bucket.

    Attributes:
        url: of the server.
        sent: bytes of content that were sent for GETs.
        requests: (method, path) of each request, in order.
        fault: called with (method, path) before each request; returns "refuse" (503, nothing is done), "lose" (500 after
            it was done), "cut" (half of the content), or None.
    """

    def __init__(self) -> None:
        from werkzeug.serving import make_server

        self.fault: Callable[[str, str], str | None] = lambda method, path: None
        self.sent = 0
        self.requests: list[tuple[str, str]] = []
        app = werkzeug.DomainDispatcherApplication(werkzeug.create_backend_app)

        def answer(environ, start):
            method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
            self.requests.append((method, path))
            fault = self.fault(method, path)
            if fault == "refuse":
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                start("503 Slow Down", [("Content-Length", "0")])
                return [b""]
            said = []
            content = b"".join(app(environ, lambda *answer: said.append(answer)))
            if fault == "lose":
                start("500 Internal Server Error", [("Content-Length", "0")])
                return [b""]
            self.sent += len(content) if method == "GET" and said[0][0].startswith(("200", "206")) else 0
            start(*said[0])
            return [content[: len(content) // 2] if fault == "cut" else content]

        self._server = make_server("127.0.0.1", 0, answer, threaded=True)
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which a process finds the server."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": "me",
            "AWS_SECRET_ACCESS_KEY": "hunter2",
            "AWS_REGION": "us-east-1",
        }

    def reset(self) -> None:
        """Forget all objects and faults, and make the bucket."""
        import urllib.request

        self.fault = lambda method, path: None
        for method, path in (("POST", "/moto-api/reset"), ("PUT", "/bucket")):
            with urllib.request.urlopen(urllib.request.Request(self.url + path, data=b"", method=method)) as answer:
                assert answer.status == 200
        self.requests.clear()
        self.sent = 0

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def once(kind, method, ending):
    """A fault of the first request with that method whose path ends so."""
    left = [kind]
    return lambda m, path: left.pop() if left and m == method and path.endswith(ending) else None
