"""Requests that nobody in his right mind sends, the same way every time: what `abuse.py` attacks the service with.

Each kind is a coroutine of a number: it returns the status of the answer, "closed" (without one) or "no answer" (after `PATIENCE`
seconds), and raises nothing.
"""

from __future__ import annotations

import asyncio
import json
import random
import struct
import zlib

from common import post
from fuzzing import fuzzed, phantom_seeds

PATIENCE = 30
SEEDS = phantom_seeds()


def head(method="POST", path="/v1/predict?sex=F", token=None, **headers):
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: a",
        *(f"{name.replace('_', '-')}: {value}" for name, value in headers.items()),
    ]
    lines += [f"Authorization: Bearer {token}"] if token else []
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


class Attack:
    """The kinds, against one port; `token` opens the door where a kind is to get past it."""

    def __init__(self, port, token):
        self.port, self.token = port, token
        self.kinds = {
            name: getattr(self, name)
            for name in dir(self)
            if not name.startswith("_") and callable(getattr(self, name))
        }

    async def fuzzed_body(self, number):
        return await self._told(post(fuzzed(SEEDS, number).data, token=self.token))

    async def bomb(self, number):
        side = (20_000, 65_535, 2**31 - 1)[number % 3]
        parts = [
            b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0),
            b"IDAT" + zlib.compress(bytes(50_000_000), 9),
            b"IEND",
        ]
        body = b"".join(struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part)) for part in parts)
        return await self._told(post(b"\x89PNG\r\n\x1a\n" + body, token=self.token))

    async def wrong_type(self, number):
        kind = ("text/html", "application/json", "multipart/form-data", "image/svg+xml", "\xff", "a" * 9000)[number % 6]
        return await self._told(post(b'{"uri": "file:///etc/passwd"}', kind, token=self.token))

    async def uri(self, number):
        where = (
            "file:///etc/passwd",
            "s3://b/../x",
            "http://169.254.169.254/latest",
            "/proc/self/environ",
            "s3://",
            7,
            None,
        )[number % 7]
        return await self._told(post(json.dumps({"uri": where}).encode(), "application/json", token=self.token))

    async def query(self, number):
        query = (
            "sex=Q",
            "pixel_spacing_mm=nan",
            "pixel_spacing_mm=1e999",
            "model=../hand",
            "sex=F&sex=M",
            "%00=%ff",
            "a=" + "b" * 60_000,
        )[number % 7]
        return await self._told(head(path="/v1/predict?" + query, token=self.token, Content_Length=1) + b"x")

    async def method(self, number):
        verb = ("DELETE", "TRACE", "CONNECT", "PUT", "OPTIONS", "BREW", "\x00", "POST" * 5000)[number % 8]
        return await self._told(head(verb, token=self.token, Content_Length=0))

    async def path(self, number):
        paths = (
            "/../../etc/passwd",
            "//v1//predict",
            "/v1/predict%00",
            "/static/..%2f..%2fapp.py",
            "/%2e%2e/%2e%2e/etc/passwd",
            "/v1/predict/" + "a/" * 30_000,
        )
        paths += (
            "/static/\\..\\..\\x",
            "*",
            "http://other/v1/models",
            "/v1/sample?number=-1",
            "/v1/sample?number=1e9",
            "/openapi.json/../../x",
        )
        return await self._told(head("GET", paths[number % len(paths)], self.token))

    async def wrong_token(self, number):
        token = (None, "", "x", "Bearer", "\xff\xfe", "a" * 100_000)[number % 6]
        return await self._told(post(SEEDS[0].data, token=token))

    async def header_flood(self, number):
        many = {f"x{k}": "y" * 50 for k in range(2000)} if number % 2 else {"x": "y" * 2_000_000}
        return await self._told(head("GET", "/v1/models", self.token, **many))

    async def smuggling(self, number):
        hidden = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n\r\n"
        tricks = (
            ("Content-Length: 4\r\nTransfer-Encoding: chunked", b"0\r\n\r\n" + hidden),
            ("Transfer-Encoding: chunked\r\nContent-Length: 999", b"0\r\n\r\n" + hidden),
            ("Content-Length: 0\r\nContent-Length: 40", hidden),
            ("Transfer-Encoding: xchunked", b"0\r\n\r\n" + hidden),
            ("Transfer-Encoding : chunked", b"0\r\n\r\n" + hidden),
            ("Transfer-Encoding: chunked", b"ffffffffffffffff\r\n" + hidden),
            ("Content-Length: -1", hidden),
            ("Content-Length: 1e3", hidden),
            ("X: a\nTransfer-Encoding: chunked", b"0\r\n\r\n" + hidden),
        )
        lines, body = tricks[number % len(tricks)]
        return await self._told(f"POST /v1/predict HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n".encode() + body)

    async def form(self, number):
        one = b'--b\r\nContent-Disposition: form-data; name="files"; filename="../../x"\r\n\r\nx\r\n'
        body = (one * 3000 + b"--b--", one[:40], b"--b\r\n" * 20_000, one.replace(b"files", b"f" * 90_000) + b"--b--")[
            number % 4
        ]
        return await self._told(post(body, "multipart/form-data; boundary=b", token=self.token))

    async def false_length(self, number):
        length = (10, 10**12, 5_000_000)[number % 3]
        return await self._told(head(token=self.token, Content_Length=length) + b"x" * 11, patience=12)

    async def leaves_early(self, number):
        data = post(SEEDS[number % len(SEEDS)].data, token=self.token)
        return await self._told(data[: random.Random(number).randrange(1, len(data))], patience=0)

    async def does_not_wait(self, number):
        return await self._told(post(SEEDS[number % len(SEEDS)].data, token=self.token), patience=0.01)

    async def slow_body(self, number):
        body = bytes(70)
        return await self._told(head(token=self.token, Content_Length=len(body)), body, pause=0.9, patience=90)

    async def slow_headers(self, number):
        return await self._told(b"POST /v1/predict HTTP/1.1\r\n", b"X: y\r\n" * 5, pause=1.0, patience=0)

    async def _told(self, data, slowly=b"", pause=0.0, patience=PATIENCE):
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port, limit=2**26)
        try:
            writer.write(data)
            for k in range(0, len(slowly), 1):
                writer.write(slowly[k : k + 1])
                try:  # an answer before the end of the body
                    first = await asyncio.wait_for(reader.readline(), pause)
                    return _status(first)
                except TimeoutError:
                    pass
            if not patience:
                return "left"
            return _status(await asyncio.wait_for(reader.readline(), patience))
        except TimeoutError:
            return "no answer" if patience >= PATIENCE else "left"
        except (ConnectionError, ValueError):
            return "closed"
        finally:
            writer.transport.abort()


def _status(line):
    return line.split()[1].decode() if line.startswith(b"HTTP/") else "closed"
