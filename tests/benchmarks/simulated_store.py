"""A read-only S3 server of any number of keys that exist nowhere: `film-0000000.png` and so on, each one of a few pictures.

Run as a program it serves until it is killed: `python simulated_store.py PORT COUNT PICTURE ...`. `GET /` answers how many
requests of each kind there were.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar
from urllib.parse import parse_qs, unquote, urlsplit

PAGE = 1000
PREFIX = "films/"


def key_of(number):
    """The key of a file; they sort by number."""
    return f"{PREFIX}{number // 1000:05d}/film-{number:08d}.png"


class Store(BaseHTTPRequestHandler):
    """Answers listings, HEAD and GET of S3; signatures are not looked at."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # else each answer waits for an acknowledgement
    count, pictures = 0, ()
    asked: ClassVar = Counter()

    def do_HEAD(self):
        self.asked["HEAD"] += 1
        self._object(body=False)

    def do_GET(self):
        url = urlsplit(self.path)
        if url.path == "/":
            self._answer(200, json.dumps(self.asked).encode(), "application/json")
        elif "list-type" in url.query:
            self.asked["LIST"] += 1
            self._list({name: values[0] for name, values in parse_qs(url.query).items()})
        else:
            self.asked["GET"] += 1
            self._object()

    def _list(self, query):
        if not PREFIX.startswith(query.get("prefix", "")):
            return self._answer(200, b"<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>")
        start = int(query.get("continuation-token", 0))
        end = min(start + PAGE, self.count)
        sizes = [len(picture) for picture in self.pictures]
        items = "".join(
            f"<Contents><Key>{key_of(k)}</Key><ETag>&quot;{k:032x}&quot;</ETag><Size>{sizes[k % len(sizes)]}</Size>"
            "<LastModified>2026-01-01T00:00:00.000Z</LastModified></Contents>"
            for k in range(start, end)
        )
        more = end < self.count
        token = f"<NextContinuationToken>{end}</NextContinuationToken>" if more else ""
        ending = f"<IsTruncated>{str(more).lower()}</IsTruncated>{token}"
        return self._answer(200, f"<ListBucketResult>{ending}{items}</ListBucketResult>".encode())

    def _object(self, body=True):
        stem = unquote(urlsplit(self.path).path).rpartition("/")[2]
        if not stem.startswith("film-"):
            return self._answer(404, b"", body=body)
        data = self.pictures[int(stem[5:13]) % len(self.pictures)]
        return self._answer(200, data, "image/png", body)

    def _answer(self, status, data, kind="application/xml", body=True):
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", '"0"')
        self.send_header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_):
        """Nothing is logged."""


def main():
    port, count, *pictures = sys.argv[1:]
    Store.count, Store.pictures = int(count), [Path(path).read_bytes() for path in pictures]
    ThreadingHTTPServer(("127.0.0.1", int(port)), Store).serve_forever()


if __name__ == "__main__":
    main()
