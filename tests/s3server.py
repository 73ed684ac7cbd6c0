"""A real S3 server on loopback for the tests: `rclone serve s3` over a folder; requests are signed."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ACCESS_KEY = "boneage-access"
SECRET_KEY = "boneage-secret-key"


@dataclass(frozen=True)
class S3Server:
    """Where the server listens, and the variables that reach it."""

    endpoint: str

    @property
    def environment(self) -> dict[str, str]:
        """AWS_* variables; those that would lead to settings of this machine are turned off."""
        return {
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/dev/null",
            "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        }


def free_port() -> int:
    """A port of 127.0.0.1 on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def serve_s3(folder: Path, port: int | None = None) -> Iterator[S3Server]:
    """Run the server over `folder` (its sub-folders are the buckets) until the body ends."""
    rclone = shutil.which("rclone", path=str(Path(sys.executable).parent)) or shutil.which("rclone")
    if rclone is None:
        raise RuntimeError("rclone was not found; install the test extra: pip install boneage-ray[test]")
    folder.mkdir(parents=True, exist_ok=True)
    port = port or free_port()
    log = folder.with_suffix(".log")
    command = [
        rclone,
        "serve",
        "s3",
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{ACCESS_KEY},{SECRET_KEY}",
    ]
    command += ["--config", "/dev/null", "--log-file", str(log), str(folder)]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as process:
        try:
            _wait_until_open(process, port, log)
            yield S3Server(f"http://127.0.0.1:{port}")
        finally:
            process.terminate()


def _wait_until_open(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(200):
        if process.poll() is not None:
            raise RuntimeError(f"rclone ended with {process.returncode}: {log.read_text()}")
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise RuntimeError(f"rclone did not listen on port {port} within 10 s: {log.read_text()}")
