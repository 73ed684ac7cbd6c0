"""A server in front of an S3 server that fails as real ones do: busy, broken off in the middle, slow, wrong."""

from __future__ import annotations

import http.client
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

_BUSY = b"""<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"""


class Proxy(ThreadingHTTPServer):
    """Passes requests on. `fails(method, path)` names the failure of a request: busy, broken, slow, wrong, or None.

    A wrong answer has the right length, and other bytes each time.
    """

    daemon_threads = True

    def __init__(self, behind: str) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = behind.removeprefix("http://")
        self.fails = lambda method, path: None
        self.seen: list[tuple[str, str, str | None]] = []


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        failure = self.server.fails(self.command, self.path)
        self.server.seen.append((self.command, self.path, failure))
        if failure == "busy":
            self._send(503, [("Content-Type", "application/xml")], _BUSY, len(_BUSY))
            return
        if failure == "slow":
            time.sleep(1.0)
        ahead = http.client.HTTPConnection(self.server.behind)
        ahead.request(self.command, self.path, body, dict(self.headers))
        answer = ahead.getresponse()
        data = answer.read()
        ahead.close()
        sent = data[: len(data) // 2] if failure == "broken" else data
        if failure == "wrong":
            middle, other = len(data) // 2, os.urandom(8)
            sent = data[:middle] + other + data[middle + len(other) :]
        self._send(answer.status, answer.getheaders(), sent, len(data) + (failure == "broken"))
        self.close_connection = failure == "broken"

    do_GET = do_PUT = do_HEAD = do_POST = do_DELETE = _answer

    def _send(self, status, headers, data, length) -> None:
        self.send_response(status)
        for name, value in headers:
            ours = ("transfer-encoding", "connection", "date", "server")
            if name.lower() not in ours and (name.lower() != "content-length" or self.command == "HEAD"):
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format, *args) -> None:
        pass


@contextmanager
def proxy_of(endpoint: str) -> Iterator[Proxy]:
    """A proxy in front of an S3 server."""
    with Proxy(endpoint) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
